//! Everything at once, at four gateways with memories too small for what is asked of them: whatever a client gets, every byte is
//! of one version that the origin has made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use troupe_testkit::http::{Connection, Response};
use troupe_testkit::redis::Redis;
use troupe_testkit::upstream::{Then, Upstream};

use super::coherence::admins;
use super::{Origin, in_redis, purge};

/// Seconds for which it burns, where `FIRE_SECONDS` does not say otherwise: `make cache ARGS=fire` has it burn for a minute.
const BURNS: u64 = 20;
const TARGETS: u64 = 60;
const CLIENTS: u64 = 3;

/// The whole body of a version: no part of it is a part of another at the same place.
fn body(target: &str, version: u64) -> Vec<u8> {
    let seed = target.bytes().fold(version, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let length = [0, 1, 700, 9_000, 70_000, 300_000][(seed % 6) as usize];
    let word = format!("{target} is {version};");
    let mut body = word.repeat(length / word.len() + 1).into_bytes();
    body.truncate(length);
    body
}

fn origin(version: Arc<AtomicU64>) -> Upstream {
    Upstream::start(move |exchange| {
        exchange.read_body()?;
        let version = version.load(Ordering::SeqCst);
        let tag = format!("\"{version}\"");
        let cached =
            format!("ETag: {tag}\r\nCache-Control: max-age=2, stale-while-revalidate=1\r\nCache-Groups: \"fire\"\r\n");
        if exchange.request.field("if-none-match") == tag {
            exchange.send(format!("HTTP/1.1 304 Not Modified\r\n{cached}\r\n"))?;
            return Ok(Then::Keep);
        }
        let body = body(exchange.request.target(), version);
        exchange.send(format!("HTTP/1.1 200 OK\r\n{cached}Content-Length: {}\r\n\r\n", body.len()))?;
        // In two pieces, so that there is something to break off from.
        let (first, second) = body.split_at(body.len() / 2);
        exchange.send(first)?;
        exchange.send(second)?;
        Ok(Then::Keep)
    })
}

/// What a client makes sure of.
fn check(target: &str, answer: &Response) {
    let version: u64 =
        answer.header("etag").trim_matches('"').parse().unwrap_or_else(|_| panic!("{:?}", answer.headers));
    let whole = body(target, version);
    match answer.status {
        200 => assert!(answer.body == whole, "{target} of version {version}: {:?}", answer.headers),
        206 => {
            let range = answer.header("content-range").trim_start_matches("bytes ");
            let (from, to) = range.split('/').next().and_then(|range| range.split_once('-')).expect("a range");
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            assert!(answer.body == whole[from..=to], "{target} of version {version}, {range}");
        }
        304 | 416 => assert!(answer.body.is_empty()),
        status => panic!("{status} for {target}: {}", answer.text()),
    }
}

fn client(address: SocketAddr, seed: u64, over: &AtomicBool) -> u64 {
    let mut random = seed;
    let mut next = move |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut connection = Connection::open(address).unwrap();
    let mut answers = 0;
    while !over.load(Ordering::SeqCst) {
        let target = format!("/fire/{}", next(TARGETS));
        let answer = match next(10) {
            // The client leaves in the middle of an answer.
            0 => {
                let request = format!("GET {target} HTTP/1.1\r\nHost: troupe.test\r\n\r\n");
                connection.send(request.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(next(3)));
                connection = Connection::open(address).unwrap();
                continue;
            }
            1 | 2 => connection.request(
                "GET",
                &target,
                &[("Range", &format!("bytes={}-{}", next(500), 500 + next(9_000)))],
                b"",
            ),
            3 => connection.request("GET", &target, &[("Cache-Control", "no-cache")], b""),
            _ => connection.request("GET", &target, &[], b""),
        };
        check(&target, &answer.unwrap());
        answers += 1;
    }
    answers
}

#[test]
fn every_byte_is_of_one_version_under_fire() {
    let seconds = std::env::var("FIRE_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(BURNS);
    let redis = Redis::start_with(&["--maxmemory", "24mb", "--maxmemory-policy", "allkeys-lru"]);
    let version = Arc::new(AtomicU64::new(1));
    let origin = Origin { server: origin(Arc::clone(&version)), version: Arc::clone(&version) };
    let stack = in_redis(4, 2, &redis, &origin.config("cache.l1 = { size = \"4MiB\", max_object = \"1MiB\" }"));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = stack
        .addresses
        .iter()
        .flat_map(|address| (0..CLIENTS).map(move |n| (*address, n)))
        .enumerate()
        .map(|(seed, (address, _))| {
            let over = Arc::clone(&over);
            thread::spawn(move || client(address, seed as u64 + 1, &over))
        })
        .collect();
    let (until, admins) = (Instant::now() + Duration::from_secs(seconds), admins(&stack));
    let queries = ["group=fire", "prefix=http://troupe.test/fire/1", "all=true", "all=true&soft=true"];
    for n in 0.. {
        if Instant::now() >= until {
            break;
        }
        version.fetch_add(1, Ordering::SeqCst);
        purge(admins[n % admins.len()], queries[n % queries.len()]);
        thread::sleep(Duration::from_millis(150));
    }
    over.store(true, Ordering::SeqCst);
    let answers: u64 = clients.into_iter().map(|client| client.join().expect("a client got what nobody made")).sum();
    println!("{seconds} s: {answers} answers of {} versions", version.load(Ordering::SeqCst));
    assert!(answers > 300, "{answers}");
}
