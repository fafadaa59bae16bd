//! One fetch for all gateways, whatever becomes of whoever fetches.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use troupe_testkit::http::{self, Connection};
use troupe_testkit::redis::Redis;
use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::wait;

use super::{BOUND, Origin, answer, embedded, get, in_redis, version};

/// Has every gateway asked for `target` by two clients at once.
fn all_at_once(addresses: &[SocketAddr], target: &'static str) -> Vec<u64> {
    let clients: Vec<_> = addresses
        .iter()
        .flat_map(|address| [*address; 2])
        .map(|address| thread::spawn(move || version(&get(address, target))))
        .collect();
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

#[test]
fn eight_gateways_fetch_once() {
    let origin = Origin::start("max-age=600", Duration::from_millis(500));
    let stack = embedded(8, &origin.config(""));
    assert_eq!(all_at_once(&stack.addresses, "/a"), [1; 16]);
    assert_eq!(origin.asked("/a"), 1);
}

#[test]
fn eight_gateways_fetch_once_with_redis() {
    let (redis, origin) = (Redis::start(), Origin::start("max-age=600", Duration::from_millis(500)));
    let stack = in_redis(8, 2, &redis, &origin.config(""));
    assert_eq!(all_at_once(&stack.addresses, "/a"), [1; 16]);
    assert_eq!(origin.asked("/a"), 1);
}

/// What is asked for all the time, by every gateway.
const KEYS: [&str; 4] = ["/a", "/b", "/c", "/d"];
const LIFETIME: Duration = Duration::from_secs(2);
/// How many lifetimes are looked at.
const LIFETIMES: u32 = 12;

/// One fetch per key and lifetime, early refreshes and all: 1.1 at most.
fn eight_gateways_fetch_once_per_lifetime(origin: &Origin, stack: &Stack) {
    let until = Instant::now() + LIFETIME * LIFETIMES;
    let readers: Vec<_> = stack
        .addresses
        .iter()
        .map(|address| {
            let address = *address;
            thread::spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                for key in KEYS.iter().cycle().take_while(|_| Instant::now() < until) {
                    version(&connection.request("GET", key, &[], b"").unwrap());
                    thread::sleep(Duration::from_millis(2));
                }
            })
        })
        .collect();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    for key in KEYS {
        // The first lifetime begins with the first fetch, so one more begins than fits.
        let (fetches, lifetimes) = (origin.asked(key) as f64, f64::from(LIFETIMES + 1));
        assert!(fetches <= 1.1 * lifetimes, "{key}: {fetches} fetches in {lifetimes} lifetimes");
        assert!(fetches >= lifetimes * 0.7, "{key}: {fetches} fetches in {lifetimes} lifetimes");
    }
}

#[test]
fn eight_gateways_fetch_once_per_lifetime_with_one_memory() {
    let origin = Origin::start("max-age=2", Duration::from_millis(20));
    eight_gateways_fetch_once_per_lifetime(&origin, &embedded(8, &origin.config("")));
}

#[test]
fn eight_gateways_fetch_once_per_lifetime_with_redis() {
    let (redis, origin) = (Redis::start(), Origin::start("max-age=2", Duration::from_millis(20)));
    eight_gateways_fetch_once_per_lifetime(&origin, &in_redis(8, 2, &redis, &origin.config("")));
}

/// What a request of the second gateway spends, while the first fetches and when it has, is told stage by stage.
#[test]
fn where_the_time_of_the_tiers_goes_is_told() {
    let origin = Origin::start("max-age=600", Duration::from_millis(1_500));
    let mut stack = embedded(2, &origin.config("node.development = true"));
    let (first, second) = (stack.addresses[0], stack.addresses[1]);
    let holder = thread::spawn(move || get(first, "/a"));
    while origin.server.most_at_once() == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let waited = get(second, "/a").header("server-timing").to_owned();
    let fetched = holder.join().unwrap().header("server-timing").to_owned();
    let stage = |timing: &str, name: &str| -> f64 {
        let found = timing.split(", ").find_map(|stage| stage.strip_prefix(name)?.strip_prefix(";dur="));
        found.unwrap_or("0").parse().unwrap()
    };
    assert!(stage(&waited, "cache-lease") > 500.0 && stage(&waited, "cache-l2") > 0.0, "{waited}");
    assert!(stage(&waited, "upstream") == 0.0, "it was answered by what the first one fetched: {waited}");
    assert!(stage(&fetched, "upstream") > 1_400.0 && stage(&fetched, "cache-l2") > 0.0, "{fetched}");
    wait::until("the gateway to keep it", BOUND, || {
        let slow = stack.instance_at("gateway", 1).admin("/api/slow")?.json().to_string();
        (slow.contains("cache-lease") && slow.contains("cache-l2")).then_some(())
    });
}

