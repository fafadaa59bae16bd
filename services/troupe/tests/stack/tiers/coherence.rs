//! After the answer to a purge no gateway gives what was purged, whatever happens meanwhile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use troupe_testkit::http::Connection;
use troupe_testkit::redis::Redis;
use troupe_testkit::stack::{self, Stack};
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::wait;

use super::{BOUND, Origin, await_live, embedded, get, in_redis, metric, purge, version};
use crate::support::{binary, functions};

/// Readers that ask all gateways without a pause, and check each answer: it is of a version no older than the one whose
/// purge was answered before the request was sent.
pub(super) struct Readers {
    purged: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<u64>>,
}

impl Readers {
    pub(super) fn start(addresses: &[SocketAddr], target: &'static str) -> Self {
        let (purged, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let read = |address: SocketAddr| {
            let (purged, over) = (Arc::clone(&purged), Arc::clone(&over));
            thread::spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                let mut answers = 0;
                while !over.load(Ordering::SeqCst) {
                    let least = purged.load(Ordering::SeqCst);
                    let answer = connection.request("GET", target, &[], b"").unwrap();
                    let status = answer.header("cache-status").to_owned();
                    assert!(version(&answer) >= least, "{} after {least} at {address}: {status}", answer.text());
                    answers += 1;
                }
                answers
            })
        };
        let threads = addresses.iter().map(|address| read(*address)).collect();
        Self { purged, over, threads }
    }

    /// No version before this one is to be seen any more.
    pub(super) fn purged(&self, version: u64) {
        self.purged.store(version, Ordering::SeqCst);
    }

    /// Ends them; how many answers they saw. Panics when one saw what it must not.
    pub(super) fn stop(self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().expect("a reader saw what was purged")).sum()
    }
}

/// Makes a new version and purges the one before, so often.
pub(super) fn churn(origin: &Origin, readers: &Readers, times: u64, purge: impl Fn(u64)) {
    for _ in 0..times {
        let version = origin.version.fetch_add(1, Ordering::SeqCst) + 1;
        purge(version);
        readers.purged(version);
    }
}

pub(super) fn admins(stack: &Stack) -> Vec<SocketAddr> {
    stack.instances.iter().filter(|instance| instance.service == "gateway").map(|instance| instance.admin).collect()
}

pub(super) const QUERIES: [&str; 6] = [
    "url=http://troupe.test/a",
    "group=things",
    "prefix=http://troupe.test/",
    "host=troupe.test",
    "all=true",
    "url=http://troupe.test/a&soft=true",
];

#[test]
fn after_a_purge_no_gateway_gives_what_was_purged() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = embedded(4, &origin.config(""));
    let readers = Readers::start(&stack.addresses, "/a");
    let admins = admins(&stack);
    churn(&origin, &readers, 300, |version| {
        let admin = admins[version as usize % admins.len()];
        let answer = purge(admin, QUERIES[version as usize % QUERIES.len()]);
        assert_eq!((answer.status, answer.json()["lapsed"].as_u64()), (200, Some(0)), "{}", answer.text());
    });
    let answers = readers.stop();
    assert!(answers > 300, "{answers}");
    // Purges did not just switch the cache off.
    assert!((origin.asked("/a") as u64) < answers, "{answers} answers, {} fetches", origin.asked("/a"));
    for address in &stack.addresses {
        get(*address, "/a");
        assert!(get(*address, "/a").header("cache-status").starts_with("troupe-l1; hit"));
    }
}

#[test]
fn the_answer_counts_what_was_found_and_who_confirmed() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = embedded(3, &origin.config(""));
    for address in &stack.addresses {
        get(*address, "/a");
        get(*address, "/b");
    }
    let told = purge(stack.instance("gateway").admin, "url=http://troupe.test/a").json();
    assert_eq!(
        (told["urls"].as_u64(), told["confirmed"].as_u64(), told["lapsed"].as_u64()),
        (Some(3), Some(3), Some(0))
    );
    // At the service's own listener as well.
    let told = purge(stack.instance("cache").admin, "group=things").json();
    assert_eq!((told["urls"].as_u64(), told["responses"].as_u64()), (Some(3), Some(3)));
    assert_eq!(purge(stack.instance("cache").admin, "all=true").json()["urls"], 0);
}

#[test]
fn a_frozen_gateway_is_waited_for_until_it_has_nothing_fresh() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = embedded(2, &origin.config(""));
    let addresses = stack.addresses.clone();
    for address in &addresses {
        assert_eq!(version(&get(*address, "/a")), 1);
    }
    stack.instance_at("gateway", 1).signal(Signal::STOP);
    origin.version.store(2, Ordering::SeqCst);
    let told = purge(stack.instance("gateway").admin, "url=http://troupe.test/a").json();
    assert_eq!((told["confirmed"].as_u64(), told["lapsed"].as_u64()), (Some(1), Some(1)));
    // The request waits in its socket; it is answered the moment the gateway runs again, before that has heard anything.
    let late = thread::spawn(move || version(&get(addresses[1], "/a")));
    thread::sleep(Duration::from_millis(100));
    stack.instance_at("gateway", 1).signal(Signal::CONT);
    assert_eq!(late.join().unwrap(), 2);
}

