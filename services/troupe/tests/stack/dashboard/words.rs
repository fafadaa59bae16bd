//! What is wrong, in words: on the dashboard, live in a browser too, and by `troupe status`.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use troupe_testkit::redis::Redis;
use troupe_testkit::stack::{Plan, Stack};
use troupe_testkit::wait;

use super::browser::Browser;
use super::{SOON, load};
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

/// The dashboard in a browser; none on a machine without one, where that is allowed.
struct Watched(Option<Browser>);

impl Watched {
    fn of(stack: &mut Stack) -> Self {
        let browser = Browser::start();
        if let Some(browser) = &browser {
            browser.open(stack.instance("metrics").admin);
        }
        Self(browser)
    }

    /// Waits until the page, which is never loaded anew, tells this problem.
    fn tells(&self, words: &str) {
        if let Some(browser) = &self.0 {
            browser.says("problems", words, true);
        }
    }

    /// Waits until the problem is settled.
    fn settles(&self, words: &str) {
        if let Some(browser) = &self.0 {
            browser.says("problems", words, false);
        }
    }
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
    let watched = Watched::of(&mut stack);
    watched.tells("No problems.");
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
    watched.tells(AWAY);
    assert_eq!(stack.get("/api/hello").status, 200, "requests go on");
    redis.restart();
    watched.settles(AWAY);
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
    Watched::of(&mut stack).tells(TOLD);
}

#[test]
fn code_that_was_not_reloaded_is_told_until_it_is_mended() {
    const TOLD: &str = "the code of default could not be loaded anew, the old code serves: ";
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("hello.php");
    fs::write(&file, "<?php return fn() => ['message' => 'old'];").unwrap();
    let mut stack = Plan::apart().with_metrics().start(binary(), root.path(), "");
    let watched = Watched::of(&mut stack);
    let admin = format!("http://{}", stack.instance("php-pool").admin);
    let reload = || Command::new(binary()).args(["reload", "--admin", &admin]).output().unwrap();
    fs::write(&file, "<?php return fn() => [").unwrap();
    assert!(!reload().status.success());
    watched.tells(TOLD);
    assert!(status_says(&mut stack, "php-pool", TOLD));
    assert!(stack.get("/api/hello").text().contains("old"), "the old code serves");
    fs::write(&file, "<?php return fn() => ['message' => 'new'];").unwrap();
    assert!(reload().status.success());
    watched.settles(TOLD);
    assert!(!status_says(&mut stack, "php-pool", TOLD));
    assert!(stack.get("/api/hello").text().contains("new"));
}

/// The tile of failed requests and the list of problems name the cause that most of them have, and follow when it changes.
#[test]
fn failing_requests_are_told_with_their_share_and_their_cause() {
    let Some(browser) = Browser::start() else { return };
    let root = tempfile::tempdir().unwrap();
    for (name, body) in [
        ("hello", "return fn() => ['message' => 'hello'];"),
        ("refuses", "return function () { http_response_code(503); return 'not now'; };"),
        ("sleeps", "return function () { usleep(2_000_000); return 'late'; };"),
        ("dies", "return function () { posix_kill(getmypid(), 9); };"),
    ] {
        fs::write(root.path().join(format!("{name}.php")), format!("<?php {body}")).unwrap();
    }
    let config = "[php.default]\ntimeout = \"100ms\"\n";
    let mut stack = Plan::apart().with_metrics().start(binary(), root.path(), config);
    browser.open(stack.instance("metrics").admin);
    let tile = |part: &str| {
        format!(
            "[...document.querySelectorAll('.tile')].filter((t) => t.querySelector('dt').textContent === 'Failed, 5xx')\
             .map((t) => t.querySelector('dd').textContent).some((said) => {part})"
        )
    };
    let well = load(&stack, "/api/hello");
    browser.until("no failures", &tile("said.startsWith('0 %') && !said.includes('most:')"));
    for (target, cause, word) in [
        ("/api/refuses", "application", "application"),
        ("/api/sleeps", "deadline", "timeout"),
        ("/api/dies", "broken", "worker died"),
    ] {
        let failing = load(&stack, target);
        browser.until(word, &tile(&format!("parseFloat(said) > 0 && said.includes('most: {word} (')")));
        browser.says("problems", &format!("of requests fail with a 5xx, most by cause {cause}"), true);
        failing.stop();
        browser.says("problems", "of requests fail with a 5xx", false);
    }
    well.stop();
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
    let watched = Watched::of(&mut stack);
    watched.tells(TOLD);
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
    watched.settles(TOLD);
    wait::until("it to be settled", SOON, || {
        (!status_says(&mut stack, "php-pool", TOLD) && !problems(&mut stack).contains(TOLD)).then_some(())
    });
}
