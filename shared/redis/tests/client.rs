//! The client against a real server: every wait ends, and what failed is not used again.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use troupe_redis::redis::{RedisResult, Value, cmd};
use troupe_redis::{Error, Login, Node, Place, Redis, Server, Settings, Topology};
use troupe_testkit::redis::Redis as Started;

const TIMEOUT: Duration = Duration::from_millis(200);
/// Ten times what anything may take: a connection and a command.
const BOUND: Duration = Duration::from_secs(22);

fn client(url: &str) -> Redis {
    let topology = Topology::Single(url.parse().unwrap());
    Redis::open(&Settings { topology, login: Login::default(), namespace: "t".to_owned(), timeout: TIMEOUT }).unwrap()
}

/// The settings of a client of a cluster.
fn cluster(nodes: &[Started]) -> Settings {
    let node = |node: &Started| Node { host: node.address().ip().to_string(), port: node.address().port() };
    let topology = Topology::Cluster { nodes: nodes.iter().map(node).collect() };
    Settings { topology, login: Login::default(), namespace: "t".to_owned(), timeout: TIMEOUT }
}

async fn set(redis: &Redis, key: &str, value: &str) -> Result<(), Error> {
    redis.query(async |to| -> RedisResult<()> { cmd("SET").arg(key).arg(value).query_async(to).await }).await
}

async fn get(redis: &Redis, key: &str) -> Result<Option<String>, Error> {
    redis.query(async |to| cmd("GET").arg(key).query_async(to).await).await
}

#[tokio::test]
async fn without_a_server_the_answer_is_an_error_in_time() {
    let mut server = Started::start();
    let redis = client(&server.url());
    set(&redis, "a", "1").await.unwrap();
    server.kill();
    let since = Instant::now();
    for _ in 0..5 {
        assert!(get(&redis, "a").await.is_err());
    }
    assert!(matches!(get(&redis, "a").await, Err(Error::Connect(_))));
    assert!(since.elapsed() < BOUND, "{:?}", since.elapsed());
    server.restart();
    set(&redis, "a", "2").await.unwrap();
    assert_eq!(get(&redis, "a").await.unwrap().as_deref(), Some("2"));
}

#[tokio::test]
async fn a_late_answer_meets_nobody() {
    let server = Started::start();
    let redis = client(&server.url());
    set(&redis, "a", "first").await.unwrap();
    set(&redis, "b", "second").await.unwrap();
    server.pause();
    let since = Instant::now();
    assert!(matches!(get(&redis, "a").await, Err(Error::Timeout(TIMEOUT))));
    assert!(since.elapsed() < BOUND, "{:?}", since.elapsed());
    server.go_on();
    assert_eq!(get(&redis, "b").await.unwrap().as_deref(), Some("second"));
}

#[tokio::test]
async fn an_error_of_the_server_is_told_and_the_next_command_is_none_the_wiser() {
    let server = Started::start();
    let redis = client(&server.url());
    server.command(&["LPUSH", "list", "x"]);
    let error = get(&redis, "list").await.unwrap_err();
    assert!(matches!(&error, Error::Command(error) if error.code() == Some("WRONGTYPE")), "{error}");
    assert_eq!(get(&redis, "none").await.unwrap(), None);
}

#[tokio::test]
async fn commands_at_once_share_few_connections() {
    let server = Started::start();
    let redis = client(&server.url());
    let all = (0..64).map(|n| {
        let redis = redis.clone();
        tokio::spawn(async move { set(&redis, &format!("k{n}"), "v").await })
    });
    for one in all.collect::<Vec<_>>() {
        // On a busy machine one may wait too long for its turn: that is told, and it is not more than that.
        let outcome = one.await.unwrap();
        assert!(matches!(outcome, Ok(()) | Err(Error::ConnectTimeout(_) | Error::Timeout(_))), "{outcome:?}");
    }
    let clients = server.command(&["CLIENT", "LIST"]).text().lines().count();
    assert!(clients <= 5, "four, and the one that asks: {clients}");
    assert!(clients >= 2 && server.behind_resp3().is_empty(), "{:?}", server.behind_resp3());
}

/// It was given up after the time that any other command may take.
#[tokio::test]
async fn a_connection_to_a_cluster_waits_as_long_as_it_is_told_to() {
    const BLOCK: Duration = Duration::from_millis(1_000);
    let nodes = Started::cluster();
    let mut alone = Redis::open(&cluster(&nodes)).unwrap().alone(BOUND).await.unwrap();
    let mut ask = cmd("XREAD");
    ask.arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("STREAMS").arg("log").arg("$");
    let since = Instant::now();
    let answer: Value = ask.query_async(&mut alone).await.unwrap();
    assert_eq!(answer, Value::Nil);
    assert!(since.elapsed() >= BLOCK, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_command_to_a_frozen_cluster_ends_in_time() {
    let nodes = Started::cluster();
    let redis = Redis::open(&cluster(&nodes)).unwrap();
    set(&redis, "a", "1").await.unwrap();
    nodes.iter().for_each(Started::pause);
    let since = Instant::now();
    let outcome = get(&redis, "a").await;
    nodes.iter().for_each(Started::go_on);
    assert!(matches!(outcome, Err(Error::Timeout(TIMEOUT))), "{outcome:?}");
    assert!(since.elapsed() < BOUND, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_subscription_hears_and_ends_with_its_server() {
    let mut server = Started::start();
    let redis = client(&server.url());
    let mut subscription = redis.subscribe(&["one".to_owned(), "two".to_owned()]).await.unwrap();
    server.command(&["PUBLISH", "three", "x"]);
    server.command(&["PUBLISH", "two", "x"]);
    assert_eq!(subscription.next().await.as_deref(), Some("two"));
    server.kill();
    let end = tokio::time::timeout(BOUND, subscription.next()).await;
    assert_eq!(end.expect("it ends"), None);
    assert!(redis.subscribe(&["one".to_owned()]).await.is_err());
}

#[tokio::test]
async fn the_way_to_redis_has_an_address_of_this_machine() {
    let there = |host: &str| Node { host: host.to_owned(), port: 6379 };
    let at = |place: Place| {
        let server = Server { place, database: 0, login: Login::default() };
        let topology = Topology::Single(server);
        Redis::open(&Settings { topology, login: Login::default(), namespace: "t".to_owned(), timeout: TIMEOUT })
            .unwrap()
    };
    let v4 = |ip: IpAddr| ip.is_ipv4();
    let loopback: IpAddr = "127.0.0.1".parse().unwrap();
    assert_eq!(at(Place::Tcp(there("127.0.0.1"))).local_address(v4).await.unwrap(), loopback);
    assert_eq!(at(Place::Unix("/run/redis.sock".into())).local_address(v4).await.unwrap(), loopback);
    let none = at(Place::Tcp(there("127.0.0.1"))).local_address(|ip| ip.is_ipv6()).await;
    assert!(matches!(none, Err(Error::Route(_))), "{none:?}");
    let unknown = at(Place::Tcp(there("no-such-host.invalid"))).local_address(v4).await;
    assert!(matches!(unknown, Err(Error::Route(_))), "{unknown:?}");
}
