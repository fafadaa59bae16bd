//! What is wrong, in words: on the dashboard and by `troupe status`.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

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

#[test]
fn processes_that_die_as_they_are_forked_are_a_crash_loop_whatever_the_rate() {
    // The runtime calls this by its short name, in each fork, before it is ready.
    crash_loop(
        "shared",
        "<?php\nnamespace Troupe\\Runtime;\nfunction mt_srand(): void { posix_kill(getmypid(), 9); }\n",
    );
}

#[test]
fn processes_that_die_as_they_load_the_code_are_a_crash_loop_whatever_the_rate() {
    crash_loop("fresh", "<?php\nposix_kill(getmypid(), 9);\n");
}

/// Runs a pool whose autoloader has every process die at its start, and then mends it.
fn crash_loop(isolation: &str, autoloader: &str) {
    const TOLD: &str = "the pool default is in a crash loop: ";
    const HOW: &str = "died before their first call, the last with signal 9";
    /// Longer than the window over which crashes a second are judged.
    const STAYS: Duration = Duration::from_secs(12);
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("vendor")).unwrap();
    fs::write(root.path().join("hello.php"), "<?php return fn() => ['message' => 'hello'];").unwrap();
    fs::write(root.path().join("vendor/autoload.php"), autoloader).unwrap();
    let config = format!("[php.default]\nisolation = \"{isolation}\"\n");
    let mut stack = Plan::apart().with_metrics().without_answer().start(binary(), root.path(), &config);
    wait::until("the dashboard to tell", SOON, || {
        let told = problems(&mut stack);
        (told.contains("php-pool@") && told.contains(TOLD) && told.contains(HOW)).then_some(())
    });
    // By then a process is started every few seconds only.
    let since = Instant::now();
    while since.elapsed() < STAYS {
        assert!(status_says(&mut stack, "php-pool", TOLD) && status_says(&mut stack, "php-pool", HOW));
        assert!(problems(&mut stack).contains(TOLD), "{}", stack.logs());
        std::thread::sleep(Duration::from_millis(500));
    }
    fs::write(root.path().join("vendor/autoload.php"), "<?php\n").unwrap();
    let admin = format!("http://{}", stack.instance("php-pool").admin);
    wait::until("the code to be loaded anew", SOON, || {
        let output = Command::new(binary()).args(["reload", "--admin", &admin]).output().unwrap();
        output.status.success().then_some(())
    });
    wait::until("calls to be answered", SOON, || (stack.get("/api/hello").status == 200).then_some(()));
    wait::until("it to be settled", SOON, || {
        (!status_says(&mut stack, "php-pool", TOLD) && !problems(&mut stack).contains(TOLD)).then_some(())
    });
}
