//! Where the time of a request goes: kept for the slowest, and shown to those who develop.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use troupe_testkit::stack::Stack;
use troupe_testkit::{http, wait};

use crate::support::{binary, functions, in_both};

/// Longer than anything between two stages should take, shorter than what is slept.
const LITTLE: u64 = 200_000;

/// What `troupe slow --json` says of the gateway.
pub(crate) fn slow(stack: &mut Stack) -> Vec<Value> {
    let admin = stack.instance("gateway").admin;
    let output =
        Command::new(binary()).args(["slow", "--json", "--admin", &format!("http://{admin}")]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["requests"].as_array().unwrap().clone()
}

fn stages(request: &Value) -> HashMap<String, u64> {
    let stages = request["stages"].as_array().unwrap().iter();
    stages.map(|stage| (stage["stage"].as_str().unwrap().to_owned(), stage["us"].as_u64().unwrap())).collect()
}

#[test]
fn the_slowest_requests_are_kept_with_where_their_time_went() {
    in_both("[php.default]\nprocesses = { min = 1, max = 1 }\n", |stack| {
        for _ in 0..5 {
            assert_eq!(stack.get("/api/hello").status, 200);
        }
        // Two at once, and one process: the second waits in the queue for as long as the first sleeps.
        let address = stack.address;
        let both = [0, 1].map(|_| thread::spawn(move || http::get(address, "/api/sleep?ms=700&token=secret").unwrap()));
        let ids = both.map(|one| one.join().unwrap().header("x-request-id").to_owned());
        let requests = wait::until("both to be kept", Duration::from_secs(10), || {
            let requests = slow(stack);
            let found = |id: &String| requests.iter().any(|request| request["request_id"] == id.as_str());
            ids.iter().all(found).then_some(requests)
        });
        let [second, first] = [&requests[0], &requests[1]];
        for request in [first, second] {
            assert_eq!(
                (&request["path"], &request["status"]),
                (&"/api/sleep".into(), &200.into()),
                "no query: {request}"
            );
            let stages = stages(request);
            assert!(stages["php"] >= 700_000, "{request}");
            // They account for all of it, and for no more.
            assert_eq!(stages.values().sum::<u64>(), request["took_us"].as_u64().unwrap(), "{request}");
        }
        let waited = |request| stages(request).get("queue").copied().unwrap_or(0);
        assert!(waited(second) >= 500_000 && waited(first) < LITTLE, "{second} after {first}");
        let rest: u64 = stages(first).iter().filter(|(stage, _)| *stage != "php").map(|(_, us)| us).sum();
        assert!(rest < LITTLE, "{first}");
        // As spans: each within the one around it, and the function the innermost.
        for request in [first, second] {
            let spans = request["spans"].as_array().unwrap();
            let span =
                |name: &str| spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("{request}"));
            let us = |span: &Value, key: &str| span[key].as_u64().unwrap();
            let mut around = span("php");
            assert!(us(around, "us") >= 700_000, "{request}");
            let mut names = vec!["php"];
            while let Some(parent) = spans.iter().find(|span| span["span_id"] == around["parent_span_id"]) {
                let end = |span: &Value| us(span, "start_us") + us(span, "us");
                assert!(us(parent, "start_us") <= us(around, "start_us") && end(around) <= end(parent), "{request}");
                around = parent;
                names.push(around["name"].as_str().unwrap());
            }
            assert_eq!(names, ["php", "php-pipe", "worker-link", "balancer", "link", "gateway"], "{request}");
            assert_eq!(us(around, "us"), request["took_us"].as_u64().unwrap(), "{request}");
            let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
            let age = age - request["start_unix_us"].as_u64().unwrap();
            assert!((700_000..600_000_000).contains(&age), "{request}");
        }
        let queued = second["spans"].as_array().unwrap().iter().find(|span| span["name"] == "queue").unwrap();
        assert!(queued["us"].as_u64().unwrap() >= 500_000 && queued["start_us"].as_u64().unwrap() < LITTLE, "{second}");
        // For people.
        let admin = stack.instance("gateway").admin;
        let output =
            Command::new(binary()).args(["slow", "--spans", "-n", "1", "--admin", &format!("http://{admin}")]).output();
        let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
        let shown = |name: &str| text.lines().position(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{text}"));
        assert!(text.contains(requests[0]["trace_id"].as_str().unwrap()), "{text}");
        assert!(shown("  gateway") < shown("    link") && shown("    link") < shown("            php"), "{text}");
        let output = Command::new(binary()).args(["slow", "-n", "2", "--admin", &format!("http://{admin}")]).output();
        let text = String::from_utf8_lossy(&output.unwrap().stdout).into_owned();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("GET /api/sleep") && text.contains("queue ") && !text.contains("secret"), "{text}");
    });
}

