//! The second tier switched off, and how long it keeps what it is brought.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use troupe_testkit::http::Response;
use troupe_testkit::redis::Redis;
use troupe_testkit::stack::{Plan, Stack};
use troupe_testkit::wait;

use super::coherence::admins;
use super::{BOUND, Origin, embedded, get, in_redis, metric, purge, version};
use crate::support::{binary, functions};

fn status(response: &Response) -> &str {
    response.header("cache-status")
}

/// There is a cache service, and the gateways have nothing to do with it: each is a cache of its own, as in one process.
#[test]
fn without_a_second_tier_each_gateway_is_on_its_own() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let plan = Plan::apart().several("gateway", 2).with_cache().set("gateway", "cache.l2=\"off\"");
    let stack = plan.start(binary(), &functions(), &origin.config(""));
    let (first, second) = (stack.addresses[0], stack.addresses[1]);
    for (address, fetches) in [(first, 1), (second, 2)] {
        let fetched = get(address, "/a");
        assert!(status(&fetched).starts_with("troupe-l1; fwd=uri-miss"), "{}", status(&fetched));
        // Believed from the first answer on: there is nobody to hear of purges from.
        let hit = get(address, "/a");
        assert!(status(&hit).starts_with("troupe-l1; hit"), "{}", status(&hit));
        assert_eq!(origin.asked("/a"), fetches, "it asked nobody but the origin");
    }
    origin.version.store(2, Ordering::SeqCst);
    let told = purge(admins(&stack)[0], "url=http://troupe.test/a");
    assert_eq!((told.status, told.json()["urls"].as_u64()), (200, Some(1)), "{}", told.text());
    assert!(told.json().get("confirmed").is_none(), "nobody else is asked: {}", told.text());
    assert_eq!((version(&get(first, "/a")), version(&get(second, "/a"))), (2, 1), "a purge is the gateway's own");
    assert_eq!(metric(&stack, "gateway", "troupe_gateway_cache_l2_lookups_total"), 0.0);
    assert_eq!(metric(&stack, "cache", "troupe_cache_lookups_total"), 0.0);
    assert_eq!(metric(&stack, "cache", "troupe_cache_watchers"), 0.0);
}

/// For how long the second tier keeps anything; the origin says ten minutes.
const MAX_TTL: Duration = Duration::from_secs(5);
/// How often a gateway may happen not to hear of the cache service just then.
const TRIES: usize = 4;

fn nothing_is_kept_for_longer(origin: &Origin, stack: &Stack) {
    assert_eq!(version(&get(stack.addresses[0], "/a")), 1);
    wait::until("it to be stored", BOUND, || {
        (metric(stack, "cache", "troupe_cache_stores_total{result=\"stored\"}") >= 1.0).then_some(())
    });
    let shared = get(stack.addresses[1], "/a");
    assert!(status(&shared).starts_with("troupe-l2; hit"), "{}", status(&shared));
    thread::sleep(MAX_TTL + Duration::from_secs(1));
    origin.version.store(2, Ordering::SeqCst);
    let later = get(stack.addresses[2], "/a");
    assert!(status(&later).starts_with("troupe-l2; fwd=uri-miss"), "{}", status(&later));
    assert_eq!((version(&later), origin.asked("/a")), (2, 2));
    // What a gateway has is its own affair, and has its own bound. One that has not heard of the cache service for a second
    // believes nothing, which on a busy machine may be just now: then another try.
    let is_hit = |path: &str| status(&get(stack.addresses[0], path)).starts_with("troupe-l1; hit");
    let keeps_another = |number: usize| {
        let path = format!("/other-{number}");
        let _ = get(stack.addresses[0], &path);
        thread::sleep(MAX_TTL + Duration::from_secs(1));
        is_hit(&path)
    };
    assert!(is_hit("/a") || (0..TRIES).any(keeps_another));
}

fn bounded(origin: &Origin) -> String {
    origin.config(&format!("cache.store.max_ttl = \"{}s\"", MAX_TTL.as_secs()))
}

#[test]
fn memory_keeps_nothing_for_longer_than_max_ttl() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    nothing_is_kept_for_longer(&origin, &embedded(3, &bounded(&origin)));
}

#[test]
fn redis_keeps_nothing_for_longer_than_max_ttl() {
    let (redis, origin) = (Redis::start(), Origin::start("max-age=600", Duration::ZERO));
    nothing_is_kept_for_longer(&origin, &in_redis(3, 1, &redis, &bounded(&origin)));
}
