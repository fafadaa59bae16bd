//! Rate, errors and duration of each PHP function.

use std::fs;

use troupe_testkit::stack::Stack;
use troupe_testkit::wait;

use super::{SOON, cluster, sum};
use crate::support::{binary, in_both};

/// Functions of a pool that have series of their own.
const NAMED: usize = 64;

/// The value of a series of a function of the pool `default`.
fn value(page: &str, name: &str, function: &str) -> f64 {
    let function = format!("function=\"{function}\"");
    let own = page.lines().filter(|line| line.contains(&function) && line.contains("pool=\"default\""));
    own.map(|line| sum(line, &format!("{name}{{"))).sum()
}

fn seconds(page: &str, part: &str, function: &str) -> f64 {
    value(page, &format!("troupe_php_function_seconds_{part}"), function)
}

fn errors(page: &str, function: &str) -> f64 {
    value(page, "troupe_php_function_errors_total", function)
}

#[test]
fn each_function_tells_its_rate_errors_and_duration() {
    in_both("[php.default]\ntimeout = \"900ms\"\n", |stack| {
        for _ in 0..5 {
            assert_eq!(stack.get("/api/where").status, 200);
        }
        assert_eq!(stack.get("/api/sleep?ms=300").status, 200);
        assert_eq!(stack.get("/api/sleep?ms=5000").status, 504);
        for _ in 0..2 {
            assert_eq!(stack.get("/api/throws").status, 500);
        }
        assert_eq!(stack.get("/api/killed").status, 502);
        assert_eq!(stack.get("/api/stream").status, 200);
        assert_eq!(stack.get("/api/no-such-function").status, 404);
        let page = wait::until("the stream's end to be counted", SOON, || {
            let page = stack.instance("php-pool").admin("/metrics")?.text();
            (seconds(&page, "count", "stream") == 1.0).then_some(page)
        });
        // A GET whose process died is tried once more.
        for (function, calls, failed) in
            [("where", 5.0, 0.0), ("sleep", 2.0, 1.0), ("throws", 2.0, 2.0), ("killed", 2.0, 2.0), ("stream", 1.0, 0.0)]
        {
            let counted = (seconds(&page, "count", function), errors(&page, function));
            assert_eq!(counted, (calls, failed), "{function}");
        }
        let slept = seconds(&page, "sum", "sleep");
        assert!((1.2..20.0).contains(&slept), "one of 0.3 s, and one that was cut off after 0.9: {slept}");
        assert!(!page.contains("no-such-function"), "what is no function is no label");
        // What functions throw is the application's failure, and not held against a worker that does as all do.
        for _ in 0..8 {
            assert_eq!(stack.get("/api/throws").status, 500);
        }
        let workers = stack.instance("balancer").admin("/api/workers").unwrap().json();
        let worker = &workers["pools"][0]["workers"][0];
        assert!(worker["state"] == "ready" && worker["error_rate"].as_f64() > Some(0.2), "{worker}");
        wait::until("their cause to be counted", SOON, || {
            let page = stack.instance("gateway").admin("/metrics")?.text();
            (sum(&page, "troupe_gateway_errors_total{cause=\"application\"}") == 10.0).then_some(())
        });
    });
}

#[test]
fn functions_beyond_the_bound_are_counted_together_whatever_is_loaded_anew() {
    let root = tempfile::tempdir().unwrap();
    let write = |from: usize| {
        for number in from..from + NAMED + 6 {
            fs::write(root.path().join(format!("f{number:04}.php")), "<?php return fn() => 'x';").unwrap();
        }
    };
    write(0);
    let mut stack = Stack::one_process(binary(), root.path(), "");
    let admin = stack.instance("all").admin;
    let reload =
        || std::process::Command::new(binary()).args(["reload", "--admin", &format!("http://{admin}")]).output();
    for from in [0, 100] {
        write(from);
        assert_eq!(reload().unwrap().status.code(), Some(0));
        for number in from..from + NAMED + 6 {
            assert_eq!(stack.get(&format!("/api/f{number:04}")).status, 200);
        }
    }
    let page = stack.instance("all").admin("/metrics").unwrap().text();
    let labels = page.lines().filter(|line| line.starts_with("troupe_php_function_seconds_count{")).count();
    assert_eq!(labels, NAMED + 1);
    assert_eq!(sum(&page, "troupe_php_function_seconds_count{"), 2.0 * (NAMED + 6) as f64);
    assert_eq!(seconds(&page, "count", "_other"), (NAMED + 12) as f64);
    wait::until("the sum of all instances to have them", SOON, || {
        let page = cluster(stack.instance("all"));
        (sum(&page, "troupe_php_function_seconds_count{") == 2.0 * (NAMED + 6) as f64).then_some(())
    });
}