#[test]
fn without_the_service_what_is_stored_is_validated_and_stands_in_for_errors() {
    let origin = Origin::start("max-age=600\r\nETag: \"x\"", Duration::ZERO);
    let mut stack = embedded(1, &origin.config("cache.stale_when_cut = \"10m\""));
    let address = stack.addresses[0];
    assert_eq!(version(&get(address, "/a")), 1);
    stack.instance("cache").kill();
    wait::until("the gateway to be cut off", BOUND, || {
        (!get(address, "/a").header("cache-status").starts_with("troupe-l1; hit")).then_some(())
    });
    origin.version.store(2, Ordering::SeqCst);
    assert_eq!(version(&get(address, "/a")), 2, "what is stored is not believed");
    origin.version.store(0, Ordering::SeqCst);
    let stale = get(address, "/a");
    assert!(stale.header("cache-status").contains("detail=origin-failed"), "{:?}", stale.headers);
    assert_eq!(version(&stale), 2);
    origin.version.store(3, Ordering::SeqCst);
    stack.restart("cache");
    await_live(&stack);
    assert_eq!(version(&get(address, "/a")), 3, "it may have missed a purge");
    assert!(get(address, "/a").header("cache-status").starts_with("troupe-l1; hit"));
    assert!(metric(&stack, "gateway", "troupe_gateway_cache_cuts_total") >= 1.0);
}

#[test]
fn what_is_purged_stays_purged_while_the_service_dies_and_comes_back() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = embedded(3, &origin.config(""));
    let readers = Readers::start(&stack.addresses, "/a");
    let admin = stack.instance("gateway").admin;
    for _ in 0..4 {
        stack.instance("cache").kill();
        stack.restart("cache");
        churn(&origin, &readers, 10, |_| {
            // While no service answers, a purge says so and is tried again.
            wait::until("a purge", BOUND, || (purge(admin, "url=http://troupe.test/a").status == 200).then_some(()));
        });
    }
    readers.stop();
}

/// A watch is a call without an end: it must not keep an instance from stopping, nor look like a link that broke.
#[test]
fn services_and_gateways_stop_in_order_although_they_watch() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = embedded(1, &origin.config(""));
    stack.instance("cache").signal(Signal::TERM);
    assert!(stack.instance("cache").wait().success(), "{}", stack.instance("cache").log());
    stack.restart("cache");
    await_live(&stack);
    stack.instance("gateway").signal(Signal::TERM);
    assert!(stack.instance("gateway").wait().success());
    let log = stack.instance("cache").log();
    assert!(!log.contains("link lost"), "{log}");
}

#[test]
fn an_unsafe_request_at_one_gateway_is_heard_by_the_others() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = embedded(2, &origin.config(""));
    for address in &stack.addresses {
        assert_eq!(version(&get(*address, "/a")), 1);
    }
    origin.version.store(2, Ordering::SeqCst);
    let mut connection = Connection::open(stack.addresses[0]).unwrap();
    assert_eq!(version(&connection.request("POST", "/a", &[], b"x").unwrap()), 2);
    assert_eq!(version(&get(stack.addresses[0], "/a")), 2, "at once where it was made");
    wait::until("the other gateway to hear of it", BOUND, || {
        (version(&get(stack.addresses[1], "/a")) == 2).then_some(())
    });
}

/// The configuration names no cache services here: they are found. Two with a store each would tell two truths.
#[test]
fn two_embedded_services_are_believed_neither() {
    let redis = Redis::start();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let plan = stack::Plan::apart().several("gateway", 2).several("cache", 2).through_redis(redis.url());
    let mut stack = plan.start(binary(), &functions(), &origin.config("cache.l2 = \"embedded\""));
    let gateway = stack.instance_at("gateway", 0).admin;
    wait::until("a gateway to notice", BOUND, || {
        stack.instance_at("gateway", 0).log().contains("several cache services").then_some(())
    });
    wait::until("nothing to be believed", BOUND, || {
        (metric(&stack, "gateway", "troupe_gateway_cache_live") == 0.0).then_some(())
    });
    for n in 1..=3 {
        origin.version.store(n, Ordering::SeqCst);
        assert_eq!(version(&get(stack.addresses[0], "/a")), n, "it is validated");
    }
    let refused = purge(gateway, "all=true");
    assert!(refused.status == 503 && refused.text().contains("stop all but one"), "{}", refused.text());
    stack.instance("cache").kill();
    await_live(&stack);
    assert_eq!(purge(gateway, "all=true").status, 200);
}

