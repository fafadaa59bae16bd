//! What is wrong, in words: on the dashboard and by `troupe status`.

use std::process::Command;

use troupe_testkit::redis::Redis;
use troupe_testkit::stack::{Plan, Stack};
use troupe_testkit::wait;

use super::SOON;
use crate::support::{binary, functions};

/// Whether `troupe status` at `service` says `words`.
fn status_says(stack: &mut Stack, service: &str, words: &str) -> bool {
    let admin = format!("http://{}", stack.instance(service).admin);
    let output = Command::new(binary()).args(["status", "--admin", &admin]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).contains(words)
}

/// The dashboard's list of problems.
fn problems(stack: &mut Stack) -> String {
    let page = stack.instance("metrics").admin("/dashboard").unwrap().text();
    let list = page.split_once("class=\"problems\"").and_then(|(_, rest)| rest.split_once("</ul>"));
    list.map(|(list, _)| list.to_owned()).unwrap_or_default()
}

#[test]
fn redis_that_is_away_is_told_and_settled_when_it_is_back() {
    const AWAY: &str = "Redis is away: the instances that are known are used on";
    let mut redis = Redis::start();
    let mut stack = Plan::apart().with_metrics().through_redis(redis.url()).start(binary(), &functions(), "");
    wait::until("all to be well", SOON, || {
        let page = stack.instance("metrics").admin("/dashboard")?.text();
        (page.contains("No problems.") && page.contains("php-pool@")).then_some(())
    });
    redis.kill();
    wait::until("the dashboard to tell", SOON, || {
        let told = problems(&mut stack);
        // Who it is, what it is, and where to look.
        let all = ["gateway@", "balancer@", "php-pool@"].iter().all(|name| told.contains(name));
        (all && told.contains(AWAY) && told.contains("troupe check")).then_some(())
    });
    for service in ["gateway", "balancer", "php-pool"] {
        assert!(status_says(&mut stack, service, AWAY), "{service}");
    }
    assert_eq!(stack.get("/api/hello").status, 200, "requests go on");
    redis.restart();
    wait::until("it to be settled", SOON, || (!problems(&mut stack).contains(AWAY)).then_some(()));
    for service in ["gateway", "balancer", "php-pool"] {
        wait::until("the status to say so", SOON, || (!status_says(&mut stack, service, AWAY)).then_some(()));
    }
}

#[test]
fn limits_of_the_kernel_that_are_too_low_are_told_with_what_to_raise() {
    // More than any machine allows.
    const TOLD: &str = "max_connections is 4000000000, but this process may open ";
    let plan = Plan::apart().with_metrics().set("gateway", "gateway.max_connections=4000000000");
    let mut stack = plan.start(binary(), &functions(), "");
    wait::until("the dashboard to tell", SOON, || {
        let told = problems(&mut stack);
        (told.contains(TOLD) && told.contains("ulimit -Hn")).then_some(())
    });
    assert!(status_says(&mut stack, "gateway", TOLD));
}
