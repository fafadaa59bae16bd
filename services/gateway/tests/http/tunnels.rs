//! Tunnels as the gateway sees them: a reply of 101 whose body and whose call's body are streams.

use std::io::Read as _;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use troupe_contracts::invoke::{Invoke, Reply};
use troupe_gateway::config::{GatewayConfig, RouteConfig};
use troupe_gateway::{Options, Running};
use troupe_mesh::body::{Body, channel};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::Failure;
use troupe_node::units;

use crate::support::*;

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                         Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn upstream() -> Vec<RouteConfig> {
    vec![RouteConfig { path: "/{rest*}".into(), upstream: Some("app".into()), ..RouteConfig::default() }]
}

fn switched(body: Body) -> Reply {
    reply(101, &[("Sec-WebSocket-Accept", "a"), ("Connection", "close"), ("Content-Length", "7")], body)
}

/// Sends everything back; `/endless` sends without end, `/broken` breaks off, `/plain` is an ordinary answer.
async fn serve_tunnels(envelope: Envelope<Invoke>) -> Result<Reply, Failure> {
    let mut call = envelope.call;
    if !call.flags.tunnel {
        return Ok(reply(200, &[], Body::full(Bytes::from_static(b"plain"))));
    }
    let target = call.head.target().to_owned();
    let (mut writer, reader) = channel(None);
    actix_rt::spawn(async move {
        match &*target {
            "/endless" => while writer.write(bytes(64 * 1024)).await.is_ok() {},
            "/broken" => {
                let _ = writer.write(Bytes::from_static(b"begun")).await;
            }
            _ => {
                while let Some(Ok(piece)) = call.body.next().await {
                    let _ = writer.write(piece).await;
                }
                let _ = writer.write(Bytes::from_static(b" bye")).await;
                writer.finish();
            }
        }
    });
    Ok(switched(Body::Stream(reader)))
}

fn gone(running: &Running) {
    let start = Instant::now();
    while running.connections() > 0 {
        assert!(start.elapsed() < PATIENCE, "the connection stays");
        pause(Duration::from_millis(5));
    }
}

#[test]
fn a_101_makes_a_tunnel_of_the_connection() {
    let running = serve(config(), &upstream(), serve_tunnels);
    let mut client = Client::connect(&running);
    let head = client.send(HANDSHAKE).response(false);
    assert_eq!(
        (head.status, head.field("upgrade"), head.field("connection")),
        (101, Some("websocket"), Some("upgrade"))
    );
    assert_eq!((head.field("sec-websocket-accept"), head.field("content-length")), (Some("a"), None));
    assert_eq!(head.field("x-request-id").map(str::len), Some(32));
    // What looks like a request is none.
    client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    client.0.shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    client.0.read_to_string(&mut all).unwrap();
    assert_eq!(all, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n bye");
    gone(&running);
}

#[test]
fn a_101_that_is_whole_already_is_passed_on_and_ends() {
    let running = serve(config(), &upstream(), |_| async { Ok(switched(Body::full(Bytes::from_static(b"bye")))) });
    let mut client = Client::connect(&running);
    assert_eq!(client.send(HANDSHAKE).response(false).status, 101);
    let mut all = String::new();
    client.0.read_to_string(&mut all).unwrap();
    assert_eq!(all, "bye");
}

#[test]
fn a_tunnel_that_breaks_off_does_not_look_like_one_that_ended() {
    let running = serve(config(), &upstream(), serve_tunnels);
    let mut client = Client::connect(&running);
    assert_eq!(client.send(HANDSHAKE.replace("/ws", "/broken")).response(false).status, 101);
    let mut all = Vec::new();
    assert!(client.0.read_to_end(&mut all).is_err(), "{all:?}");
    gone(&running);
}

#[test]
fn a_client_that_takes_nothing_is_given_up_and_a_silent_one_is_not() {
    let stream_idle = units::Duration::from_millis(300);
    let running = serve(GatewayConfig { stream_idle, ..config() }, &upstream(), serve_tunnels);
    let mut stuck = Client::connect(&running);
    assert_eq!(stuck.send(HANDSHAKE.replace("/ws", "/endless")).response(false).status, 101);
    let mut silent = Client::connect(&running);
    assert_eq!(silent.send(HANDSHAKE).response(false).status, 101);
    let start = Instant::now();
    while running.connections() > 1 {
        assert!(start.elapsed() < PATIENCE, "a client that takes nothing stays");
        pause(Duration::from_millis(5));
    }
    pause(Duration::from_secs(1));
    let mut echo = [0; 5];
    silent.send("there").0.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"there");
}