/// The request with this id, once it is kept.
fn kept(stack: &mut Stack, id: &str) -> Value {
    wait::until("it to be kept", Duration::from_secs(10), || {
        slow(stack).into_iter().find(|request| request["request_id"] == id)
    })
}

/// Status and failed stage of a request, and where its time went, which has to be all of it.
fn failed(request: &Value) -> (u64, &str, HashMap<String, u64>) {
    let stages = stages(request);
    assert_eq!(stages.values().sum::<u64>(), request["took_us"].as_u64().unwrap(), "{request}");
    (request["status"].as_u64().unwrap(), request["failed"].as_str().unwrap(), stages)
}

/// Asks as `id`, on a connection and a thread of its own.
fn asking(stack: &Stack, method: &'static str, path: &'static str, id: &'static str) -> thread::JoinHandle<()> {
    let mut connection = stack.connect();
    thread::spawn(move || {
        connection.request(method, path, &[("X-Request-Id", id)], b"").unwrap();
    })
}

#[test]
fn a_request_that_fails_tells_the_stages_it_passed_and_the_one_that_failed() {
    let one = "processes = { min = 1, max = 1 }\ntimeout = \"1500ms\"\n";
    let config = format!("[php.default]\n{one}queue = {{ wait = \"600ms\" }}\n");
    in_both(&config, |stack| {
        assert_eq!(stack.get("/api/hello").status, 200);
        // It holds the one process until its time is over; the second waits for as long as a call may, and is refused.
        let first = asking(stack, "GET", "/api/sleep?ms=9000", "too-slow");
        thread::sleep(Duration::from_millis(300));
        let second = asking(stack, "GET", "/api/hello", "no-room");
        first.join().unwrap();
        second.join().unwrap();
        let request = kept(stack, "too-slow");
        let (status, stage, times) = failed(&request);
        assert_eq!((status, stage), (504, "php"), "{request}");
        assert!(times["php"] >= 1_500_000 && times["gateway"] < LITTLE, "{request}");
        let request = kept(stack, "no-room");
        let (status, stage, times) = failed(&request);
        assert_eq!((status, stage), (503, "queue"), "{request}");
        assert!(times["queue"] >= 600_000 && !times.contains_key("php"), "{request}");
        // A process that dies says nothing; those around it know when it began.
        asking(stack, "POST", "/api/killed?ms=400", "died").join().unwrap();
        let request = kept(stack, "died");
        let (status, stage, times) = failed(&request);
        assert_eq!((status, stage), (502, "php"), "{request}");
        assert!(times["php"] >= 400_000 && times["gateway"] < LITTLE, "{request}");
    });
}

#[test]
fn a_request_whose_time_is_over_tells_where_it_was() {
    let config = "gateway.request_timeout = \"1s\"\n[php.default]\nprocesses = { min = 1, max = 1 }\n";
    in_both(config, |stack| {
        assert_eq!(stack.get("/api/hello").status, 200);
        let first = asking(stack, "GET", "/api/sleep?ms=9000", "running");
        thread::sleep(Duration::from_millis(200));
        let second = asking(stack, "GET", "/api/sleep?ms=9000", "waiting");
        first.join().unwrap();
        second.join().unwrap();
        for (id, expected, least) in [("running", "php", 900_000), ("waiting", "queue", 600_000)] {
            let request = kept(stack, id);
            let (status, _, times) = failed(&request);
            assert_eq!(status, 504, "{request}");
            assert!(times[expected] >= least, "{request}");
        }
    });
}

#[test]
fn a_request_whose_client_left_tells_how_long_its_call_took_until_then() {
    for config in ["", CACHED] {
        let mut stack = Stack::one_process(binary(), &functions(), config);
        let mut client = TcpStream::connect(stack.address).unwrap();
        client.write_all(b"GET /api/sleep?ms=9000 HTTP/1.1\r\nHost: a\r\nX-Request-Id: left\r\n\r\n").unwrap();
        thread::sleep(Duration::from_millis(700));
        drop(client);
        let request = kept(&mut stack, "left");
        let times = stages(&request);
        assert_eq!(
            (&request["status"], times.values().sum::<u64>()),
            (&499.into(), request["took_us"].as_u64().unwrap())
        );
        assert!(times["link"] >= 500_000 && times["gateway"] < LITTLE, "{request}");
    }
}

