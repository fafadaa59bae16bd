//! One call after the other through the whole balancer, against fake workers.

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use common::{Behaviour, Fake, envelope, fast_config, get, post, queue, start, start_with, until};
use troupe_balancer::State;
use troupe_balancer::config::BalancerConfig;
use troupe_mesh::body::{self, Body};
use troupe_mesh::failure::{Outcome, Stage};

const WAIT: Duration = Duration::from_secs(5);

#[actix_rt::test]
async fn a_call_reaches_a_worker_and_its_reply_comes_back() {
    let fake = Fake::new("one", 4, Duration::ZERO);
    let stack = start(vec![fake.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    let reply = port.call(get()).await.unwrap();
    assert_eq!((reply.head.status(), fake.calls()), (200, 1));
    assert!(stack.idle());
    let snapshot = stack.balancer.snapshot();
    let worker = &snapshot.pools[0].workers[0];
    assert_eq!((worker.worker.as_str(), worker.cap, worker.state), ("one", 4, State::Ready));
    assert!(worker.score > 0.0 && worker.latency_us > 0.0);
}

#[actix_rt::test]
async fn a_call_that_did_not_start_is_tried_at_another_worker() {
    let bad = Fake::new("bad", 4, Duration::ZERO);
    let good = Fake::new("good", 4, Duration::ZERO);
    bad.behave(Behaviour::Fail(Outcome::Broken, false));
    let stack = start(vec![bad.clone(), good.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    for _ in 0..20 {
        assert_eq!(port.call(post()).await.unwrap().head.status(), 200);
    }
    assert_eq!(good.calls(), 20);
    assert!(bad.calls() > 0);
}

#[actix_rt::test]
async fn a_call_that_may_have_started_is_tried_again_only_if_idempotent() {
    let bad = Fake::new("bad", 4, Duration::ZERO);
    bad.behave(Behaviour::Fail(Outcome::Broken, true));
    let stack = start(vec![bad.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    assert_eq!(port.call(post()).await.unwrap_err().outcome, Outcome::Broken);
    assert_eq!(bad.calls(), 1);
    // The same worker once more, since there is no other.
    assert_eq!(port.call(get()).await.unwrap_err().outcome, Outcome::Broken);
    assert_eq!(bad.calls(), 3);
    assert!(stack.idle());
}

#[actix_rt::test]
async fn a_body_of_which_a_part_was_taken_is_never_sent_twice() {
    let bad = Fake::new("bad", 4, Duration::ZERO);
    bad.behave(Behaviour::Taste(Outcome::Broken));
    let stack = start(vec![bad.clone()], queue(10, WAIT), 1).await;
    let (mut writer, reader) = body::channel(None);
    writer.push(Bytes::from_static(b"a piece")).unwrap();
    let call = envelope(true, Body::Stream(reader), WAIT);
    assert_eq!(stack.on_thread(0).call(call).await.unwrap_err().outcome, Outcome::Broken);
    assert_eq!(bad.calls(), 1);
}

#[actix_rt::test]
async fn a_body_on_its_way_of_which_nothing_was_taken_is_tried_at_another_worker() {
    let away = Fake::new("away", 4, Duration::ZERO);
    let good = Fake::new("good", 4, Duration::ZERO);
    away.behave(Behaviour::Away);
    good.behave(Behaviour::Taste(Outcome::Refused));
    let stack = start(vec![away.clone(), good.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    while away.calls() == 0 {
        let (mut writer, reader) = body::channel(None);
        writer.push(Bytes::from_static(b"a piece")).unwrap();
        let call = envelope(false, Body::Stream(reader), WAIT);
        // Whichever is chosen first, it is the good one that gets the body.
        assert_eq!(port.call(call).await.unwrap_err().outcome, Outcome::Refused);
    }
}

#[actix_rt::test]
async fn refusals_and_spent_budgets_are_final() {
    let fake = Fake::new("one", 4, Duration::ZERO);
    let stack = start(vec![fake.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    for outcome in [Outcome::Refused, Outcome::Deadline, Outcome::Cancelled] {
        fake.behave(Behaviour::Fail(outcome, false));
        let before = fake.calls();
        assert_eq!(port.call(get()).await.unwrap_err().outcome, outcome);
        assert_eq!(fake.calls(), before + 1);
    }
}

#[actix_rt::test]
async fn retries_stay_within_the_budget() {
    let bad = Fake::new("bad", 4, Duration::ZERO);
    bad.behave(Behaviour::Fail(Outcome::Broken, false));
    let stack = start(vec![bad.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    for _ in 0..1_000 {
        assert!(port.call(get()).await.is_err());
    }
    // Ten to begin with, and a tenth of the calls.
    assert!((1_000..=1_110).contains(&bad.calls()), "{}", bad.calls());
}

#[actix_rt::test]
async fn a_worker_that_fails_in_a_row_is_out_exactly_then_and_comes_back() {
    let bad = Fake::new("bad", 1, Duration::from_millis(5));
    let good = Fake::new("good", 4, Duration::from_millis(5));
    bad.behave(Behaviour::Fail(Outcome::Broken, true));
    let stack = start(vec![bad.clone(), good.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    // Its cost keeps it from being chosen; calls that fill the good one reach it all the same.
    let mut failed = 0;
    while failed < 5 {
        let calls: Vec<_> = (0..8).map(|_| actix_rt::spawn(port.call(post()))).collect();
        for call in calls {
            failed += u32::from(call.await.unwrap().is_err());
        }
    }
    assert_eq!(bad.calls(), 5);
    for _ in 0..50 {
        assert!(port.call(post()).await.is_ok());
    }
    assert_eq!(bad.calls(), 5);
    bad.behave(Behaviour::Reply(200));
    let state = |index: usize| stack.balancer.snapshot().pools[0].workers[index].state;
    until("the worker is back", || state(0) == State::Ready && state(1) == State::Ready).await;
}

#[actix_rt::test]
async fn the_only_worker_is_used_even_when_it_is_out() {
    let bad = Fake::new("bad", 4, Duration::ZERO);
    bad.behave(Behaviour::Fail(Outcome::Broken, true));
    let stack = start(vec![bad.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    for _ in 0..10 {
        assert!(port.call(post()).await.is_err());
    }
    assert_eq!(bad.calls(), 10);
    until("it is told that all are out", || stack.balancer.snapshot().pools[0].all_out).await;
    bad.behave(Behaviour::Reply(200));
    assert!(port.call(post()).await.is_ok());
}

#[actix_rt::test]
async fn a_full_worker_is_asked_again_when_it_has_room() {
    let fake = Fake::new("one", 4, Duration::ZERO);
    fake.behave(Behaviour::Fail(Outcome::Overloaded, false));
    let stack = start(vec![fake.clone()], queue(10, WAIT), 1).await;
    let call = actix_rt::spawn(stack.on_thread(0).call(post()));
    until("it was asked", || fake.calls() > 0).await;
    fake.behave(Behaviour::Reply(200));
    assert_eq!(call.await.unwrap().unwrap().head.status(), 200);
    assert!(fake.calls() < 20, "asked {} times", fake.calls());
}

#[actix_rt::test]
async fn a_shared_worker_is_asked_for_its_room_as_soon_as_a_call_waits() {
    // So seldom that only being asked for helps.
    let config = BalancerConfig { report_interval: troupe_node::units::Duration::from_millis(60_000), ..fast_config() };
    let fake = Fake::new("one", 4, Duration::ZERO);
    let stack = start_with(config, vec![fake.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    // Other balancers' calls.
    fake.in_flight.store(4, Ordering::SeqCst);
    fake.behave(Behaviour::Fail(Outcome::Overloaded, false));
    let refused = actix_rt::spawn(port.call(post()));
    until("it was asked", || fake.calls() > 0 && !stack.idle()).await;
    refused.abort();
    let mut asked = u64::MAX;
    while asked != fake.reports.load(Ordering::SeqCst) {
        asked = fake.reports.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fake.in_flight.store(0, Ordering::SeqCst);
    fake.behave(Behaviour::Reply(200));
    assert_eq!(port.call(post()).await.unwrap().head.status(), 200);
}

#[actix_rt::test]
async fn a_refusal_that_is_not_for_want_of_a_place_is_final_and_leaves_the_worker_its_places() {
    for refusal in [Behaviour::Exhausted, Behaviour::Fail(Outcome::Overloaded, true)] {
        let fake = Fake::new("a", 4, Duration::ZERO);
        let stack = start(vec![fake.clone()], queue(10, Duration::from_secs(5)), 1).await;
        let port = stack.on_thread(0);
        fake.behave(refusal);
        let refused = port.call(get()).await.unwrap_err();
        assert_eq!((refused.outcome, refused.stage), (Outcome::Overloaded, Stage::PhpPool));
        assert_eq!(fake.calls(), 1, "it is not asked again");
        fake.behave(Behaviour::Reply(200));
        assert_eq!(port.call(get()).await.unwrap().head.status(), 200);
        assert!(fake.queued.lock().is_empty(), "there was a place all the time");
    }
}

#[actix_rt::test]
async fn a_stream_holds_its_place_to_its_end() {
    let fake = Fake::new("one", 1, Duration::ZERO);
    fake.behave(Behaviour::Stream);
    let stack = start(vec![fake.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    let mut reply = port.call(get()).await.unwrap();
    assert_eq!(stack.balancer.busy().0, 1);
    let second = actix_rt::spawn(port.call(get()));
    until("the second call waits", || stack.balancer.busy().1 == 1).await;
    let mut read = Vec::new();
    while let Some(piece) = reply.body.next().await {
        read.push(piece.unwrap());
    }
    assert_eq!(read, [Bytes::from_static(b"piece"), Bytes::from_static(b"piece"), Bytes::from_static(b"piece")]);
    // A reader that leaves gives the place back as well.
    drop(second.await.unwrap().unwrap());
    assert!(stack.idle());
    assert_eq!(fake.calls(), 2);
}

#[actix_rt::test]
async fn a_caller_that_leaves_gives_the_place_back() {
    let fake = Fake::new("one", 1, Duration::ZERO);
    fake.behave(Behaviour::Hang);
    let stack = start(vec![fake.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    let call = actix_rt::spawn(port.call(get()));
    until("it is in flight", || stack.balancer.busy().0 == 1).await;
    call.abort();
    until("it is out", || stack.idle()).await;
}

#[actix_rt::test]
async fn a_call_waits_for_the_first_worker_to_appear() {
    let stack = start(vec![], queue(10, Duration::from_millis(200)), 1).await;
    let port = stack.on_thread(0);
    let failure = port.call(get()).await.unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Unreachable, Stage::Balancer));
    assert!(failure.retry_after.is_some());

    let stack = start(vec![], queue(10, WAIT), 1).await;
    let call = actix_rt::spawn(stack.on_thread(0).call(get()));
    until("the call waits", || stack.balancer.busy().1 == 1).await;
    stack.fakes.lock().push(Fake::new("late", 1, Duration::ZERO));
    stack.list();
    assert_eq!(call.await.unwrap().unwrap().head.status(), 200);
}

#[actix_rt::test]
async fn a_call_that_no_link_took_waits_for_news_of_the_workers() {
    let gone = Fake::new("gone", 4, Duration::ZERO);
    gone.behave(Behaviour::Away);
    let stack = start(vec![gone.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    // More than there are tries, with the table still listing the worker alone.
    let call = actix_rt::spawn(async move { port.call(post()).await });
    until("some tries", || gone.calls() > 4).await;
    assert!(!call.is_finished());
    let other = Fake::new("other", 4, Duration::ZERO);
    stack.fakes.lock().push(other.clone());
    stack.list();
    assert_eq!(call.await.unwrap().unwrap().head.status(), 200);
    assert_eq!(other.calls(), 1);
    assert!(stack.idle());
}

#[actix_rt::test]
async fn a_draining_worker_gets_nothing_new_and_a_gone_one_is_forgotten() {
    let one = Fake::new("one", 4, Duration::ZERO);
    let two = Fake::new("two", 4, Duration::ZERO);
    let stack = start(vec![one.clone(), two.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    one.draining.store(true, Ordering::SeqCst);
    let draining = || {
        let snapshot = stack.balancer.snapshot();
        snapshot.pools[0].workers.iter().any(|worker| worker.worker == "one" && worker.state == State::Draining)
    };
    until("it drains", draining).await;
    let before = one.calls();
    for _ in 0..20 {
        port.call(get()).await.unwrap();
    }
    assert_eq!((one.calls(), two.calls()), (before, 20));
    stack.fakes.lock().retain(|fake| fake.id != one.id);
    stack.list();
    stack.found(1).await;
}

#[actix_rt::test]
async fn a_silent_worker_is_avoided_and_returns() {
    let one = Fake::new("one", 4, Duration::ZERO);
    let two = Fake::new("two", 4, Duration::ZERO);
    let stack = start(vec![one.clone(), two.clone()], queue(10, WAIT), 1).await;
    let port = stack.on_thread(0);
    let state = |name: &str| {
        let snapshot = stack.balancer.snapshot();
        snapshot.pools[0].workers.iter().find(|worker| worker.worker == name).map(|worker| worker.state)
    };
    one.silent.store(true, Ordering::SeqCst);
    until("it is out", || state("one") == Some(State::Ejected)).await;
    let before = one.calls();
    for _ in 0..20 {
        port.call(get()).await.unwrap();
    }
    assert_eq!(one.calls(), before);
    one.silent.store(false, Ordering::SeqCst);
    until("it is back", || state("one") == Some(State::Ready)).await;
}

#[actix_rt::test]
async fn an_unknown_pool_is_told_at_once() {
    let stack = start(vec![Fake::new("one", 4, Duration::ZERO)], queue(10, WAIT), 1).await;
    let mut call = get();
    call.call.pool = "elsewhere".into();
    let failure = stack.on_thread(0).call(call).await.unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Unreachable, Stage::Balancer));
}