/// What replaces an answer that is still fresh makes the other gateways forget theirs, in either store.
#[test]
fn who_replaces_what_is_fresh_tells_the_others() {
    let redis = Redis::start();
    for in_redis_too in [false, true] {
        let origin = Origin::start("max-age=600", Duration::ZERO);
        let config = origin.config("");
        let stack = if in_redis_too { in_redis(2, 1, &redis, &config) } else { embedded(2, &config) };
        for address in &stack.addresses {
            assert_eq!(version(&get(*address, "/a")), 1);
        }
        wait::until("both to have it", BOUND, || {
            let there = |address| get(address, "/a").header("cache-status").starts_with("troupe-l1; hit");
            stack.addresses.iter().all(|address| there(*address)).then_some(())
        });
        origin.version.store(2, Ordering::SeqCst);
        let mut connection = Connection::open(stack.addresses[1]).unwrap();
        let anew = connection.request("GET", "/a", &[("Cache-Control", "no-cache")], b"").unwrap();
        assert_eq!(version(&anew), 2);
        wait::until("the other to forget its own", BOUND, || {
            (version(&get(stack.addresses[0], "/a")) == 2).then_some(())
        });
    }
}

/// What was asked for before a soft purge of everything is stale after it, though it came later and replaced what was fresh.
#[test]
fn a_soft_purge_of_everything_is_about_what_is_on_its_way_too() {
    let redis = Redis::start();
    for in_redis_too in [false, true] {
        let origin = Origin::start("max-age=600", Duration::from_millis(500));
        let config = origin.config("");
        let stack = if in_redis_too { in_redis(2, 1, &redis, &config) } else { embedded(2, &config) };
        for address in &stack.addresses {
            assert_eq!(version(&get(*address, "/a")), 1);
        }
        origin.version.store(2, Ordering::SeqCst);
        let (asked, address) = (origin.asked("/a"), stack.addresses[1]);
        let fetching = std::thread::spawn(move || {
            let mut connection = Connection::open(address).unwrap();
            version(&connection.request("GET", "/a", &[("Cache-Control", "no-cache")], b"").unwrap())
        });
        wait::until("the origin to be asked", BOUND, || (origin.asked("/a") > asked).then_some(()));
        let told = purge(admins(&stack)[0], "all=true&soft=true");
        assert_eq!(told.status, 200, "{}", told.text());
        assert_eq!(fetching.join().unwrap(), 2, "whoever asked before has it");
        origin.version.store(3, Ordering::SeqCst);
        assert_eq!(version(&get(stack.addresses[0], "/a")), 3, "in redis: {in_redis_too}");
    }
}

/// RFC 9875 §3: an answer to an unsafe request names the groups that it has changed, and every gateway forgets them.
#[test]
fn a_group_that_an_unsafe_request_changes_is_forgotten_by_every_gateway() {
    let current = Arc::new(AtomicU64::new(1));
    let said = Arc::clone(&current);
    let server = Upstream::start(move |exchange| {
        exchange.read_body()?;
        let (fields, body) = match exchange.request.method() {
            "POST" => ("Cache-Group-Invalidation: \"things\"", "changed".to_owned()),
            _ => (
                "Cache-Control: max-age=600\r\nCache-Groups: \"things\"",
                format!("version {}", said.load(Ordering::SeqCst)),
            ),
        };
        exchange.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))?;
        Ok(Then::Keep)
    });
    let origin = Origin { server, version: Arc::clone(&current) };
    let stack = embedded(2, &origin.config(""));
    for address in &stack.addresses {
        assert_eq!(version(&get(*address, "/a")), 1);
    }
    current.store(2, Ordering::SeqCst);
    assert_eq!(version(&get(stack.addresses[0], "/a")), 1, "it is fresh");
    let mut connection = Connection::open(stack.addresses[1]).unwrap();
    assert_eq!(connection.request("POST", "/b", &[], b"").unwrap().text(), "changed");
    for address in &stack.addresses {
        wait::until("the group to be forgotten", BOUND, || (version(&get(*address, "/a")) == 2).then_some(()));
    }
}

/// A network in front is told behind the answer to a purge, in its own words.
#[test]
fn a_purge_is_told_to_the_network_in_front() {
    let network = Upstream::start(|exchange| {
        exchange.read_body()?;
        exchange.answer(200, "{}")
    });
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let cdn = format!(
        "[cache.cdn]\npreset = \"custom\"\nurl = \"http://{}/purge?host={{host}}\"\n[cache.cdn.bodies]\nhost = \"{{host}}\"\n",
        network.address
    );
    let stack = embedded(2, &format!("{}{cdn}", origin.config("")));
    get(stack.addresses[0], "/a");
    let told = purge(admins(&stack)[0], "host=shop.test");
    assert!(told.status == 200 && told.text().contains("told behind this answer"), "{}", told.text());
    wait::until("the network to be told", BOUND, || {
        network.requests().iter().any(|request| request.target() == "/purge?host=shop.test").then_some(())
    });
    assert_eq!(network.requests().len(), 1, "once, by the gateway that was asked");
}
