//! Redis away, lost, frozen, slow.

use std::time::Duration;

use troupe_mesh::discovery::{BEAT_LASTS, StaticDiscovery};
use troupe_testkit::redis::{Redis as Server, SlowRoad};

use crate::support::{Reader, TIMEOUT, client, joined, registration, timed, until};

#[actix_rt::test]
async fn without_redis_at_the_start_everything_registers_when_it_comes() {
    let mut server = Server::start();
    server.kill();
    let reader = Reader::of(&server);
    let _one = joined(&server, 1, 1);
    reader.keeps(&[], Duration::from_secs(2)).await;
    server.restart();
    reader.until(&[(1, 1)]).await;
}

#[actix_rt::test]
async fn without_redis_at_the_start_peers_are_used_until_it_has_named_one() {
    let mut server = Server::start();
    server.kill();
    let peers = StaticDiscovery::parse(["10.0.0.7:1", "10.0.0.7:2"]).unwrap();
    let reader = Reader::beside(&server, peers);
    reader.keeps(&[(0, 1), (0, 2)], Duration::from_secs(2)).await;
    server.restart();
    reader.keeps(&[(0, 1), (0, 2)], Duration::from_secs(3)).await;
    let one = joined(&server, 1, 1);
    reader.until(&[(1, 1)]).await;
    one.leave().await;
    reader.until(&[]).await;
}

#[actix_rt::test]
async fn a_redis_that_dies_takes_nobody_with_it() {
    let mut server = Server::start();
    let reader = Reader::of(&server);
    let (_one, two) = (joined(&server, 1, 1), joined(&server, 2, 2));
    reader.until(&[(1, 1), (2, 2)]).await;
    server.kill();
    // Longer than any beat lasts.
    reader.keeps(&[(1, 1), (2, 2)], BEAT_LASTS * 2).await;
    server.restart();
    // It has forgotten all; they register anew, and meanwhile stay.
    reader.keeps(&[(1, 1), (2, 2)], BEAT_LASTS).await;
    assert_eq!(server.command(&["ZCARD", "t:{callee}:members"]).number(), 2);
    two.leave().await;
    reader.until(&[(1, 1)]).await;
}

#[actix_rt::test]
async fn a_flush_takes_nobody_with_it() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let _one = joined(&server, 1, 1);
    reader.until(&[(1, 1)]).await;
    for _ in 0..20 {
        server.command(&["FLUSHALL"]);
        server.command(&["SCRIPT", "FLUSH"]);
        reader.keeps(&[(1, 1)], Duration::from_millis(300)).await;
    }
    let _two = joined(&server, 2, 2);
    reader.until(&[(1, 1), (2, 2)]).await;
}

#[actix_rt::test]
async fn a_frozen_redis_takes_nobody_with_it() {
    let server = Server::start();
    let reader = Reader::of(&server);
    let one = joined(&server, 1, 1);
    reader.until(&[(1, 1)]).await;
    server.pause();
    reader.keeps(&[(1, 1)], BEAT_LASTS * 2).await;
    // Nor does it hold up who stops.
    let ((), waited) = timed(one.leave()).await;
    assert!(waited < TIMEOUT * 10, "{waited:?}");
    server.go_on();
    let _two = joined(&server, 2, 2);
    // Whether the first one's farewell was lost or lay in a socket's buffer.
    let sees_two = || reader.sees().contains(&(2, 2));
    until("the second", sees_two, || format!("{:?}", reader.sees())).await;
}

#[actix_rt::test]
async fn a_slow_redis_takes_nobody_with_it() {
    let server = Server::start();
    let road = SlowRoad::to(server.address());
    let url = format!("redis://{}", road.address());
    let reader = Reader::with(client(&url));
    let one = troupe_mesh::discovery::Membership::start(client(&url));
    one.join(registration(1, 1));
    reader.until(&[(1, 1)]).await;
    road.slow_down(TIMEOUT / 4);
    reader.keeps(&[(1, 1)], BEAT_LASTS).await;
    let _two = joined(&server, 2, 2);
    reader.until(&[(1, 1), (2, 2)]).await;
    // Beyond what an answer may take it counts as away.
    road.slow_down(TIMEOUT * 3);
    reader.keeps(&[(1, 1), (2, 2)], BEAT_LASTS).await;
    road.slow_down(Duration::ZERO);
    let _three = joined(&server, 3, 3);
    reader.until(&[(1, 1), (2, 2), (3, 3)]).await;
}
