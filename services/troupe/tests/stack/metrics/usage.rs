//! Processor time and memory of PHP, which does most of the work.

use troupe_testkit::stack::{Instance, Plan, Stack};
use troupe_testkit::wait;

use super::{SOON, cluster, sum};
use crate::support::{binary, functions, in_both};

const CPU: &str = "troupe_php_cpu_seconds_total{pool=\"default\"}";
const MEMORY: &str = "troupe_php_resident_bytes{pool=\"default\"}";
const MIB: f64 = (1 << 20) as f64;

fn own(instance: &Instance) -> String {
    instance.admin("/metrics").expect("the admin listener answers").text()
}

/// Waits until PHP's processor time is at least `least`; it must not fall meanwhile.
fn until_used(stack: &mut Stack, least: f64) -> f64 {
    let mut last = 0.0;
    wait::until("processor time to be told", SOON, || {
        let now = sum(&own(stack.instance("php-pool")), CPU);
        assert!(now >= last, "it fell from {last} to {now}");
        last = now;
        (now >= least).then_some(now)
    })
}

#[test]
fn the_processor_time_and_memory_of_php_are_seen() {
    in_both("[php.default]\nprocesses = { min = 1, max = 1 }\n", |stack| {
        let before = wait::until("memory to be told", SOON, || {
            let page = own(stack.instance("php-pool"));
            (sum(&page, MEMORY) > MIB).then(|| (sum(&page, CPU), sum(&page, MEMORY)))
        });
        assert_eq!(stack.get("/api/burns?ms=600&mb=64").status, 200);
        let used = until_used(stack, before.0 + 0.3);
        assert!(used < before.0 + 12.0, "{before:?} {used}");
        wait::until("the memory to be told", SOON, || {
            (sum(&own(stack.instance("php-pool")), MEMORY) >= before.1 + 32.0 * MIB).then_some(())
        });
        // Given back.
        assert_eq!(stack.get("/api/burns").status, 200);
        wait::until("the memory to be free", SOON, || {
            (sum(&own(stack.instance("php-pool")), MEMORY) < before.1 + 32.0 * MIB).then_some(())
        });
        // Those that ended keep what they used, and others come by it.
        assert_eq!(stack.get("/api/killed").status, 502);
        let used = until_used(stack, used);
        assert_eq!(stack.get("/api/burns?ms=600").status, 200);
        until_used(stack, used + 0.3);
        let status = stack.instance("php-pool").admin("/api/status").unwrap().json();
        let php = &status["php"][0];
        assert!(php["cpu_seconds"].as_f64().unwrap() > 0.6, "{status}");
        assert!(php["resident_bytes"].as_f64().unwrap() > MIB, "{status}");
    });
}

#[test]
fn processes_that_live_for_one_call_are_not_missed() {
    for isolation in ["fork", "fresh"] {
        let config = format!("[php.default]\nisolation = \"{isolation}\"\nprocesses = {{ min = 1, max = 2 }}\n");
        let mut stack = Stack::one_process(binary(), &functions(), &config);
        for _ in 0..8 {
            assert_eq!(stack.get("/api/burns?ms=150").status, 200);
        }
        let used = until_used(&mut stack, 0.6);
        assert!(used < 60.0, "{isolation}: {used}");
    }
}

#[test]
fn the_cluster_knows_what_php_uses() {
    let mut stack = Plan::apart().with_metrics().start(binary(), &functions(), "");
    assert_eq!(stack.get("/api/burns?ms=600&mb=64").status, 200);
    let page = wait::until("the metrics service to be told", SOON, || {
        let page = cluster(stack.instance("metrics"));
        (sum(&page, CPU) >= 0.3 && sum(&page, MEMORY) >= 32.0 * MIB).then_some(page)
    });
    assert!(page.contains("# TYPE troupe_php_cpu_seconds_total counter"), "{page}");
    assert!(page.contains("# TYPE troupe_php_resident_bytes gauge"), "{page}");
    let dashboard = stack.instance("metrics").admin("/dashboard").unwrap().text();
    assert!(dashboard.contains("<small>PHP "), "{dashboard}");
}
