//! Bodies, both ways.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use troupe_gateway::config::{GatewayConfig, RouteConfig};
use troupe_mesh::body::{self, Body};
use troupe_node::units;

use crate::support::*;

#[test]
fn small_bodies_come_whole_and_large_ones_as_streams() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    let mut post = |len: usize| {
        client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n"));
        client.send(bytes(len));
        client
            .response(false)
            .text()
            .rsplit_once("body ")
            .map(|(_, body)| body.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .unwrap()
    };
    assert_eq!(post(0), "empty 0");
    assert_eq!(post(5), "full 5");
    assert_eq!(post(32 * 1024), "full 32768");
    assert_eq!(post(32 * 1024 + 1), "stream 32769");
    assert_eq!(post(3_000_000), "stream 3000000");
    assert_eq!(post(7), "full 7");
}

#[test]
fn a_body_behind_its_head_is_waited_for() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    pause(Duration::from_millis(50));
    client.send("56789");
    assert!(client.response(false).text().ends_with("body full 10 0123456789"));
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    pause(Duration::from_millis(50));
    client.send("3\r\ndef\r\n0\r\nTrailer: x\r\n\r\n");
    assert!(client.response(false).text().ends_with("body full 6 abcdef"));
}

#[test]
fn streaming_routes_see_bodies_as_they_come() {
    let route = RouteConfig { streaming: true, ..any_function() };
    let running = serve(config(), &[route], |mut envelope| async move {
        let first = envelope.call.body.next().await.unwrap().unwrap();
        Ok(reply(200, &[], Body::full(first)))
    });
    let mut client = Client::connect(&running);
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234");
    assert_eq!(client.response(false).text(), "01234");
    let mut client = Client::connect(&running);
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(client.response(false).text(), "0123456789");
}

#[test]
fn expectations_are_met() {
    let running = serve(GatewayConfig { max_body: units::Size::from_kib(1), ..config() }, &functions(), echo);
    let mut client = Client::connect(&running);
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response(true).status, 100);
    assert!(client.send("abc").response(false).text().ends_with("full 3 abc"));
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.response(false).status, 413);
}

#[test]
fn bodies_are_limited_whether_or_not_they_say_their_length() {
    let running = serve(GatewayConfig { max_body: units::Size::from_kib(64), ..config() }, &functions(), echo);
    let mut client = Client::connect(&running);
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n");
    let response = client.response(false);
    assert_eq!((response.status, response.field("connection")), (413, Some("close")));
    let mut client = Client::connect(&running);
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..9 {
        client.send("2000\r\n").send(bytes(0x2000)).send("\r\n");
    }
    let response = client.response(false);
    assert_eq!((response.status, response.problem()["status"].as_u64()), (413, Some(413)));
    let mut client = Client::connect(&running);
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n").send(bytes(65536));
    assert_eq!(client.response(false).status, 200);
}

#[test]
fn a_malformed_chunk_ends_the_request() {
    let running = serve(config(), &functions(), echo);
    for (part, rest) in [("5\r\nhello\r\n", "zz\r\n"), ("5\r\nhel", "lo!\r\n"), ("", "5\nhello"), ("ffff\r\nx", "")] {
        let mut client = Client::connect(&running);
        client.send("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").send(part);
        pause(Duration::from_millis(20));
        if rest.is_empty() {
            continue;
        }
        client.send(rest);
        assert_eq!(client.response(false).status, 400, "{rest:?}");
        assert!(client.is_closed());
    }
}

#[test]
fn unread_bodies_do_not_confuse_what_follows() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    client.send("POST /a//b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response(false).status, 400);
    assert_eq!(client.get("/next").status, 200);
    client.send("POST /a//b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel");
    pause(Duration::from_millis(20));
    client.send("lo\r\n0\r\n\r\n");
    assert_eq!(client.response(false).status, 400);
    assert_eq!(client.get("/next").status, 200);
    client.send("POST /a//b HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").send(bytes(1000));
    let response = client.response(false);
    assert_eq!((response.status, response.field("connection")), (400, Some("close")));
}

#[test]
fn an_answer_may_come_before_the_body_is_read() {
    let route = RouteConfig { streaming: true, ..any_function() };
    let running = serve(config(), &[route], |envelope| async move {
        let mut body = envelope.call.body;
        let (mut writer, reader) = body::channel(None);
        tokio::task::spawn_local(async move {
            while let Some(Ok(piece)) = body.next().await {
                if writer.write(piece).await.is_err() {
                    return;
                }
            }
            writer.finish();
        });
        Ok(reply(200, &[], Body::Stream(reader)))
    });
    let mut client = Client::connect(&running);
    let len = 2_000_000;
    client.send(format!("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n"));
    let mut sender = client.0.try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&bytes(len)).unwrap());
    let response = client.response(false);
    sending.join().unwrap();
    assert_eq!(response.body.len(), len);
    assert!(response.body == bytes(len));
    // Whether the body would ever end was not known when the head was written.
    assert_eq!(response.field("connection"), Some("close"));
    assert!(client.is_closed());
}

