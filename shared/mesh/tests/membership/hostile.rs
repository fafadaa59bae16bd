//! Whoever can write to Redis can write anything: it costs what was written, and nothing else.

use std::time::Duration;

use troupe_testkit::redis::Redis as Server;
use troupe_wire::handshake::Uid;

use crate::support::{Reader, joined};

const INDEX: &str = "t:{callee}:members";

/// Has an index entry, and lets the caller write what stands behind it.
fn enter(server: &Server, uid: &str) -> String {
    let now: u64 = server.command(&["TIME"]).texts()[0].parse::<u64>().unwrap() * 1000 + 600_000;
    server.command(&["ZADD", INDEX, &now.to_string(), uid]);
    format!("t:{{callee}}:member:{uid}")
}

#[actix_rt::test]
async fn nonsense_is_left_out_and_the_rest_is_seen() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let _one = joined(&server, 1, 1);
    reader.until(&[(1, 1)]).await;
    let nonsense = [
        "",
        "null",
        "{",
        "[1,2,3]",
        "\u{0}\u{1}",
        &"x".repeat(100_000),
        &"[".repeat(1000),
        r#"{"form":1,"address":"0.0.0.0:1","name":"n","state":"up","build":"b"}"#,
        r#"{"form":1,"address":"unix:relative","name":"n","state":"up","build":"b"}"#,
        r#"{"form":1,"address":"10.0.0.8:1","name":"n","state":"odd","build":"b"}"#,
        r#"{"form":99,"address":"10.0.0.8:1","name":"n","state":"up","build":"b"}"#,
    ];
    for (index, text) in nonsense.iter().enumerate() {
        let key = enter(&server, &Uid([0x40 + u8::try_from(index).unwrap(); 16]).to_string());
        server.command(&["SET", &key, text]);
    }
    // Of another type, of no form, and without anything behind it.
    let list = enter(&server, &Uid([0x60; 16]).to_string());
    server.command(&["LPUSH", &list, "x"]);
    enter(&server, "no uid");
    enter(&server, &"z".repeat(32));
    enter(&server, &"y".repeat(100_000));
    server.command(&["PUBLISH", "t:{callee}:changes", "nonsense"]);
    let _two = joined(&server, 2, 2);
    reader.until(&[(1, 1), (2, 2)]).await;
    reader.keeps(&[(1, 1), (2, 2)], Duration::from_secs(3)).await;
}

#[actix_rt::test]
async fn an_index_that_is_none_is_an_outage_and_no_more() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let _one = joined(&server, 1, 1);
    reader.until(&[(1, 1)]).await;
    server.command(&["SET", INDEX, "not a sorted set"]);
    reader.keeps(&[(1, 1)], Duration::from_secs(3)).await;
    server.command(&["DEL", INDEX]);
    let _two = joined(&server, 2, 2);
    reader.until(&[(1, 1), (2, 2)]).await;
}

#[actix_rt::test]
async fn a_flood_of_hints_makes_no_flood_of_polls() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let _one = joined(&server, 1, 1);
    reader.until(&[(1, 1)]).await;
    let polls = || -> i64 {
        let stats = server.command(&["INFO", "commandstats"]).text();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
    };
    let before = polls();
    let since = std::time::Instant::now();
    for _ in 0..1_000 {
        server.command(&["PUBLISH", "t:{callee}:changes", "x"]);
        actix_rt::task::yield_now().await;
    }
    // A pause is 25 ms at least; ten times as many is no flood either.
    let bound = 10 * (4 + i64::try_from(since.elapsed().as_millis() / 25).unwrap());
    assert!(polls() - before < bound, "{} polls, {bound} allowed", polls() - before);
}
