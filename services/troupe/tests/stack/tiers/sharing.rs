//! What one gateway has fetched, another gives.

use std::thread;
use std::time::Duration;

use troupe_testkit::http::Connection;
use troupe_testkit::redis::Redis;
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::wait;

use super::{BOUND, Origin, embedded, get, in_redis, metric, version};

#[test]
fn what_one_gateway_fetched_another_gives() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = embedded(2, &origin.config(""));
    let first = get(stack.addresses[0], "/a");
    let status = first.header("cache-status");
    assert!(status.starts_with("troupe-l2; fwd=uri-miss, troupe-l1; fwd=uri-miss; ttl="), "{status}");
    let second = get(stack.addresses[1], "/a");
    let status = second.header("cache-status");
    assert!(status.starts_with("troupe-l2; hit; ttl=") && status.contains(", troupe-l1; fwd=uri-miss"), "{status}");
    assert_eq!((second.text(), second.header("age").is_empty()), (first.text(), false));
    assert!(get(stack.addresses[1], "/a").header("cache-status").starts_with("troupe-l1; hit"));
    assert_eq!(origin.asked("/a"), 1);
    wait::until("the figures", BOUND, || {
        (metric(&stack, "gateway", "troupe_gateway_cache_l2_lookups_total{result=\"hit\"") >= 1.0
            && metric(&stack, "cache", "troupe_cache_stores_total{result=\"stored\"}") >= 1.0
            && metric(&stack, "cache", "troupe_cache_objects") >= 1.0
            && metric(&stack, "cache", "troupe_cache_watchers") == 2.0)
            .then_some(())
    });
}

/// What is told of a look-up names its route and the tier that answered.
#[test]
fn what_the_second_tier_has_is_counted_for_it_and_by_route() {
    let origin = Origin::start("max-age=2, stale-while-revalidate=600", Duration::ZERO);
    let stack = embedded(2, &origin.config(""));
    let counted = |name: &str| metric(&stack, "gateway", name);
    let requests = |tier: &str, result: &str| {
        let labels = format!("route=\"/{{rest*}}\",tier=\"{tier}\",result=\"{result}\"");
        counted(&format!("troupe_gateway_cache_requests_total{{{labels}}}"))
    };
    let looked = |result: &str| {
        counted(&format!("troupe_gateway_cache_l2_lookups_total{{result=\"{result}\",route=\"/{{rest*}}\"}}"))
    };
    get(stack.addresses[0], "/a");
    wait::until("it to be stored", BOUND, || {
        (metric(&stack, "cache", "troupe_cache_stores_total{result=\"stored\"}") >= 1.0).then_some(())
    });
    thread::sleep(Duration::from_secs(3));
    let stale = get(stack.addresses[1], "/a");
    assert!(stale.header("cache-status").starts_with("troupe-l2; hit; ttl=-"), "{:?}", stale.headers);
    wait::until("it to be counted", BOUND, || (requests("l2", "stale") == 1.0).then_some(()));
    assert_eq!((requests("l1", "stale"), requests("l1", "miss"), requests("l2", "hit")), (0.0, 1.0, 0.0));
    // The first gateway's; the second one was told of what is stale, and asked again for the right to refresh it.
    assert_eq!(looked("miss"), 1.0);
    assert!(looked("stale") >= 1.0);
}

#[test]
fn variants_are_shared_too() {
    let origin = Origin::start("max-age=600\r\nVary: Accept-Language\r\nETag: \"x\"", Duration::ZERO);
    let stack = embedded(2, &origin.config(""));
    let ask = |gateway: usize, language: &str| {
        let mut connection = troupe_testkit::http::Connection::open(stack.addresses[gateway]).unwrap();
        connection.request("GET", "/v", &[("Accept-Language", language)], b"").unwrap()
    };
    for language in ["de", "en"] {
        assert_eq!(version(&ask(0, language)), 1);
    }
    for language in ["de", "en"] {
        let status = ask(1, language).header("cache-status").to_owned();
        assert!(status.starts_with("troupe-l2; hit"), "{language}: {status}");
    }
    assert_eq!(origin.asked("/v"), 2);
}