#[test]
fn a_fetch_of_the_cache_that_fails_tells_it_too_and_so_do_those_who_wait_for_it() {
    let config = format!("gateway.request_timeout = \"1s\"\n[php.default]\ntimeout = \"700ms\"\n{CACHED}");
    let mut stack = Stack::one_process(binary(), &functions(), &config);
    let leader = asking(&stack, "GET", "/api/sleep?ms=9000", "leader");
    thread::sleep(Duration::from_millis(200));
    let waiter = asking(&stack, "GET", "/api/sleep?ms=9000", "waiter");
    leader.join().unwrap();
    waiter.join().unwrap();
    let request = kept(&mut stack, "leader");
    let (status, stage, times) = failed(&request);
    assert_eq!((status, stage), (504, "php"), "{request}");
    assert!(times["php"] >= 700_000, "{request}");
    // What fails with the first is asked again by whoever waited for it, for as long as it has time.
    let request = kept(&mut stack, "waiter");
    let (status, _, times) = failed(&request);
    assert_eq!(status, 504, "{request}");
    assert!(times["cache-wait"] >= 300_000 && times["gateway"] < LITTLE, "{request}");
}

const CACHED: &str = "[[route]]\npath = \"/api/{function*}\"\nfunctions = \"default\"\ncache = { ttl = \"60s\" }\n";

#[test]
fn the_caches_part_is_told_and_so_is_what_it_waited_for() {
    in_both(CACHED, |stack| {
        let address = stack.address;
        let both = [0, 300].map(|after| {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(after));
                http::get(address, "/api/sleep?ms=1000").unwrap()
            })
        });
        let ids = both.map(|one| one.join().unwrap().header("x-request-id").to_owned());
        let [first, second] = wait::until("both to be kept", Duration::from_secs(10), || {
            let requests = slow(stack);
            let found = |id: &String| requests.iter().find(|request| request["request_id"] == id.as_str()).cloned();
            Some([found(&ids[0])?, found(&ids[1])?])
        });
        // The first one's time is PHP's, although its answer comes out of the store.
        assert!(stages(&first)["php"] >= 1_000_000, "{first}");
        assert_eq!(stages(&first).get("cache-wait"), None, "{first}");
        // The second one's is the first one's fetch.
        let waited = stages(&second);
        assert!(waited["cache-wait"] >= 300_000 && !waited.contains_key("php"), "{second}");
        for request in [first, second] {
            assert_eq!(stages(&request).values().sum::<u64>(), request["took_us"].as_u64().unwrap(), "{request}");
        }
    });
}

#[test]
fn whoever_develops_sees_the_stages_in_the_answer_and_nobody_else_does() {
    let stack = Stack::one_process(binary(), &functions(), "node.development = true\n");
    let answer = stack.get("/api/sleep?ms=50");
    let timing = answer.header("server-timing");
    let php = timing.split(", ").find_map(|stage| stage.strip_prefix("php;dur="));
    let php: f64 = php.unwrap_or_else(|| panic!("{timing}")).parse().unwrap();
    assert!((50.0..20_000.0).contains(&php), "{timing}");
    assert!(timing.contains("gateway;dur="), "{timing}");
    drop(stack);
    let stack = Stack::one_process(binary(), &functions(), &format!("node.development = true\n{CACHED}"));
    let address = stack.address;
    let first = thread::spawn(move || http::get(address, "/api/sleep?ms=900").unwrap());
    thread::sleep(Duration::from_millis(200));
    let waited = stack.get("/api/sleep?ms=900");
    let first = first.join().unwrap();
    assert!(first.header("server-timing").contains("php;dur=9"), "{}", first.header("server-timing"));
    assert!(waited.header("server-timing").contains("cache-wait;dur="), "{}", waited.header("server-timing"));
    drop(stack);
    // Errors are what one develops with.
    let config = "node.development = true\n[php.default]\ntimeout = \"300ms\"\n";
    let stack = Stack::one_process(binary(), &functions(), config);
    for (method, path, status, stage) in [
        ("GET", "/api/sleep?ms=9000", 504, "php"),
        ("GET", "/api/throws", 500, "php"),
        ("POST", "/api/killed?ms=50", 502, "php"),
        ("GET", "/api/nothing", 404, "php-pool"),
        ("GET", "/nothing", 404, "gateway"),
        ("GET", "/a%2fb", 400, "gateway"),
    ] {
        let answer = stack.connect().request(method, path, &[], b"").unwrap();
        let timing = answer.header("server-timing");
        let told = timing.split(", ").any(|one| one.starts_with(&format!("{stage};dur=")));
        assert!(answer.status == status && told, "{path}: {} {timing}", answer.status);
    }
    drop(stack);
    let stack = Stack::one_process(binary(), &functions(), "");
    assert_eq!(stack.get("/api/sleep?ms=5").header("server-timing"), "");
}
