//! Workers that come and go for weeks: those that are there have series, and there are never more of them than may be.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::{Fake, Stack, instance, queue, start, until};
use troupe_node::metrics::Metrics;

/// Workers of a pool that may have series at once.
const MOST: usize = 256;

/// The workers that a scrape names.
fn named(metrics: &Metrics) -> BTreeSet<String> {
    let page = metrics.render();
    let scores = page.lines().filter_map(|line| line.strip_prefix("troupe_balancer_worker_score{"));
    scores.filter_map(|line| Some(line.split("worker=\"").nth(1)?.split('"').next()?.to_owned())).collect()
}

fn list(stack: &Stack, fakes: &[Arc<Fake>]) {
    stack.fakes.lock().extend(fakes.iter().cloned());
    stack.instances.send_replace(fakes.iter().map(|fake| instance(fake)).collect());
}

fn fakes(from: usize, count: usize) -> Vec<Arc<Fake>> {
    (from..from + count).map(|number| Fake::new(&format!("php-pool@{number}"), 4, Duration::ZERO)).collect()
}

fn names(fakes: &[Arc<Fake>]) -> BTreeSet<String> {
    fakes.iter().map(|fake| fake.id.as_str().to_owned()).collect()
}

#[actix_rt::test]
async fn a_thousand_workers_come_and_go_and_those_that_are_there_have_series() {
    let metrics = Metrics::detached();
    let _recorder = metrics::set_default_local_recorder(metrics.registry());
    let first = fakes(0, 50);
    let stack = start(first, queue(10, Duration::from_secs(1)), 1).await;
    let mut most = 0;
    for round in 1..=20 {
        let now = fakes(50 * round, 50);
        list(&stack, &now);
        stack.found(now.len()).await;
        let expected = names(&now);
        until("the series of those that are there, and of nobody else", || named(&metrics) == expected).await;
        most = most.max(metrics.registry().series_from(0).len());
    }
    // Of each worker three; a round's are made while those of the one before may still be held.
    let others = 60;
    assert!(most <= 3 * 2 * 50 + others, "{most} series for 50 workers");

    // More than may have series, then others in their place: nobody who is there is without.
    let crowd = fakes(2_000, MOST + 44);
    list(&stack, &crowd);
    stack.found(crowd.len()).await;
    until("as many as may be", || named(&metrics).len() == MOST).await;
    assert!(named(&metrics).is_subset(&names(&crowd)));
    let successors = fakes(3_000, 200);
    let both: Vec<Arc<Fake>> = crowd.iter().chain(&successors).cloned().collect();
    list(&stack, &both);
    stack.found(both.len()).await;
    assert!(named(&metrics).is_disjoint(&names(&successors)), "there was no place for them");
    list(&stack, &successors);
    stack.found(successors.len()).await;
    until("theirs, now that there is room", || named(&metrics) == names(&successors)).await;
}
