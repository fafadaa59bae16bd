//! What comes behind a request on its connection: when its turn is, and from when on it may be late.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use troupe_contracts::invoke::{Invoke, Reply};
use troupe_gateway::config::GatewayConfig;
use troupe_mesh::body::{self, Body};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::Failure;
use troupe_node::units;

use crate::support::*;

const HEAD_TIMEOUT: Duration = Duration::from_millis(300);
/// How long answers take that are to outlast the clock: long enough for it to be seen several times.
const LATE: Duration = Duration::from_millis(1500);

fn impatient() -> GatewayConfig {
    let head_timeout = units::Duration::from_millis(HEAD_TIMEOUT.as_millis() as u64);
    GatewayConfig { head_timeout, ..config() }
}

/// Answers as the function's name says.
async fn by_name(envelope: Envelope<Invoke>) -> Result<Reply, Failure> {
    let (mut writer, reader) = body::channel(None);
    match &*envelope.call.function {
        "late" => {
            tokio::time::sleep(LATE).await;
            return echo(envelope).await;
        }
        "stream-late" => {
            tokio::task::spawn_local(async move {
                tokio::time::sleep(LATE).await;
                let _ = writer.write(Bytes::from_static(b"all")).await;
                writer.finish();
            });
        }
        "stream-long" => {
            tokio::task::spawn_local(async move {
                let _ = writer.write(Bytes::from_static(b"a")).await;
                tokio::time::sleep(LATE).await;
                let _ = writer.write(Bytes::from_static(b"ll")).await;
                writer.finish();
            });
        }
        _ => return echo(envelope).await,
    }
    Ok(reply(200, &[], Body::Stream(reader)))
}

fn head(method: &str, function: &str) -> String {
    format!("{method} /{function} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn a_request_behind_a_slow_answer_is_not_late() {
    let running = serve(impatient(), &functions(), by_name);
    let firsts = [("GET", "late"), ("HEAD", "late"), ("GET", "stream-late"), ("GET", "stream-long")];
    let clients = firsts.map(|(method, function)| {
        let mut client = Client::connect(&running);
        client.send(head(method, function) + &head("GET", "behind"));
        (client, method, function)
    });
    for (mut client, method, function) in clients {
        let first = client.response(method == "HEAD");
        assert!(first.head.starts_with("HTTP/1.1 200 "), "{method} {function}: {}", first.head);
        if function.starts_with("stream") {
            assert_eq!(first.text(), "all", "{function}");
        }
        let second = client.response(false);
        assert!(second.text().starts_with("GET /behind "), "{method} {function}: {}", second.head);
    }
}

#[test]
fn a_head_that_begins_behind_an_answer_has_its_time_from_the_answers_end() {
    let (answers, answered) = mpsc::channel();
    let running = serve(impatient(), &functions(), move |envelope| {
        let answers = answers.clone();
        async move {
            let reply = by_name(envelope).await;
            let _ = answers.send(Instant::now());
            reply
        }
    });
    let mut client = Client::connect(&running);
    client.send(head("GET", "late") + "GET /behind HTTP/1.1\r\nHo");
    let first = client.response(false);
    assert!(first.head.starts_with("HTTP/1.1 200 ") && first.text().starts_with("GET /late "), "{}", first.head);
    assert_eq!(client.response(false).status, 408);
    assert!(answered.recv().expect("the service has answered").elapsed() >= HEAD_TIMEOUT);
    assert!(client.is_closed());
}

#[test]
fn a_request_behind_a_stream_is_answered_at_the_streams_end() {
    // Nothing but the stream's end wakes the connection before the test has lost its patience.
    let never = units::Duration::from_secs(10 * PATIENCE.as_secs());
    let config = GatewayConfig {
        head_timeout: never,
        keep_alive: never,
        request_timeout: never,
        stream_idle: never,
        ..config()
    };
    let running = serve(config, &functions(), by_name);
    let mut client = Client::connect(&running);
    client.send(head("GET", "stream-long") + &head("GET", "behind"));
    assert_eq!(client.response(false).text(), "all");
    assert!(client.response(false).text().starts_with("GET /behind "));
}

#[test]
fn a_request_behind_a_slow_call_waits_without_work() {
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let running = serve(config(), &functions(), move |envelope| {
        let (counted, mut call) = (Arc::clone(&counted), Box::pin(by_name(envelope)));
        poll_fn(move |context| {
            counted.fetch_add(1, Ordering::Relaxed);
            call.as_mut().poll(context)
        })
    });
    let mut client = Client::connect(&running);
    client.send(head("GET", "late") + &head("GET", "behind"));
    assert!(client.response(false).text().starts_with("GET /late "));
    assert!(client.response(false).text().starts_with("GET /behind "));
    let polls = polls.load(Ordering::Relaxed);
    assert!(polls <= 100, "two calls were looked at {polls} times");
}

/// RFC 9112 §2.2: one that sloppy clients send behind a body is passed over.
#[test]
fn an_empty_line_begins_no_head() {
    let post = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let running = serve(impatient(), &functions(), by_name);
    let mut along = Client::connect(&running);
    assert_eq!(along.send([post, "\r\n"].concat()).response(false).status, 200);
    let mut later = Client::connect(&running);
    assert_eq!(later.send(post).response(false).status, 200);
    later.send("\r\n");
    let mut waiting = Client::connect(&running);
    waiting.send(head("POST", "late") + "\r\n");
    assert_eq!(waiting.response(false).status, 200);
    pause(LATE);
    for client in [&mut along, &mut later, &mut waiting] {
        assert!(client.get("/behind").text().starts_with("GET /behind "));
    }
    // It is no more than one, however they come.
    assert_eq!(along.send("\r\n").get("/behind").status, 200);
    along.send("\r\n");
    pause(HEAD_TIMEOUT / 10);
    assert_eq!(along.send("\r\n").response(false).status, 400);
}

#[test]
fn a_connection_that_is_idle_behind_an_empty_line_ends_without_an_answer() {
    let keep_alive = impatient().head_timeout;
    let running = serve(GatewayConfig { keep_alive, ..impatient() }, &functions(), by_name);
    let mut used = Client::connect(&running);
    assert_eq!(used.get("/a").status, 200);
    assert!(used.send("\r\n").is_closed());
    let mut unused = Client::connect(&running);
    assert!(unused.send("\r\n").is_closed());
}
