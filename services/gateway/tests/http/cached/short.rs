//! Hits that the gate answers itself, without the HTTP server behind it: nobody can tell, but by the time they take.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use troupe_gateway::Options;
use troupe_gateway::cache::Cache;
use troupe_gateway::config::GatewayConfig;
use troupe_mesh::body::Body;
use troupe_node::config::LogFormat;
use troupe_node::units::Size;

use super::{FRESH, cache_config, cached, numbered, on, route, status};
use crate::support::*;

const GET: &str = "GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn options() -> Options {
    let cache = Cache::new(&cache_config(Size::from_mib(64), Size::from_mib(8)));
    Options { threads: 1, cache, ..Options::default() }
}

/// The field lines that do not depend on the moment or the request.
fn lines(response: &Response) -> BTreeSet<String> {
    let lines = response.head.lines().skip(1).filter(|line| !line.is_empty()).map(|line| match line.split_once(": ") {
        Some((name @ ("age" | "x-request-id"), _)) => name.to_owned(),
        Some(("cache-status", value)) => value.split("ttl=").next().unwrap_or_default().to_owned(),
        _ => line.to_owned(),
    });
    lines.filter(|line| !line.starts_with("connection:")).collect()
}

#[test]
fn the_short_way_and_the_long_say_the_same() {
    let (running, calls) = cached(on(), |envelope, _| async move {
        let fields = [
            FRESH,
            ("Content-Type", "text/plain"),
            ("X-Two", "1"),
            ("X-Two", "2"),
            ("Cache-Status", "behind; hit"),
            ("ETag", "\"v\""),
            ("X-Upper-Case", "Kept"),
        ];
        let status = if envelope.call.function == "missing" { 404 } else { 200 };
        Ok(reply(status, &fields, Body::full(bytes(if envelope.call.function == "large" { 50_000 } else { 100 }))))
    });
    for target in ["/small", "/large", "/missing"] {
        let mut client = Client::connect(&running);
        let first = client.get(target);
        let short = client.get(target);
        let ask = |more: &str| format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{more}\r\n");
        let long = Client::connect(&running).send(ask("Connection: close\r\n")).response(false);
        assert_eq!((short.status, &short.body), (first.status, &first.body), "{target}");
        assert_eq!((long.status, &long.body), (short.status, &short.body), "{target}");
        assert_eq!(lines(&short), lines(&long), "{target}");
        assert_eq!(short.head.lines().next(), long.head.lines().next());
        assert!(status(&short).starts_with("behind; hit") && short.head.contains("troupe-l1; hit; ttl="));
    }
    assert_eq!(calls.count(), 3);
}

#[test]
fn a_204_has_no_length() {
    let (running, _) = cached(on(), |_, _| async move { Ok(reply(204, &[FRESH], Body::Empty)) });
    let mut client = Client::connect(&running);
    client.get("/a");
    let hit = client.get("/a");
    assert!(status(&hit).starts_with("troupe-l1; hit") && hit.field("content-length").is_none(), "{}", hit.head);
    assert_eq!(client.get("/a").status, 204);
}