/// A panic or a late answer must not find the handshake's bytes being read as a request: they are not until it is answered.
#[test]
fn a_handshake_that_is_not_answered_in_time_is_a_504_and_spoils_what_is_behind_it() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let request_timeout = units::Duration::from_millis(300);
    let running = serve(GatewayConfig { request_timeout, ..config() }, &upstream(), move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending()
    });
    let mut client = Client::connect(&running);
    let response = client.send(format!("{HANDSHAKE}GET /a HTTP/1.1\r\nHost: a\r\n\r\n")).response(false);
    assert_eq!((response.status, response.field("connection")), (504, Some("close")));
    assert!(client.is_closed());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn more_bytes_than_are_kept_behind_a_handshake_wait_in_the_kernel() {
    let running = serve(config(), &upstream(), |envelope| async move {
        // The client has sent all of it by then, or is held back.
        actix_rt::time::sleep(Duration::from_millis(300)).await;
        serve_tunnels(envelope).await
    });
    let mut client = Client::connect(&running);
    let early = bytes(256 * 1024);
    let mut handle = client.0.try_clone().unwrap();
    let sent = early.clone();
    let sending = std::thread::spawn(move || {
        use std::io::Write as _;
        handle.write_all(HANDSHAKE.as_bytes()).unwrap();
        handle.write_all(&sent).unwrap();
        handle.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(client.response(false).status, 101);
    let mut all = Vec::new();
    client.0.read_to_end(&mut all).unwrap();
    sending.join().unwrap();
    assert!(all.strip_suffix(b" bye").is_some_and(|echoed| echoed == early), "{} bytes came back", all.len());
}

/// A client that leaves before the answer takes its call with it.
#[test]
fn a_client_that_leaves_during_the_handshake_cancels_it() {
    let running = serve(config(), &upstream(), |_| std::future::pending());
    for early in ["", "early"] {
        let mut client = Client::connect(&running);
        client.send(format!("{HANDSHAKE}{early}"));
        pause(Duration::from_millis(50));
        client.0.shutdown(Shutdown::Write).unwrap();
        gone(&running);
    }
}

#[test]
fn tunnels_count_as_connections() {
    let options = Options { threads: 1, ..Options::default() };
    let config = GatewayConfig { max_connections: 1, ..config() };
    let running = serve_with(config, &upstream(), options, serve_tunnels);
    let mut tunnel = Client::connect(&running);
    assert_eq!(tunnel.send(HANDSHAKE).response(false).status, 101);
    let mut other = Client::connect(&running);
    other.send("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    other.0.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(other.0.peek(&mut [0]).is_err(), "there is room for one");
    other.0.set_read_timeout(Some(PATIENCE)).unwrap();
    drop(tunnel);
    assert_eq!(other.response(false).text(), "plain");
}

/// However a client's bytes are cut on their way, what stands behind the handshake goes through the tunnel, as it is.
#[test]
fn no_cut_makes_a_request_of_what_is_behind_the_handshake() {
    let running = serve(config(), &upstream(), serve_tunnels);
    let behind = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\nnonsense\0";
    let all = format!("GET /plain HTTP/1.1\r\nHost: a\r\n\r\n{HANDSHAKE}{behind}");
    for cut in (1..all.len()).step_by(3) {
        let mut client = Client::connect(&running);
        let (first, second) = all.split_at(cut);
        client.send(first);
        pause(Duration::from_millis(2));
        client.send(second);
        assert_eq!(client.response(false).text(), "plain", "cut at {cut}");
        assert_eq!(client.response(false).status, 101, "cut at {cut}");
        let mut echoed = vec![0; behind.len()];
        client.0.read_exact(&mut echoed).unwrap();
        assert_eq!(String::from_utf8(echoed).unwrap(), behind, "cut at {cut}");
    }
}