fn pieces(count: usize, len: Option<u64>, finish: bool) -> Body {
    let (mut writer, reader) = body::channel(len);
    tokio::task::spawn_local(async move {
        for _ in 0..count {
            if writer.write(bytes(1000)).await.is_err() {
                return;
            }
        }
        if finish {
            writer.finish();
        }
    });
    Body::Stream(reader)
}

#[test]
fn streams_are_framed_by_what_is_known() {
    let running = serve(config(), &functions(), |envelope| async move {
        Ok(match &*envelope.call.function {
            "sized" => reply(200, &[], pieces(100, Some(100_000), true)),
            "said" => reply(200, &[("Content-Length", "100000")], pieces(100, None, true)),
            _ => reply(200, &[], pieces(100, None, true)),
        })
    });
    let mut client = Client::connect(&running);
    for (target, framing) in [("/sized", "content-length"), ("/said", "content-length"), ("/open", "transfer-encoding")]
    {
        let response = client.get(target);
        assert_eq!(response.body.len(), 100_000, "{target}");
        assert!(response.field(framing).is_some(), "{target}");
        let head = client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n")).response(true);
        assert_eq!(head.field(framing), response.field(framing));
    }
    let mut old = Client::connect(&running);
    let response = old.send("GET /open HTTP/1.0\r\n\r\n").response(false);
    assert_eq!((response.body.len(), response.field("transfer-encoding")), (100_000, None));
}

#[test]
fn a_broken_stream_never_looks_complete() {
    let running = serve(config(), &functions(), |envelope| async move {
        Ok(match &*envelope.call.function {
            "sized" => reply(200, &[], pieces(3, Some(100_000), false)),
            "short" => reply(200, &[], pieces(3, Some(100_000), true)),
            _ => reply(200, &[], pieces(3, None, false)),
        })
    });
    for (request, end) in [
        ("GET /sized HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET /short HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET /open HTTP/1.1\r\nHost: a\r\n\r\n", true),
        // No framing but the connection's end, which therefore must be an error.
        ("GET /open HTTP/1.0\r\n\r\n", false),
    ] {
        let mut client = Client::connect(&running);
        let mut all = Vec::new();
        let outcome = client.send(request).0.read_to_end(&mut all);
        assert!(!all.ends_with(b"0\r\n\r\n") && all.len() < 90_000, "{request}");
        assert_eq!(outcome.is_ok(), end, "{request}: {outcome:?}");
    }
}

#[test]
fn a_broken_stream_gives_all_that_came_before() {
    let running = serve(config(), &functions(), |envelope| async move {
        let count: usize = envelope.call.function.parse().unwrap();
        Ok(reply(200, &[], pieces(count, Some(1 << 30), false)))
    });
    // What is there when it breaks, what fills a socket's buffers first, and both by a client that takes its time.
    for (count, pause_of) in [(1, 0), (3, 0), (3_000, 0), (3, 50), (3_000, 50)] {
        for _ in 0..5 {
            let mut client = Client::connect(&running);
            client.send(format!("GET /{count} HTTP/1.1\r\nHost: a\r\n\r\n"));
            pause(Duration::from_millis(pause_of));
            let mut all = Vec::new();
            client.0.read_to_end(&mut all).unwrap();
            let head = all.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            assert_eq!(all.len() - head, count * 1000, "{count} {pause_of}");
        }
    }
}

#[test]
fn a_stream_that_pauses_too_long_is_cut() {
    let running = serve(
        GatewayConfig { stream_idle: units::Duration::from_millis(300), ..config() },
        &functions(),
        |envelope| async move {
            let (mut writer, reader) = body::channel(None);
            writer.push(Bytes::from_static(b"first")).unwrap();
            tokio::task::spawn_local(async move { writer.closed().await });
            drop(envelope);
            Ok(reply(200, &[], Body::Stream(reader)))
        },
    );
    let mut client = Client::connect(&running);
    let mut all = Vec::new();
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").0.read_to_end(&mut all).unwrap();
    assert!(all.ends_with(b"5\r\nfirst\r\n"), "{}", String::from_utf8_lossy(&all));
    // The same for a request body.
    let mut client = Client::connect(&running);
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123");
    assert_eq!(client.response(false).status, 408);
}

#[test]
fn a_slow_reader_stops_the_writer_and_is_cut_off_in_the_end() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let config = GatewayConfig { stream_idle: units::Duration::from_millis(700), ..config() };
    let running = serve(config, &functions(), move |_| {
        let count = Arc::clone(&count);
        async move {
            let (mut writer, reader) = body::channel(None);
            tokio::task::spawn_local(async move {
                while writer.write(bytes(16 * 1024)).await.is_ok() {
                    count.fetch_add(16 * 1024, Ordering::Relaxed);
                }
                count.fetch_or(1, Ordering::Relaxed);
            });
            Ok(reply(200, &[], Body::Stream(reader)))
        }
    });
    let mut client = Client::connect(&running);
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let start = Instant::now();
    while written.load(Ordering::Relaxed) & 1 == 0 {
        assert!(start.elapsed() < PATIENCE, "the writer was never told");
        pause(Duration::from_millis(20));
    }
    // The kernel's buffers of both ends, and ours, which are small beside them.
    assert!(written.load(Ordering::Relaxed) < 32 * 1024 * 1024, "{written:?}");
}
