//! Workers that are to get no call, from their first moment on.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Fake, POOL, Stack, get, queue, start, until};
use troupe_mesh::failure::Failure;

const LONG: Duration = Duration::from_secs(60);

fn fake(name: &str) -> Arc<Fake> {
    Fake::new(name, 4, Duration::ZERO)
}

/// Lists these and nobody else.
fn list(stack: &Stack, fakes: Vec<Arc<Fake>>) {
    *stack.fakes.lock() = fakes;
    stack.list();
}

/// A call that waits, as there is no worker.
async fn waits(stack: &Stack) -> actix_rt::task::JoinHandle<Result<(), Failure>> {
    list(stack, Vec::new());
    stack.found(0).await;
    let port = stack.on_thread(0);
    let call = actix_rt::spawn(async move { port.call(get()).await.map(drop) });
    until("the call waits", || stack.balancer.busy() == (0, 1)).await;
    call
}

/// The call goes to `other`, which comes after `drained`, and to nobody else.
async fn is_left_for(
    other: &str,
    drained: &Arc<Fake>,
    stack: &Stack,
    call: actix_rt::task::JoinHandle<Result<(), Failure>>,
) {
    let before = drained.calls();
    list(stack, vec![Arc::clone(drained)]);
    stack.found(1).await;
    let other = fake(other);
    list(stack, vec![Arc::clone(drained), Arc::clone(&other)]);
    call.await.expect("no panic").expect("the other answers");
    assert_eq!((drained.calls() - before, other.calls()), (0, 1));
}

#[actix_rt::test]
async fn what_waits_is_not_given_to_a_worker_that_comes_while_it_drains() {
    let stack = start(vec![fake("first")], queue(10, LONG), 1).await;
    let call = waits(&stack).await;
    let drained = fake("drains");
    drained.draining.store(true, Ordering::SeqCst);
    is_left_for("other", &drained, &stack, call).await;
}

#[actix_rt::test]
async fn what_waits_is_not_given_to_a_worker_that_an_operator_drained_before_its_link_was_away() {
    let drained = fake("held");
    let stack = start(vec![Arc::clone(&drained)], queue(10, LONG), 1).await;
    assert!(stack.balancer.hold(&drained.id, POOL, true).await.expect("the supervisor lives"));
    let call = waits(&stack).await;
    is_left_for("other", &drained, &stack, call).await;
}

#[actix_rt::test]
async fn a_worker_is_drained_though_a_thousand_others_were_that_have_gone() {
    let passing: Vec<_> = (0..1_024).map(|number| fake(&format!("passing {number}"))).collect();
    let stack = start(passing.clone(), queue(10, LONG), 1).await;
    for fake in &passing {
        assert!(stack.balancer.hold(&fake.id, POOL, true).await.expect("the supervisor lives"));
    }
    let last = fake("last");
    list(&stack, vec![Arc::clone(&last)]);
    stack.found(1).await;
    assert!(stack.balancer.hold(&last.id, POOL, true).await.expect("the supervisor lives"));
}
