//! What functions do to a stack when they die, leak, are too many or are replaced: clients see as little of it as can be.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use troupe_testkit::http::{self, Connection, Response};
use troupe_testkit::stack::Stack;
use troupe_testkit::{processes, wait};

use crate::support::{binary, functions, in_both};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

#[test]
fn one_death_is_not_seen_by_a_request_that_may_be_repeated() {
    in_both("", |stack| {
        let note = stack.home().join("starts");
        let target = format!("/api/dies-once?note={}", note.display());
        let ask = |method| stack.connect().request(method, &target, &[("X-Request-Id", method)], b"").unwrap();
        let answer = ask("GET");
        assert_eq!((answer.status, answer.text().as_str()), (200, "alive"));
        assert_eq!(fs::read_to_string(&note).unwrap(), "xx", "it was started twice");

        fs::remove_file(&note).unwrap();
        let answer = ask("POST");
        assert_eq!((answer.status, answer.header("x-request-id")), (502, "POST"), "{}", answer.text());
        assert_eq!(fs::read_to_string(&note).unwrap(), "x", "what may have been carried out is not repeated");
        for id in ["GET", "POST"] {
            wait::until("the death to be told of with its request and last words", SOON, || {
                let logs = stack.logs();
                let told = |line: &Value| {
                    let text = line.to_string();
                    line["level"] == "warn"
                        && text.contains("signal 9")
                        && text.contains(&format!("\"{id}\""))
                        && text.contains("dies-once")
                        && text.contains("last words")
                };
                logs.lines().filter_map(|line| serde_json::from_str(line).ok()).any(|line| told(&line)).then_some(())
            });
        }
    });
}

/// So many calls, each of which leaks 10 KiB.
#[allow(clippy::print_stdout, reason = "figures, for whoever runs it alone")]
fn leak(calls: usize) {
    const CLIENTS: usize = 8;
    let temporary = TempDir::new().unwrap();
    let config = format!(
        "gateway.access_log = false\n[php.default]\nmemory_limit = \"64MiB\"\nspool_dir = {0:?}\nenv = {{ TMPDIR = {0:?} }}\n\
         [php.default.processes]\nmin = 4\nmax = 4\n",
        temporary.path()
    );
    let mut stack = Stack::one_process(binary(), &functions(), &config);
    let (address, pid) = (stack.address, stack.instance("all").pid());
    let largest = || processes::descendants(pid).into_iter().map(processes::resident).max().unwrap_or(0);
    let (at_rest, descriptors, files) = (largest(), processes::descriptors(pid), files_in(temporary.path()));
    let (over, seen) = (AtomicBool::new(false), Mutex::new(HashSet::new()));
    let most = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(largest());
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|index| {
                let seen = &seen;
                scope.spawn(move || {
                    let mut connection = Connection::open(address).unwrap();
                    let mut pids = HashSet::new();
                    // Longer than what goes into a process with its call, so that it is kept in a file.
                    let body = vec![b'x'; if index == 0 { 100_000 } else { 0 }];
                    for _ in 0..calls / CLIENTS {
                        let answer = connection.request("POST", "/api/leaks", &[], &body).unwrap();
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        pids.insert(answer.json()["pid"].as_u64());
                        if answer.header("connection").eq_ignore_ascii_case("close") {
                            connection = Connection::open(address).unwrap();
                        }
                    }
                    seen.lock().unwrap().extend(pids);
                })
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok), "no call fails");
        watcher.join().unwrap()
    });
    // 48 MiB, three quarters of PHP's own limit, is where a process is replaced once its call is done.
    let replaced = calls as u64 * 10_240 / (48 * MIB);
    let seen = seen.into_inner().unwrap().len() as u64;
    println!("{calls} calls: {seen} processes, {} MiB at rest, {} MiB at most", at_rest / MIB, most / MIB);
    assert!(seen >= replaced, "{seen} processes, at least {replaced} were to be replaced");
    assert!(most < at_rest + 64 * MIB, "{} MiB at most, {} MiB at rest", most / MIB, at_rest / MIB);
    wait::until("as many descriptors and files as before", SOON, || {
        let now = (processes::descriptors(pid), files_in(temporary.path()));
        (now.0 <= descriptors + 8 && now.1 <= files).then_some(())
    });
}

fn files_in(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files_in(&entry.path()) } else { 1 }).sum()
}

#[test]
fn memory_that_leaks_costs_processes_and_no_call() {
    leak(20_000);
}

#[test]
#[ignore = "takes a minute; `cargo nextest run --run-ignored all` runs it"]
fn memory_that_leaks_in_a_hundred_thousand_calls_costs_no_call() {
    leak(100_000);
}

