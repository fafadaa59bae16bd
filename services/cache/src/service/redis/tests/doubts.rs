//! Leases that nobody knows to have.

use futures_util::poll;
use troupe_redis::redis::cmd;

use super::*;
use crate::service::redis::claims::{give, nonce, take, withdraw};
use crate::service::redis::scripts::TAKE;

/// How long a command may take where it is to take too long.
const SHORT: Duration = Duration::from_millis(300);
const NAME: LeaseName = [9; 16];

/// Instances whose leases outlast the test: one that waits `patience` for Redis, and another.
async fn two(server: &Server, patience: Duration) -> (Instance, Instance) {
    let lease = troupe_node::units::Duration::from_secs(3600);
    let config = StoreConfig { lease, ..StoreConfig::default() };
    let settings = |timeout| settings(Topology::Single(server.url().parse().unwrap()), timeout);
    let one = Instance::configured(&settings(patience), &config).await;
    let other = Instance::configured(&settings(PATIENCE), &config).await;
    // Redis knows the scripts, and there is a connection.
    one.miss("/first", &[]).await;
    (one, other)
}

impl Instance {
    async fn is_granted(&self, target: &str, fields: &[(&str, &str)]) {
        let begun = Instant::now();
        while !matches!(self.look_up(target, fields).await.leased, Leased::Granted { .. }) {
            assert!(begun.elapsed() < BOUND, "nobody has it, and nobody gets it");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[actix_rt::test]
async fn what_redis_granted_too_late_is_withdrawn() {
    let server = Server::start();
    let (late, other) = two(&server, SHORT).await;
    server.pause();
    let call = Lookup { url: url("/a"), want: Want::Answer, head: get("/a", &[]), source: ME };
    let outcome = late.store.look_up(call).await;
    server.go_on();
    assert!(outcome.is_err(), "{outcome:?}");
    other.is_granted("/a", &[]).await;
}

#[actix_rt::test]
async fn what_redis_granted_when_whoever_asked_was_gone_is_withdrawn() {
    let server = Server::start();
    let (gone, other) = two(&server, PATIENCE).await;
    server.pause();
    {
        let mut asked = std::pin::pin!(gone.look_up("/a", &[]));
        // Until it is sent.
        let _ = tokio::time::timeout(SHORT, &mut asked).await;
        assert!(poll!(asked).is_pending());
    }
    server.go_on();
    other.is_granted("/a", &[]).await;
}

#[actix_rt::test]
async fn what_could_not_be_given_back_is_given_back_when_redis_answers() {
    let server = Server::start();
    let (late, other) = two(&server, SHORT).await;
    let right = late.miss("/a", &[]).await;
    server.pause();
    let outcome =
        late.store.lease(Lease { name: right.name, ask: Ask::Give { token: right.token, apart: false } }).await;
    server.go_on();
    assert!(outcome.is_err(), "{outcome:?}");
    other.is_granted("/a", &[]).await;
}

#[actix_rt::test]
async fn a_call_that_comes_after_it_was_withdrawn_takes_no_lease() {
    let server = Server::start();
    let instance = Instance::over(&server).await;
    let InRedis { redis, shared } = &instance.store;
    let (key, withdrawn) = (shared.keys.lease(&NAME), shared.keys.withdrawn(&NAME, 5));
    withdraw(redis, shared, NAME, 5).await.unwrap();
    let call = redis.query(async |to| {
        TAKE.prepare_invoke().key(&key).key(&withdrawn).arg(60_000).arg(nonce(5)).invoke_async(to).await
    });
    assert_eq!(call.await.map(|answer: String| answer).unwrap(), "held");
    let Taken { leased, claim } = take(redis, shared, NAME).await.unwrap();
    let Leased::Granted { token, .. } = leased else { panic!("{leased:?}") };
    // Which is another's.
    withdraw(redis, shared, NAME, 5).await.unwrap();
    assert_eq!(take(redis, shared, NAME).await.unwrap().leased, Leased::Held { name: NAME });
    claim.unwrap().settle();
    give(redis, shared, NAME, token, false).await.unwrap();
    let left: Option<String> = redis.query(async |to| cmd("GET").arg(&key).query_async(to).await).await.unwrap();
    assert_eq!(left, None);
}

/// As a cluster's client does after a redirection.
#[actix_rt::test]
async fn a_call_that_is_sent_twice_is_granted_the_same_twice() {
    let server = Server::start();
    let instance = Instance::over(&server).await;
    let InRedis { redis, shared } = &instance.store;
    let (key, withdrawn) = (shared.keys.lease(&NAME), shared.keys.withdrawn(&NAME, 5));
    let call = async || -> String {
        let call = redis.query(async |to| {
            TAKE.prepare_invoke().key(&key).key(&withdrawn).arg(60_000).arg(nonce(5)).invoke_async(to).await
        });
        call.await.unwrap()
    };
    let first = call().await;
    assert!(first.len() == 16 && first.parse::<u64>().is_ok(), "{first}");
    assert_eq!(call().await, first);
}