#[test]
fn a_gateway_without_a_memory_of_its_own_uses_the_shared_one() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = embedded(1, &origin.config("cache.l1.size = \"0B\""));
    assert_eq!(version(&get(stack.addresses[0], "/a")), 1);
    for _ in 0..3 {
        assert!(get(stack.addresses[0], "/a").header("cache-status").starts_with("troupe-l2; hit"));
    }
    assert_eq!(origin.asked("/a"), 1);
}

#[test]
fn a_cache_service_that_is_frozen_costs_a_request_no_more_than_its_wait() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = embedded(1, &origin.config(""));
    let address = stack.addresses[0];
    stack.instance("cache").signal(rustix::process::Signal::STOP);
    let began = std::time::Instant::now();
    for n in 0..100 {
        assert_eq!(version(&get(address, &format!("/{n}"))), 1);
    }
    // Five wait for half a second each, then one each second.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(metric(&stack, "gateway", "troupe_gateway_cache_l2_lookups_total{result=\"unasked\"") >= 50.0);
    stack.instance("cache").signal(rustix::process::Signal::CONT);
    wait::until("it is asked again", BOUND, || {
        // One that nobody has asked for.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let target = format!("/again-{}", now.as_nanos());
        get(address, &target).header("cache-status").starts_with("troupe-l2; fwd=uri-miss, ").then_some(())
    });
}

/// Each tier has a ceiling of its own: what is too old for the first one is taken from the second, and the origin is not asked.
#[test]
fn past_the_ceiling_of_the_first_tier_the_second_is_asked() {
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = embedded(1, &origin.config("cache.l1.max_ttl = \"500ms\""));
    assert_eq!(version(&get(stack.address, "/a")), 1);
    wait::until("it to be stored", BOUND, || {
        (metric(&stack, "cache", "troupe_cache_stores_total{result=\"stored\"}") >= 1.0).then_some(())
    });
    for _ in 0..2 {
        wait::until("the second tier to be asked", BOUND, || {
            let status = get(stack.address, "/a").header("cache-status").to_owned();
            assert!(status.starts_with("troupe-l1; hit") || status.starts_with("troupe-l2; hit"), "{status}");
            status.starts_with("troupe-l2").then_some(())
        });
    }
    assert_eq!(origin.asked("/a"), 1);
}

#[test]
fn what_is_too_large_for_the_first_tier_goes_through_it_to_the_second() {
    let body: String = (0..60_000).map(|n| format!("{n:05}")).collect();
    let sent = body.clone();
    let server = Upstream::start(move |exchange| {
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {}\r\n\r\n{sent}",
            sent.len()
        ))?;
        Ok(Then::Keep)
    });
    let origin = Origin { server, version: std::sync::Arc::default() };
    let stack = embedded(2, &origin.config("cache.l1.max_object = \"64KiB\""));
    assert!(get(stack.addresses[0], "/a").text() == body);
    wait::until("it to be stored", BOUND, || {
        (metric(&stack, "cache", "troupe_cache_stores_total{result=\"stored\"}") >= 1.0).then_some(())
    });
    for address in stack.addresses.iter().chain(&stack.addresses) {
        let again = get(*address, "/a");
        assert!(again.header("cache-status").starts_with("troupe-l2; hit"), "{:?}", again.headers);
        assert!(again.text() == body);
    }
    assert_eq!(origin.asked("/a"), 1);
}

/// RFC 9111 §5.2.1.7: what another gateway has fetched is in the cache, too. Nothing is fetched, and nobody has to wait after it.
#[test]
fn only_if_cached_is_answered_out_of_the_second_tier() {
    let redis = Redis::start();
    for in_redis_too in [false, true] {
        let origin = Origin::start("max-age=600", Duration::ZERO);
        let config = origin.config("");
        let stack = if in_redis_too { in_redis(2, 1, &redis, &config) } else { embedded(2, &config) };
        let only = |gateway: usize, target: &str| {
            let mut connection = Connection::open(stack.addresses[gateway]).unwrap();
            connection.request("GET", target, &[("Cache-Control", "only-if-cached")], b"").unwrap()
        };
        get(stack.addresses[0], "/a");
        wait::until("the second gateway to find it", BOUND, || (only(1, "/a").status == 200).then_some(()));
        assert_eq!(origin.asked("/a"), 1);
        assert_eq!(only(1, "/b").status, 504);
        assert_eq!(origin.asked("/b"), 0);
        assert_eq!(version(&get(stack.addresses[0], "/b")), 1);
        assert_eq!(origin.asked("/b"), 1);
    }
}