/// How often code is replaced, at 500 calls a second that take 200 ms each.
#[allow(clippy::print_stdout, reason = "figures, for whoever runs it alone")]
fn replace(times: usize) {
    const CLIENTS: usize = 110;
    let root = TempDir::new().unwrap();
    let write = |version: usize| {
        let code = format!("<?php\nreturn function () {{ usleep(200_000); return '{version}'; }};\n");
        fs::write(root.path().join("version.php"), code).unwrap();
        fs::write(root.path().join("hello.php"), "<?php\nreturn fn () => 'hello';\n").unwrap();
    };
    write(0);
    let config = "gateway.access_log = false\n[php.default.processes]\nmin = 112\nmax = 112\n";
    let mut stack = Stack::one_process(binary(), root.path(), config);
    let (address, admin) = (stack.address, stack.instance("all").admin);
    let (over, least, reloading) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicBool::new(false));
    let ask = || {
        let mut connection = Connection::open(address).unwrap();
        let mut took: [Vec<Duration>; 2] = Default::default();
        while !over.load(Ordering::Relaxed) {
            let (known, phase) = (least.load(Ordering::Acquire), usize::from(reloading.load(Ordering::Relaxed)));
            let begun = Instant::now();
            let answer = connection.request("GET", "/api/version", &[], b"").unwrap();
            took[phase].push(begun.elapsed());
            let version: usize = answer.text().parse().unwrap_or_else(|_| panic!("{answer:?}"));
            assert!(answer.status == 200 && version >= known, "{version} after {known} was done");
            thread::sleep(Duration::from_millis(20));
        }
        took
    };
    let took = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        thread::sleep(Duration::from_secs(3));
        reloading.store(true, Ordering::Relaxed);
        for version in 1..=times {
            write(version);
            reload(admin);
            least.store(version, Ordering::Release);
        }
        thread::sleep(Duration::from_millis(500));
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    let [before, meanwhile] = [0, 1].map(|phase| {
        let mut all: Vec<Duration> = took.iter().flat_map(|took| took[phase].iter().copied()).collect();
        all.sort_unstable();
        (all.len(), all[all.len() * 99 / 100])
    });
    println!("{times} reloads: calls and their 99th percentile before {before:?}, meanwhile {meanwhile:?}");
    // A fifth more is the figure, and the bound ten times that.
    assert!(meanwhile.1 < before.1 * 3, "{before:?} {meanwhile:?}");
}

fn reload(admin: SocketAddr) {
    let output = Command::new(binary()).args(["reload", "--admin", &format!("http://{admin}")]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn code_is_replaced_under_five_hundred_slow_calls_a_second() {
    replace(3);
}

#[test]
#[ignore = "takes a minute; `cargo nextest run --run-ignored all` runs it"]
fn code_is_replaced_twenty_times_under_five_hundred_slow_calls_a_second() {
    replace(20);
}

/// Calls `target` with so many clients for so long, each at most once in `every`. What came of it, and how long each took.
fn offer(address: SocketAddr, clients: u32, every: Duration, last: Duration) -> Vec<(Response, Duration)> {
    let end = Instant::now() + last;
    let client = move |index: u32| {
        let mut connection = Connection::open(address).unwrap();
        let mut answers = Vec::new();
        let mut due = Instant::now() + every * index / clients;
        while due < end {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let begun = Instant::now();
            answers.push((connection.request("GET", "/api/sleep?ms=100", &[], b"").unwrap(), begun.elapsed()));
            due = (due + every).max(Instant::now());
        }
        answers
    };
    let clients: Vec<_> = (0..clients).map(|index| thread::spawn(move || client(index))).collect();
    clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
}

#[test]
fn five_times_as_much_as_can_be_served_costs_nothing_of_what_is_served() {
    const LAST: Duration = Duration::from_secs(4);
    const WAITING: f64 = 8.0;
    let config = "gateway.access_log = false\n[php.default]\nqueue = { max = 8, wait = \"5s\" }\n\
                  [php.default.processes]\nmin = 4\nmax = 4\n";
    in_both(config, |stack| {
        let address = stack.address;
        let alone = offer(address, 4, Duration::ZERO, LAST);
        assert!(alone.iter().all(|(answer, _)| answer.status == 200));
        let balancer = stack.instance("balancer").admin;
        let over = AtomicBool::new(false);
        let (answers, depth) = thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut most = 0.0_f64;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(depth(balancer));
                    thread::sleep(Duration::from_millis(10));
                }
                most
            });
            // Each comes back rarely enough to wait for its turn in between.
            let rate = 5.0 * alone.len() as f64 / LAST.as_secs_f64();
            let answers = offer(address, 100, Duration::from_secs_f64(100.0 / rate), LAST);
            over.store(true, Ordering::Relaxed);
            (answers, watcher.join().unwrap())
        });
        let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|(answer, _)| answer.status == 200);
        println!("{} served alone; of {} {} and a queue of {depth}", alone.len(), answers.len(), served.len());
        assert!(answers.len() > 4 * alone.len(), "{} offered to {}", answers.len(), alone.len());
        assert!(served.len() * 10 >= alone.len() * 9, "{} served, {} alone", served.len(), alone.len());
        assert!(depth <= WAITING, "{depth} waited");
        for (answer, _) in &refused {
            assert!(answer.status == 503 && !answer.header("retry-after").is_empty(), "{answer:?}");
        }
        let mut took: Vec<_> = refused.iter().map(|(_, took)| *took).collect();
        took.sort_unstable();
        // 10 ms is the figure.
        assert!(took[took.len() * 9 / 10] < Duration::from_millis(100), "refused after {took:?}");
    });
}

