//! Instances that come, go, start anew and die.

use std::time::Duration;

use troupe_mesh::discovery::{Advertise, BEAT_LASTS, Membership, Registration};
use troupe_testkit::redis::Redis as Server;
use troupe_wire::handshake::Uid;

use crate::support::{PATIENCE, Reader, client, joined, registration, timed, until};

#[actix_rt::test]
async fn instances_are_seen_when_they_come_and_when_they_leave() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let one = joined(&server, 1, 1);
    reader.until(&[(1, 1)]).await;
    let two = joined(&server, 2, 2);
    reader.until(&[(1, 1), (2, 2)]).await;
    one.leave().await;
    reader.until(&[(2, 2)]).await;
    two.leave().await;
    reader.until(&[]).await;
}

#[actix_rt::test]
async fn what_stands_in_redis_is_what_the_documentation_says() {
    let server = Server::start();
    let _one = joined(&server, 1, 7402);
    let uid = Uid([1; 16]).to_string();
    until("the registration", || server.command(&["ZCARD", "t:{callee}:members"]).number() == 1, String::new).await;
    assert_eq!(server.command(&["ZRANGE", "t:{callee}:members", "0", "-1"]).texts(), std::slice::from_ref(&uid));
    let record = server.command(&["GET", &format!("t:{{callee}}:member:{uid}")]).text();
    for part in [r#""form":1"#, r#""address":"10.0.0.7:7402""#, r#""name":"callee-1""#, r#""state":"up""#] {
        assert!(record.contains(part), "{record}");
    }
    assert_eq!(server.command(&["GET", "t:{callee}:at:10.0.0.7:7402"]).text(), uid);
    let mut keys = server.command(&["KEYS", "*"]).texts();
    keys.sort();
    assert_eq!(keys.len(), 3, "{keys:?}");
    for key in keys {
        let left = server.command(&["PTTL", &key]).number();
        assert!(left > 0 && left <= 6_000, "{key} lasts {left} ms");
    }
    // The score is Redis' own time, whatever the clock here says.
    let score = server.command(&["ZSCORE", "t:{callee}:members", &uid]).text();
    let now: f64 = server.command(&["TIME"]).texts()[0].parse().unwrap();
    assert!((score.parse::<f64>().unwrap() / 1000.0 - now).abs() < 10.0, "{score} at {now}");
}

#[actix_rt::test]
async fn a_beat_and_a_poll_are_one_round_trip_each() {
    let server = Server::start();
    let _one = joined(&server, 1, 1);
    let reader = Reader::of(&server);
    reader.until(&[(1, 1)]).await;
    let calls = || {
        let stats = server.command(&["INFO", "commandstats"]).text();
        let of = |name: &str| -> i64 {
            let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
            line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
        };
        (of("evalsha"), of("ping") + of("eval") + of("script|load") + of("hello") + of("client|setinfo"))
    };
    let before = calls();
    until("more beats and polls", || calls().0 >= before.0 + 6, || format!("{:?}", calls())).await;
    assert_eq!(calls().1, before.1, "nothing but the scripts by their digests");
}

#[actix_rt::test]
async fn one_that_dies_without_a_word_ends_with_its_last_beat() {
    let server = Server::start();
    let dead = joined(&server, 1, 1);
    let count = || server.command(&["ZCARD", "t:{callee}:members"]).number();
    until("the registration", || count() == 1, String::new).await;
    // Dropping it is what a kill does: not a word.
    drop(dead);
    let reader = Reader::of(&server);
    let ((), waited) = timed(until("its end in redis", || count() == 0, || count().to_string())).await;
    assert!(waited < BEAT_LASTS * 5, "{waited:?}");
    // A reader that comes later never hears of it; the one that had seen it keeps it for its grace.
    Reader::of(&server).keeps(&[], Duration::from_millis(500)).await;
    drop(reader);
}

#[actix_rt::test]
async fn a_new_start_replaces_the_old_one_at_once() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let old = joined(&server, 9, 1);
    reader.until(&[(9, 1)]).await;
    drop(old);
    let _new = joined(&server, 3, 1);
    let ((), waited) = timed(reader.until(&[(3, 1)])).await;
    assert!(waited < BEAT_LASTS, "it did not wait for the old one's last beat to end: {waited:?}");
    assert_eq!(server.command(&["ZCARD", "t:{callee}:members"]).number(), 1);
}

#[actix_rt::test]
async fn of_two_at_one_address_the_newer_counts_and_the_older_takes_over_when_it_leaves() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let older = joined(&server, 1, 1);
    reader.until(&[(1, 1)]).await;
    let newer = joined(&server, 2, 1);
    reader.until(&[(2, 1)]).await;
    reader.keeps(&[(2, 1)], Duration::from_secs(5)).await;
    newer.leave().await;
    reader.until(&[(1, 1)]).await;
    older.leave().await;
    reader.until(&[]).await;
}

#[actix_rt::test]
async fn a_draining_instance_is_left_out_where_there_is_another() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let (one, two) = (joined(&server, 1, 1), joined(&server, 2, 2));
    reader.until(&[(1, 1), (2, 2)]).await;
    one.drain();
    reader.until(&[(2, 2)]).await;
    two.drain();
    reader.until(&[(1, 1), (2, 2)]).await;
    let record = server.command(&["GET", &format!("t:{{callee}}:member:{}", Uid([1; 16]))]).text();
    assert!(record.contains(r#""state":"draining""#), "{record}");
    one.leave().await;
    reader.until(&[(2, 2)]).await;
}

#[actix_rt::test]
async fn a_process_that_serves_and_calls_does_both() {
    let server = Server::start();
    let both = Membership::start(client(&server.url()));
    both.join(Registration { service: "caller".to_owned(), ..registration(1, 1) });
    let source = both.watch("callee", None);
    let _callee = joined(&server, 2, 2);
    let mut found = troupe_mesh::discovery::Discovery::watch(&source);
    let found = actix_rt::time::timeout(PATIENCE, found.wait_for(|found| found.len() == 1)).await;
    let endpoint = found.expect("in time").expect("the source lives")[0].clone();
    assert_eq!((endpoint.uid, endpoint.name.as_ref()), (Some(Uid([2; 16])), "callee-2 (10.0.0.7:2)"));
    until("its own", || server.command(&["ZCARD", "t:{caller}:members"]).number() == 1, String::new).await;
}

#[actix_rt::test]
async fn a_wildcard_listener_is_advertised_at_the_address_that_reaches_redis() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let membership = Membership::start(client(&server.url()));
    let advertise = Advertise::Reachable { port: 7402, only_v4: true };
    membership.join(Registration { advertise, ..registration(1, 1) });
    reader.until(&[(1, 7402)]).await;
    assert_eq!(reader.watch().borrow()[0].address.to_string(), "127.0.0.1:7402");
}
