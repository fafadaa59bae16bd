//! Log lines: which request they belong to, and that one that repeats itself is counted.

use std::thread;
use std::time::Duration;

use serde_json::Value;
use troupe_testkit::http::Connection;
use troupe_testkit::stack::Stack;
use troupe_testkit::wait;

use crate::support::{binary, functions, in_both};
use crate::timings::slow;

/// A line may be left out for ten seconds before it is told how often.
const TOLD: Duration = Duration::from_secs(60);

fn lines(log: &str) -> Vec<Value> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn what_php_prints_is_tagged_with_its_request_and_counted_when_it_repeats_itself() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let mut connection = stack.connect();
    for number in 0..40 {
        let id = format!("request-{number}");
        let fields = [("X-Request-Id", id.as_str()), ("traceparent", parent.as_str())];
        assert_eq!(connection.request("GET", "/api/noisy", &fields, b"").unwrap().status, 200);
    }
    // The function prints several lines; each is counted, and told of, by itself.
    let (told, text, left_out) = wait::until("the count to be told", TOLD, || {
        let all = lines(&stack.instance("all").log());
        let text = all.iter().rfind(|line| line["target"] == "php")?["msg"].clone();
        let of_text = |line: &&Value| line["msg"] == "a line was repeated, and left out" && line["line"] == text;
        let left_out = all.iter().find(of_text)?.clone();
        Some((all, text, left_out))
    });
    let printed: Vec<&Value> =
        told.iter().filter(|line| line["target"] == "php" && line["request_id"] == "request-0").collect();
    assert!(!printed.is_empty(), "{}", stack.logs());
    for line in printed {
        assert_eq!((&line["trace_id"], &line["service"]), (&trace.into(), &"troupe".into()), "{line}");
        assert!(line["instance"].as_str().is_some_and(|instance| instance.contains('/')), "{line}");
    }
    // Each different line a few times, and all the rest counted.
    let same = told.iter().filter(|line| line["target"] == "php" && line["msg"] == text).count();
    assert_eq!(same, 5);
    assert_eq!(left_out["times"], 35, "{left_out}");
}

/// All lines of a request, once the access log has its own.
fn lines_of(stack: &mut Stack, id: &str) -> Vec<Value> {
    wait::until("the lines of a request", Duration::from_secs(20), || {
        let mut all: Vec<Value> =
            ["gateway", "php-pool"].iter().flat_map(|service| lines(&stack.instance(service).log())).collect();
        all.retain(|line| line["request_id"] == id);
        let of = |target: &str| all.iter().any(|line| line["target"] == target);
        (of("php") && all.iter().any(|line| line.get("duration_us").is_some())).then_some(all)
    })
}

/// A pool that has printed nothing of late goes by when a line is read: the calls of a busy process may then follow each other
/// faster than its output is looked at.
#[test]
fn what_calls_print_is_told_apart_though_they_follow_each_other_at_once() {
    const CLIENTS: usize = 8;
    const CALLS: usize = 150;
    const LINES: usize = 5;
    let config = "gateway.access_log = false\n[php.default.processes]\nmin = 1\nmax = 1\n";
    let mut stack = Stack::one_process(binary(), &functions(), config);
    let sign = |connection: &mut Connection, id: &str| {
        let answer = connection.request("GET", "/api/signs", &[("X-Request-Id", id)], b"").unwrap();
        assert_eq!(answer.text(), "signed");
    };
    let signed = |stack: &mut Stack, count: usize| {
        wait::until("what was printed", Duration::from_secs(60), || {
            let mut all = lines(&stack.instance("all").log());
            all.retain(|line| line["msg"].as_str().is_some_and(|text| text.starts_with("signed by ")));
            (all.len() >= count).then_some(all)
        })
    };
    sign(&mut stack.connect(), "the-first");
    signed(&mut stack, LINES);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut connection = stack.connect();
            scope.spawn(move || {
                for call in 0..CALLS {
                    sign(&mut connection, &format!("call-{client}-{call}"));
                }
            });
        }
    });
    let all = signed(&mut stack, LINES * (1 + CLIENTS * CALLS));
    assert_eq!(all.len(), LINES * (1 + CLIENTS * CALLS));
    let forged = all.iter().filter(|line| line["msg"].as_str().unwrap().ends_with(" forged\u{1e}0100000000000000"));
    assert_eq!(forged.count(), 1 + CLIENTS * CALLS, "nothing of a line is taken for a mark");
    for line in &all {
        let by = line["msg"].as_str().unwrap().split(' ').nth(2);
        assert_eq!(by, line["request_id"].as_str(), "{line}");
    }
}

#[test]
fn a_request_without_a_trace_begins_one_and_all_who_tell_of_it_name_the_same() {
    in_both("", |stack| {
        let mut connection = stack.connect();
        // What vendors say of a trace that the request does not name is about another one.
        let mut ask = |path, id| connection.request("GET", path, &[("X-Request-Id", id), ("tracestate", "a=1")], b"");
        let seen = ask("/api/traced", "traced-1").unwrap().json();
        assert_eq!(seen["state"], Value::Null, "{seen}");
        let parent = seen["parent"].as_str().unwrap();
        let [version, trace, span, flags] = parent.split('-').collect::<Vec<_>>()[..] else { panic!("{parent}") };
        assert_eq!((version, trace.len(), span.len(), flags), ("00", 32, 16, "01"), "{parent}");
        // Before the next call: where a pool has not printed before, what it prints just as a call ends may be read in the next.
        let told = lines_of(stack, "traced-1");
        let other = ask("/api/traced", "traced-2").unwrap().json();
        assert!(!other["parent"].as_str().unwrap().contains(trace), "{other}");
        for line in told {
            assert_eq!(line["trace_id"], trace, "{line}");
            let whole = ["troupe", if line["target"] == "php" { "php-pool" } else { "gateway" }];
            assert!(whole.contains(&line["service"].as_str().unwrap_or_default()), "{line}");
            assert!(line["instance"].as_str().is_some_and(|instance| instance.contains('/')), "{line}");
        }
        let slow = wait::until("it to be kept", Duration::from_secs(10), || {
            slow(stack).into_iter().find(|request| request["request_id"] == "traced-1")
        });
        assert_eq!(slow["trace_id"], trace, "{slow}");
    });
}
