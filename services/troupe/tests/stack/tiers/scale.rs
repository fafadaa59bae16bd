//! Purges by the thousand, many at once, with four gateways, while the connections by which the cache services hear of them are killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use troupe_testkit::http::Connection;
use troupe_testkit::redis::Redis;
use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::wait;

use super::coherence::admins;
use super::{BOUND, Origin, in_redis, version};

const TARGETS: usize = 256;
/// For how long the figure is taken, and how many purges a second it is to show.
const FIGURE: Duration = Duration::from_secs(10);
const PER_SECOND: f64 = 1000.0;

/// What each target is now, and the oldest version that may be seen of it.
struct Versions {
    now: Vec<AtomicU64>,
    least: Vec<AtomicU64>,
}

/// What came of a run.
struct Ran {
    /// How long each purge took from its first order to its confirmation.
    took: Vec<Duration>,
    /// Connections that were killed.
    killed: usize,
    /// Answers that were looked at.
    answers: u64,
}

fn versions() -> Arc<Versions> {
    let ones = || (0..TARGETS).map(|_| AtomicU64::new(1)).collect();
    Arc::new(Versions { now: ones(), least: ones() })
}

fn origin(versions: &Arc<Versions>) -> Origin {
    let versions = Arc::clone(versions);
    let server = Upstream::start(move |exchange| {
        let target: usize = exchange.request.target().trim_start_matches("/item/").parse().unwrap_or(0);
        let body = format!("version {}", versions.now[target].load(Ordering::SeqCst));
        let length = body.len();
        exchange
            .send(format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {length}\r\n\r\n{body}"))?;
        Ok(Then::Keep)
    });
    Origin { server, version: Arc::default() }
}

/// Kills the connections on which cache services wait for purges; how many there were.
fn kill_push_connections(redis: &Redis) -> usize {
    let clients = redis.command(&["CLIENT", "LIST"]).text();
    let waiting = clients.lines().filter(|line| line.contains("cmd=xread"));
    let ids: Vec<_> = waiting.filter_map(|line| line.split(' ').next()?.strip_prefix("id=")).collect();
    for id in &ids {
        redis.command(&["CLIENT", "KILL", "ID", id]);
    }
    ids.len()
}

/// `orderers` threads purge targets of their own one after the other, each a new version first, as long as `goes_on` says with
/// the number of purges so far. One reader per gateway makes sure that no answer is older than the purges confirmed before it was asked
/// for. Whenever `kill_after` more purges are done, all push connections are killed.
fn run(
    (stack, redis, versions): (&Stack, &Redis, &Arc<Versions>),
    orderers: usize,
    kill_after: usize,
    goes_on: impl Fn(usize) -> bool + Sync,
) -> Ran {
    let (done, over, admins) = (AtomicUsize::new(0), AtomicBool::new(false), admins(stack));
    let order = |part: usize| {
        let mut connection = Connection::open(admins[part % admins.len()]).unwrap();
        let mut took = Vec::new();
        for target in (part..TARGETS).step_by(orderers).cycle() {
            if !goes_on(done.load(Ordering::SeqCst)) {
                break;
            }
            let version = versions.now[target].fetch_add(1, Ordering::SeqCst) + 1;
            let head = format!(
                "POST /api/cache/purge?url=http://troupe.test/item/{target} HTTP/1.1\r\nHost: localhost\r\n\
                 Content-Length: 0\r\nX-Troupe-Request: 1\r\n\r\n"
            );
            let began = Instant::now();
            wait::until("a purge to be confirmed", BOUND, || {
                connection.send(head.as_bytes()).unwrap();
                (connection.response(false).unwrap().status == 200).then_some(())
            });
            took.push(began.elapsed());
            versions.least[target].store(version, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
        }
        took
    };
    let read = |address| {
        let mut connection = Connection::open(address).unwrap();
        let mut answers = 0;
        for target in (0..TARGETS).cycle() {
            if over.load(Ordering::SeqCst) {
                break;
            }
            let least = versions.least[target].load(Ordering::SeqCst);
            let answer = connection.request("GET", &format!("/item/{target}"), &[], b"").unwrap();
            let said = answer.header("cache-status");
            assert!(version(&answer) >= least, "{} of {target} after {least} at {address}: {said}", answer.text());
            answers += 1;
        }
        answers
    };
    thread::scope(|scope| {
        let readers: Vec<_> = stack.addresses.iter().map(|address| scope.spawn(|| read(*address))).collect();
        let orders: Vec<_> = (0..orderers).map(|part| scope.spawn(move || order(part))).collect();
        let (mut killed, mut next) = (0, kill_after);
        while !orders.iter().all(thread::ScopedJoinHandle::is_finished) {
            if done.load(Ordering::SeqCst) >= next {
                next += kill_after;
                killed += kill_push_connections(redis);
            }
            thread::sleep(Duration::from_millis(1));
        }
        let took = orders.into_iter().flat_map(|order| order.join().expect("a purge was not confirmed")).collect();
        over.store(true, Ordering::SeqCst);
        let answers = readers.into_iter().map(|reader| reader.join().expect("a reader saw what was purged")).sum();
        Ran { took, killed, answers }
    })
}

#[test]
fn a_thousand_purges_are_kept_by_four_gateways_while_push_connections_are_killed() {
    let (redis, versions) = (Redis::start(), versions());
    let origin = origin(&versions);
    let stack = in_redis(4, 2, &redis, &origin.config(""));
    let ran = run((&stack, &redis, &versions), 16, 200, |done| done < 1000);
    assert!(ran.took.len() >= 1000 && ran.killed >= 4, "{} purges, {} killed", ran.took.len(), ran.killed);
    assert!(ran.answers >= 100, "{}", ran.answers);
    super::await_live(&stack);
}

#[test]
#[ignore = "prints figures; for a release build on a machine that does nothing else: make cache ARGS=purges"]
#[allow(clippy::print_stdout, reason = "this is what it is for")]
fn how_many_purges_a_second() {
    let (redis, versions) = (Redis::start(), versions());
    let origin = origin(&versions);
    let stack = in_redis(4, 2, &redis, &origin.config("gateway.max_requests_per_connection = 100_000_000"));
    let until = Instant::now() + FIGURE;
    let mut ran = run((&stack, &redis, &versions), 64, 4000, |_| Instant::now() < until);
    ran.took.sort_unstable();
    let at = |percent: usize| ran.took[(ran.took.len() - 1) * percent / 100].as_micros();
    let rate = ran.took.len() as f64 / FIGURE.as_secs_f64();
    println!(
        "purges of one URL each by 64 who wait for each, 4 gateways with a reader each, 2 cache services: {rate:.0} a second, \
         p50 {} µs, p99 {} µs; push connections killed: {}; answers looked at meanwhile: {}",
        at(50),
        at(99),
        ran.killed,
        ran.answers
    );
    assert!(rate >= PER_SECOND, "{rate:.0} purges a second; it has to be {PER_SECOND}");
}
