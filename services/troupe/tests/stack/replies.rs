//! Replies in pieces: which of them count as streams, when they are complete for the client, and what bounds the rest.

use std::thread;
use std::time::{Duration, Instant};

use troupe_testkit::http;
use troupe_testkit::stack::Stack;
use troupe_testkit::wait;

use crate::support::in_both;

/// Ten times what a process takes to be replaced.
const HEAL: Duration = Duration::from_secs(10);
const MIB: usize = 1 << 20;

/// A pool of four processes, two of which streams may hold.
const TWO_STREAMS: &str = "[php.default]\nmax_streams = \"50%\"\n[php.default.processes]\nmin = 4\nmax = 4\n";

#[test]
fn a_finished_reply_is_complete_for_the_client_while_the_function_runs_on() {
    in_both("", |stack| {
        // Its length was announced; and as a stream, whose end only PHP can tell.
        for target in ["/api/finishes?mark=whole", "/api/finishes?mark=stream&flush"] {
            let body = if target.ends_with("flush") { "before and after" } else { "before" };
            let mut connection = stack.connect();
            let sent = Instant::now();
            let finished = connection.request("GET", target, &[], b"").unwrap();
            assert_eq!((finished.status, finished.text().as_str()), (200, body), "{target}");
            let next = connection.request("GET", "/api/hello", &[], b"").unwrap();
            assert_eq!(next.status, 200, "{target}");
            let both = sent.elapsed();
            assert!(both < Duration::from_millis(1500), "{target}: the function sleeps for 2 s, both took {both:?}");
        }
        for mark in ["finished whole", "finished stream"] {
            wait::until("the function's end", HEAL, || stack.logs().contains(mark).then_some(()));
        }
    });
}

#[test]
fn functions_that_run_on_are_no_streams_and_keep_no_call_from_being_served() {
    in_both(TWO_STREAMS, |stack| {
        let statuses = at_once(stack, 20, "/api/finishes?ms=200");
        assert!(statuses.iter().all(|(status, body)| (*status, body.as_slice()) == (200, b"before")), "{statuses:?}");
    });
}

#[test]
fn long_replies_are_no_streams() {
    in_both(TWO_STREAMS, |stack| {
        for target in ["/api/large", "/api/large?printed"] {
            let answers = at_once(stack, 20, target);
            let told: Vec<_> = answers.iter().map(|(status, body)| (*status, body.len())).collect();
            assert_eq!(told, [(200, MIB); 20], "{target}");
        }
        let whole = stack.get("/api/large");
        assert_eq!(whole.header("content-length"), MIB.to_string(), "the client learns that it got all of it");
    });
}

#[test]
fn streams_beyond_their_share_are_refused() {
    in_both(TWO_STREAMS, |stack| {
        let mut open: Vec<_> = (0..2).map(|_| stack.connect()).collect();
        for stream in &mut open {
            stream.send(b"GET /api/stream?pieces=1000&ms=50 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            assert_eq!(stream.head().unwrap().status, 200);
        }
        let refused = stack.get("/api/stream?pieces=1000&ms=50");
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(!refused.header("retry-after").is_empty());
        assert_eq!(stack.get("/api/large").body.len(), MIB);
        drop(open);
        wait::until("a place for a stream", HEAL, || (stack.get("/api/stream").status == 200).then_some(()));
    });
}

#[test]
fn a_long_reply_that_is_read_slowly_becomes_a_stream_or_is_cut() {
    let config = "[php.default]\ntimeout = \"1s\"\nmax_streams = \"25%\"\n[php.default.processes]\nmin = 4\nmax = 4\n";
    in_both(config, |stack| {
        // More than lies in buffers on the way.
        let bytes: u64 = 128 << 20;
        let ask = format!("GET /api/large?printed&bytes={bytes} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut readers: Vec<_> = (0..2).map(|_| stack.connect()).collect();
        for reader in &mut readers {
            reader.send(ask.as_bytes()).unwrap();
            assert_eq!(reader.head().unwrap().status, 200);
        }
        wait::until("one to be cut", HEAL, || stack.logs().contains("cut a long reply").then_some(()));
        let whole = readers.iter_mut().filter_map(read_to_its_end).collect::<Vec<_>>();
        assert_eq!(whole, [bytes], "one of the two has the place of a stream");
        assert_eq!(stack.get("/api/hello").status, 200);
    });
}

/// The length of a chunked body, if it is complete.
fn read_to_its_end(reader: &mut http::Connection) -> Option<u64> {
    let mut bytes = 0;
    loop {
        match reader.chunk() {
            Ok(Some(piece)) => bytes += piece.len() as u64,
            Ok(None) => return Some(bytes),
            Err(_) => return None,
        }
    }
}

/// Status and body of so many requests that are made at the same time.
fn at_once(stack: &Stack, count: usize, target: &'static str) -> Vec<(u16, Vec<u8>)> {
    let address = stack.address();
    let clients: Vec<_> = (0..count)
        .map(|_| {
            thread::spawn(move || {
                let answer = http::get(address, target).unwrap();
                (answer.status, answer.body)
            })
        })
        .collect();
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}
