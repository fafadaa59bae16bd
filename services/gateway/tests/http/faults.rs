//! Connections that fail are counted, each once, by what they failed for.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use socket2::SockRef;
use troupe_contracts::invoke::{Invoke, Reply};
use troupe_gateway::Running;
use troupe_gateway::config::GatewayConfig;
use troupe_mesh::body::{self, Body};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::Failure;
use troupe_node::units;

use crate::support::*;

/// Answers as the function's name says.
async fn by_name(envelope: Envelope<Invoke>) -> Result<Reply, Failure> {
    let (mut writer, reader) = body::channel(None);
    match &*envelope.call.function {
        // Its client stops, or leaves, first.
        "never" => std::future::pending().await,
        "endless" => {
            tokio::task::spawn_local(async move { while writer.write(bytes(16 * 1024)).await.is_ok() {} });
        }
        "pausing" => {
            writer.push(Bytes::from_static(b"first")).expect("there is room");
            tokio::task::spawn_local(async move { writer.closed().await });
        }
        "broken" => {
            writer.push(Bytes::from_static(b"first")).expect("there is room");
            drop(writer);
        }
        _ => return echo(envelope).await,
    }
    Ok(reply(200, &[], Body::Stream(reader)))
}

/// What was counted, once it is as many as that.
fn counted(running: &Running, most: u64) -> BTreeMap<&'static str, u64> {
    let start = Instant::now();
    loop {
        let errors = running.insight().figures().connection_errors;
        if errors.values().sum::<u64>() >= most {
            return errors;
        }
        assert!(start.elapsed() < PATIENCE, "{errors:?}");
        pause(Duration::from_millis(10));
    }
}

#[test]
fn each_connection_that_fails_is_counted_once_by_its_cause() {
    let quick = units::Duration::from_millis(400);
    let config = GatewayConfig { head_timeout: quick, stream_idle: quick, keep_alive: quick, ..config() };
    let running = serve(config, &functions(), by_name);
    let get = |function: &str| format!("GET /{function} HTTP/1.1\r\nHost: a\r\n\r\n");

    // None of these is an error: an answered request, one connection that is kept too long, one that is never used.
    let mut answered = Client::connect(&running);
    assert_eq!(answered.send(get("a")).response(false).status, 200);
    let _unused = Client::connect(&running);
    let mut all = BTreeMap::new();
    for (cause, request) in [
        ("head_timeout", "GET /a HTTP/1.1\r\nHo".to_owned()),
        ("protocol", "nonsense\r\n\r\n".to_owned()),
        ("body_timeout", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123".to_owned()),
        // Longer than what is gathered before the call begins.
        ("body_timeout", "POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n123".to_owned()),
        ("reply_timeout", get("pausing")),
        ("reply_broken", get("broken")),
    ] {
        let mut client = Client::connect(&running);
        let _ = client.send(request).0.read_to_end(&mut Vec::new());
        *all.entry(cause).or_insert(0) += 1;
        assert_eq!(counted(&running, all.values().sum()), all, "{cause}");
    }
    // Takes no byte of an answer without an end.
    let mut stuck = Client::connect(&running);
    stuck.send(get("endless"));
    all.insert("write_timeout", 1);
    assert_eq!(counted(&running, all.values().sum()), all);
    // Leaves by a reset, in the middle of its request.
    let mut gone = Client::connect(&running);
    gone.send(get("never"));
    pause(Duration::from_millis(100));
    SockRef::from(&gone.0).set_linger(Some(Duration::ZERO)).unwrap();
    drop(gone);
    all.insert("reset", 1);
    assert_eq!(counted(&running, all.values().sum()), all);
    // Counts are added a few times a second: nothing came behind.
    pause(Duration::from_millis(600));
    assert_eq!(counted(&running, 0), all);
}