/// Whatever way each goes, answers come in the order of their requests.
#[test]
fn pipelined_hits_and_misses_keep_their_order() {
    let (running, _) = cached(on(), |envelope, n| async move {
        let slow = envelope.call.function == "slow";
        if slow {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let kept = if slow { ("Cache-Control", "no-store") } else { FRESH };
        Ok(numbered(n, &[kept]))
    });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/a").text(), "body 1");
    let ask = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let post = "POST /slow HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc".to_owned();
    for _ in 0..3 {
        let all = [ask("/a"), ask("/a"), ask("/slow"), ask("/a"), post.clone(), ask("/a"), ask("/a")].concat();
        client.send(all);
        let texts: Vec<_> = (0..7).map(|_| client.response(false).text()).collect();
        let hits: Vec<_> = texts.iter().map(|text| text == "body 1").collect();
        assert_eq!(hits, [true, true, false, true, false, true, true], "{texts:?}");
    }
    // Many at once, and one in pieces.
    client.send(GET.repeat(300));
    assert!((0..300).all(|_| client.response(false).text() == "body 1"));
    for part in [GET.get(..7), GET.get(7..GET.len() - 1), GET.get(GET.len() - 1..)] {
        client.send(part.expect("a part"));
        pause(Duration::from_millis(20));
    }
    assert_eq!(client.response(false).text(), "body 1");
}

/// Each head has its own time, also where its beginning came along with the end of the one before.
#[test]
fn hits_whose_heads_overlap_are_not_one_late_head() {
    let head_timeout = Duration::from_secs(2);
    let config = GatewayConfig { head_timeout: "2s".parse().expect("a duration"), ..config() };
    let running =
        serve_with(config, &route(on()), options(), |_| async { Ok(reply(200, &[FRESH], Body::full(bytes(10)))) });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/a").status, 200);
    let (begin, end) = GET.split_at(10);
    let start = std::time::Instant::now();
    client.send(begin);
    while start.elapsed() < head_timeout * 3 / 2 {
        pause(head_timeout / 10);
        let hit = client.send([end, begin].concat()).response(false);
        assert!(hit.status == 200 && status(&hit).starts_with("troupe-l1; hit"), "{}", hit.head);
    }
}

/// The rest of an answer waits for its client, and so do the requests behind it.
#[test]
fn a_slow_reader_gets_every_byte() {
    let whole: Bytes = bytes(7 << 20);
    let answer = whole.clone();
    let running = serve_with(config(), &route(on()), options(), move |_| {
        let body = Body::full(answer.clone());
        async move { Ok(reply(200, &[FRESH], body)) }
    });
    let mut client = Client::connect(&running);
    assert!(client.get("/a").body == whole);
    client.send(GET.repeat(3));
    for _ in 0..3 {
        pause(Duration::from_millis(100));
        let hit = client.response(false);
        assert!(hit.body == whole && status(&hit).starts_with("troupe-l1; hit"), "{}", hit.head);
    }
}

#[test]
fn a_client_that_reads_nothing_is_given_up() {
    let timeout = "300ms".parse().expect("a duration");
    let config = GatewayConfig { stream_idle: timeout, ..config() };
    let running =
        serve_with(config, &route(on()), options(), |_| async { Ok(reply(200, &[FRESH], Body::full(bytes(7 << 20)))) });
    assert_eq!(Client::connect(&running).get("/a").status, 200);
    let mut client = Client::connect(&running);
    client.send(GET.repeat(8));
    let start = std::time::Instant::now();
    // Until its answers are under way, then until it is gone.
    let mut first = [0];
    client.0.read_exact(&mut first).expect("a byte");
    while running.connections() > 0 {
        assert!(start.elapsed() < PATIENCE, "the connection is still there");
        pause(Duration::from_millis(20));
    }
    let mut rest = Vec::new();
    let _ = client.0.read_to_end(&mut rest);
    assert!(rest.len() < 8 * (7 << 20), "all of it came");
}

#[test]
fn the_last_request_of_a_connection_is_told_so() {
    let config = GatewayConfig { max_requests_per_connection: 3, ..config() };
    let running =
        serve_with(config, &route(on()), options(), |_| async { Ok(reply(200, &[FRESH], Body::full(bytes(10)))) });
    let mut client = Client::connect(&running);
    let closes: Vec<_> = (0..3).map(|_| client.get("/a").field("connection") == Some("close")).collect();
    assert_eq!(closes, [false, false, true]);
    assert!(client.is_closed());
}

#[test]
fn an_idle_connection_is_closed_by_a_drain_and_no_hit_is_cut() {
    let running =
        serve_with(config(), &route(on()), options(), |_| async { Ok(reply(200, &[FRESH], Body::full(bytes(10)))) });
    let mut client = Client::connect(&running);
    assert_eq!((client.get("/a").status, client.get("/a").status), (200, 200));
    running.unready();
    let last = client.get("/a");
    assert_eq!((last.status, last.field("connection")), (200, Some("close")));
    assert!(client.is_closed());
    let mut idle = Client::connect(&running);
    let drained = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    assert_eq!(drained.block_on(running.drain(PATIENCE)).cut_off, 0);
    assert!(idle.is_closed());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn hits_are_logged_as_other_requests_are() {
    let log = Log::default();
    let options = Options { log_format: LogFormat::Text, log_to: Some(Box::new(log.clone())), ..options() };
    let config = GatewayConfig { access_log: true, ..config() };
    let running =
        serve_with(config, &route(on()), options, |_| async { Ok(reply(200, &[FRESH], Body::full(bytes(10)))) });
    let mut client = Client::connect(&running);
    for id in ["one", "two"] {
        client.send(format!("GET /a HTTP/1.1\r\nHost: a.example\r\nX-Request-Id: {id}\r\n\r\n"));
        assert_eq!(client.response(false).field("x-request-id"), Some(id));
    }
    let start = std::time::Instant::now();
    let text = loop {
        let text = String::from_utf8(log.0.lock().expect("no panic").clone()).expect("text");
        if text.lines().count() == 2 {
            break text;
        }
        assert!(start.elapsed() < PATIENCE, "{text}");
        pause(Duration::from_millis(10));
    };
    let hit = text.lines().last().unwrap_or_default();
    assert!(hit.contains("\"GET /a HTTP/1.1\" 200 10 ") && hit.contains("ms two "), "{hit}");
}
