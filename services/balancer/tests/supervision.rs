//! What makes the supervisor panic costs its sender, not the balancer: it is refused the third time. What never ends is given up
//! and told.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Fake, Stack, get, instance, queue, start, until};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use troupe_balancer::instances::{Instance, InstanceId};
use troupe_mesh::supervise;
use troupe_node::metrics::Metrics;

/// Counts, and makes whoever makes a series of a worker of this name panic.
struct Trap {
    metrics: Metrics,
    name: &'static str,
}

impl Recorder for Trap {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.metrics.registry().register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        assert!(key.labels().all(|label| label.value() != self.name), "trapped");
        self.metrics.registry().register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.metrics.registry().register_histogram(key, metadata)
    }
}

fn refused(metrics: &Metrics) -> bool {
    let name = "troupe_actor_poison_messages_total{actor=\"balancer\"} ";
    let page = metrics.render();
    page.lines()
        .any(|line| line.strip_prefix(name).is_some_and(|count| count.parse::<f64>().is_ok_and(|count| count >= 1.0)))
}

fn fake(name: &str) -> Arc<Fake> {
    Fake::new(name, 4, Duration::ZERO)
}

/// Lists the stack's fakes and an instance that nobody can make a port to: trying panics.
fn list_with_nobody(stack: &Stack, name: &str) {
    let mut listed: Vec<Instance> = stack.fakes.lock().iter().map(|fake| instance(fake)).collect();
    listed.push(Instance::new(InstanceId::new(name), Arc::from(name)));
    stack.instances.send_replace(listed.into());
}

async fn serves(stack: &Stack) {
    assert!(stack.on_thread(0).call(get()).await.is_ok());
}

#[actix_rt::test]
async fn a_list_that_the_supervisor_panics_over_is_refused_and_the_next_is_taken() {
    let metrics = Metrics::detached();
    let _recorder = metrics::set_default_local_recorder(metrics.registry());
    let stack = start(vec![fake("a")], queue(10, Duration::from_secs(1)), 1).await;
    list_with_nobody(&stack, "nobody");
    until("the list is refused", || refused(&metrics)).await;
    serves(&stack).await;
    stack.fakes.lock().push(fake("b"));
    stack.list();
    stack.found(2).await;
}

#[actix_rt::test]
async fn an_instance_whose_reports_the_supervisor_panics_over_counts_as_silent() {
    let metrics = Metrics::detached();
    let trap = Trap { metrics: metrics.clone(), name: "trap" };
    let _recorder = metrics::set_default_local_recorder(&trap);
    let stack = start(vec![fake("a")], queue(10, Duration::from_secs(1)), 1).await;
    stack.fakes.lock().push(fake("trap"));
    stack.list();
    until("its reports are refused", || refused(&metrics)).await;
    serves(&stack).await;
    // The supervisor lives, and goes on learning of the others.
    stack.fakes.lock().push(fake("b"));
    stack.list();
    stack.found(2).await;
    let workers = stack.balancer.snapshot().pools.remove(0).workers;
    assert!(workers.iter().all(|worker| worker.worker != "trap"), "it was never let in");
}

#[actix_rt::test]
async fn a_supervisor_that_panics_over_everything_is_given_up_and_told() {
    let stack = start(vec![fake("a")], queue(10, Duration::from_secs(1)), 1).await;
    // Each list costs two restarts; five are borne.
    for number in 0..4 {
        list_with_nobody(&stack, &format!("nobody {number}"));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let given_up = || supervise::given_up().borrow().iter().any(|lost| lost.escalation.name == "balancer");
    until("it is given up", given_up).await;
    // What was published last is what calls go by.
    serves(&stack).await;
}
