//! Figures: how long the second tier takes, and how soon a purge is everywhere. With a release build, on a machine that does
//! nothing else:
//!
//! ```text
//! cargo build --release --bin troupe
//! TROUPE_BINARY=$PWD/target/release/troupe cargo test -p troupe --test stack tiers::figures -- --ignored --nocapture --test-threads 1
//! ```

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use troupe_testkit::http::Connection;
use troupe_testkit::redis::Redis;
use troupe_testkit::upstream::{Then, Upstream};

use super::coherence::admins;
use super::{Origin, get, in_redis, purge, version};

const REQUESTS: usize = 5_000;
const PURGES: usize = 1_000;

/// Prints percentiles of what was measured.
#[allow(clippy::print_stdout, reason = "this is what it is for")]
fn print(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_micros();
    println!("{what}: p50 {} µs, p90 {} µs, p99 {} µs, {} times", at(50), at(90), at(99), took.len());
}

/// The times of so many requests for `target`, one after the other over one connection, whose answers begin with `status`.
fn times(address: std::net::SocketAddr, target: &str, status: &str) -> Vec<Duration> {
    let mut connection = Connection::open(address).unwrap();
    let one = |connection: &mut Connection| {
        let began = Instant::now();
        let answer = connection.request("GET", target, &[], b"").unwrap();
        let took = began.elapsed();
        let said = answer.header("cache-status");
        assert!(said.starts_with(status), "{target}: {said}");
        took
    };
    for _ in 0..200 {
        connection.request("GET", target, &[], b"").unwrap();
    }
    (0..REQUESTS).map(|_| one(&mut connection)).collect()
}

#[test]
#[ignore = "prints figures; for a release build on a machine that does nothing else"]
fn how_long_a_hit_takes_in_either_tier() {
    let redis = Redis::start();
    for size in [100, 10 * 1024] {
        let body = "x".repeat(size);
        let server = Upstream::start(move |exchange| {
            exchange.send(format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: {size}\r\n\r\n{body}"
            ))?;
            Ok(Then::Keep)
        });
        let origin = Origin { server, version: std::sync::Arc::default() };
        let target = format!("/{size}");
        let first = in_redis(1, 1, &redis, &origin.config(""));
        get(first.address, &target);
        print(&format!("{size} bytes from the gateway's memory"), times(first.address, &target, "troupe-l1; hit"));
        drop(first);
        let second = in_redis(1, 1, &redis, &origin.config("cache.l1.size = \"0B\""));
        get(second.address, &target);
        print(&format!("{size} bytes from Redis"), times(second.address, &target, "troupe-l2; hit"));
    }
}

#[test]
#[ignore = "prints figures; for a release build on a machine that does nothing else"]
fn how_soon_a_purge_is_everywhere() {
    let redis = Redis::start();
    for (gateways, caches) in [(1, 1), (4, 1), (4, 2)] {
        let origin = Origin::start("max-age=600", Duration::ZERO);
        let stack = in_redis(gateways, caches, &redis, &origin.config(""));
        let admins = admins(&stack);
        // The first purges of a history wait until nobody can know another one.
        purge(admins[0], "all=true");
        let mut took = Vec::new();
        for n in 0..PURGES {
            for address in &stack.addresses {
                assert_eq!(version(&get(*address, "/a")), n as u64 + 1);
            }
            origin.version.fetch_add(1, Ordering::SeqCst);
            let began = Instant::now();
            let told = purge(admins[n % admins.len()], "url=http://troupe.test/a");
            took.push(began.elapsed());
            assert_eq!(told.json()["confirmed"].as_u64(), Some(gateways as u64), "{}", told.text());
        }
        print(
            &format!("a purge, from its order to its confirmation by {gateways} gateways at {caches} cache services"),
            took,
        );
    }
}