#[test]
fn a_holder_that_dies_is_succeeded() {
    let origin = Origin::start("max-age=600", Duration::from_secs(3));
    let mut stack = embedded(2, &origin.config("cache.store.lease = \"2s\""));
    let (first, second) = (stack.addresses[0], stack.addresses[1]);
    let held = thread::spawn(move || troupe_testkit::http::get(first, "/a"));
    while origin.server.most_at_once() == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    stack.instance("gateway").kill();
    assert_eq!(version(&get(second, "/a")), 1);
    assert!(held.join().unwrap().is_err());
    assert_eq!(origin.asked("/a"), 2);
}

#[test]
fn what_is_not_stored_is_waited_for_by_no_gateway() {
    let server = Upstream::start(|exchange| {
        thread::sleep(Duration::from_millis(300));
        exchange.send("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 9\r\n\r\nversion 1")?;
        Ok(Then::Keep)
    });
    let origin = Origin { server, version: std::sync::Arc::default() };
    let stack = embedded(4, &origin.config(""));
    // The first of all says that nobody is to wait; one after the other they would take ten seconds.
    let began = Instant::now();
    for _ in 0..4 {
        all_at_once(&stack.addresses, "/a");
    }
    assert_eq!(origin.asked("/a"), 32);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// As long as another may fetch, its answer is waited for.
#[test]
fn an_origin_that_takes_long_is_asked_once() {
    let origin = Origin::start("max-age=600", Duration::from_secs(7));
    let stack = embedded(3, &origin.config(""));
    all_at_once(&stack.addresses, "/a");
    assert_eq!(origin.asked("/a"), 1);
}

/// How long a lease lasts, and a client waits for half of: much longer than it takes to see that a gateway is gone.
const LONG_LEASE: &str = "cache.store.lease = \"60s\"\ngateway.request_timeout = \"120s\"";

/// An origin that answers everybody but the first, who is kept waiting as long as `held` is there.
fn never_first(held: &Arc<()>) -> (Origin, Arc<AtomicU64>) {
    let (held, asked) = (Arc::downgrade(held), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&asked);
    let server = Upstream::start(move |exchange| {
        exchange.read_body()?;
        let version = counted.fetch_add(1, Ordering::SeqCst) + 1;
        while version == 1 && held.strong_count() > 0 {
            thread::sleep(Duration::from_millis(10));
        }
        answer(exchange, "max-age=600", version)
    });
    (Origin { server, version: Arc::default() }, asked)
}

fn nobody_waits_for_a_gateway_that_is_gone(asked: &AtomicU64, stack: &mut Stack) {
    let (first, second) = (stack.addresses[0], stack.addresses[1]);
    let lost = thread::spawn(move || http::get(first, "/a").is_err());
    wait::until("the first to fetch", BOUND, || (asked.load(Ordering::SeqCst) == 1).then_some(()));
    let waiting = thread::spawn(move || version(&get(second, "/a")));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the second waits for the first");
    let killed = Instant::now();
    stack.instance_at("gateway", 0).kill();
    assert_eq!(waiting.join().unwrap(), 2);
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
    assert!(lost.join().unwrap());
}

/// They waited until the lease's time was up.
#[test]
fn what_a_gateway_fetches_that_is_killed_is_fetched_by_another() {
    let held = Arc::new(());
    let (origin, asked) = never_first(&held);
    nobody_waits_for_a_gateway_that_is_gone(&asked, &mut embedded(2, &origin.config(LONG_LEASE)));
}

#[test]
fn what_a_gateway_fetches_that_is_killed_is_fetched_by_another_with_redis() {
    let (redis, held) = (Redis::start(), Arc::new(()));
    let (origin, asked) = never_first(&held);
    nobody_waits_for_a_gateway_that_is_gone(&asked, &mut in_redis(2, 1, &redis, &origin.config(LONG_LEASE)));
}