/// How many calls wait in this balancer.
fn depth(admin: SocketAddr) -> f64 {
    let Ok(page) = http::get(admin, "/metrics") else { return 0.0 };
    let text = page.text();
    let samples = text.lines().filter(|line| line.starts_with("troupe_balancer_queue_depth"));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn clients_that_leave_give_up_their_places_in_the_queue() {
    /// Far longer than a refusal takes.
    const REFUSED_BY_THEN: Duration = Duration::from_millis(500);
    let config = "[php.default]\nqueue = { max = 4, wait = \"20s\" }\n[php.default.processes]\nmin = 1\nmax = 1\n";
    in_both(config, |stack| {
        let send = |target: &str| {
            let mut connection = stack.connect();
            connection.handle().unwrap().set_read_timeout(Some(REFUSED_BY_THEN)).unwrap();
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
            connection
        };
        let running = send("/api/sleep?ms=5000");
        // Those that are not refused wait, and each takes a place.
        let mut waiting = Vec::new();
        let full = (0..16).any(|_| {
            let mut connection = send("/api/hello");
            let refused = connection.head().is_ok_and(|answer| answer.status == 503);
            waiting.push(connection);
            refused
        });
        assert!(full && waiting.len() > 4, "{} asked", waiting.len());
        drop(waiting);
        thread::sleep(REFUSED_BY_THEN);
        let mut next = send("/api/hello");
        assert!(next.head().is_err(), "it waits, and is not refused");
        drop(running);
        next.handle().unwrap().set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(next.head().unwrap().status, 200);
    });
}

#[test]
fn whoever_looks_is_answered_while_all_processes_compute_and_the_queue_is_full() {
    let config = "gateway.access_log = false\n[php.default]\nqueue = { max = 4, wait = \"5s\" }\n\
                  [php.default.processes]\nmin = 4\nmax = 4\n";
    in_both(config, |stack| {
        let (address, over) = (stack.address, AtomicBool::new(false));
        thread::scope(|scope| {
            let ask = || {
                let mut statuses = HashSet::new();
                while !over.load(Ordering::Relaxed) {
                    statuses.insert(http::get(address, "/api/burns?ms=300").unwrap().status);
                    thread::sleep(Duration::from_millis(20));
                }
                statuses
            };
            let clients: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
            thread::sleep(Duration::from_secs(1));
            let mut most = Duration::ZERO;
            for _ in 0..5 {
                let begun = Instant::now();
                assert_eq!(http::get(address, "/health").unwrap().status, 200);
                most = most.max(begun.elapsed());
                for instance in &stack.instances {
                    for page in ["/livez", "/readyz", "/metrics", "/api/status"] {
                        let begun = Instant::now();
                        assert_eq!(instance.admin(page).unwrap().status, 200, "{page} of {}", instance.service);
                        most = most.max(begun.elapsed());
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
            let statuses: HashSet<_> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
            assert_eq!(statuses, HashSet::from([200, 503]), "it was full");
            println!("the slowest answer took {most:?}");
            assert!(most < Duration::from_secs(2), "{most:?}");
        });
    });
}

#[test]
fn what_functions_leave_running_is_asked_to_end_before_it_is_killed() {
    in_both("", |stack| {
        let note = stack.home().join("note");
        let left = stack.get(&format!("/api/leaves?note={}", note.display())).json();
        let pids = ["willing", "deaf"].map(|name| left[name].as_u64().unwrap() as u32);
        wait::until("both to run", SOON, || pids.iter().all(|pid| processes::alive(*pid)).then_some(()));
        // Their traps are set by then.
        thread::sleep(Duration::from_millis(300));
        let pool = stack.instance("php-pool");
        pool.signal(Signal::TERM);
        assert_eq!(pool.wait().code(), Some(0), "{}", pool.log());
        assert_eq!(fs::read_to_string(&note).unwrap_or_default(), "asked\n");
        assert!(!pids.iter().any(|pid| processes::alive(*pid)), "nothing stays");
    });
}
