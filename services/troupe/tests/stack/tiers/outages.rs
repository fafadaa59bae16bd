//! Redis away, frozen, flushed, full, started anew: requests go on, what was purged stays purged, and it heals by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use troupe_testkit::redis::Redis;
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::{stack, wait};

use super::coherence::{Readers, admins, churn};
use super::{BOUND, Origin, await_live, get, in_redis, in_redis_unlinked, metric, purge, purge_until_done, version};
use crate::support::{binary, functions};

/// Makes a new version and purges the one before, so often, each time by another gateway.
fn replace_and_purge(origin: &Origin, readers: &Readers, admins: &[SocketAddr], times: u64) {
    churn(origin, readers, times, |version| {
        purge_until_done(admins[version as usize % admins.len()], "group=things");
    });
}

#[test]
fn without_redis_requests_are_answered_and_it_heals() {
    let mut redis = Redis::start();
    redis.kill();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = in_redis_unlinked(2, 1, &redis, &origin.config(""));
    for n in 0..20 {
        assert_eq!(version(&get(stack.addresses[n % 2], "/a")), 1);
    }
    let told = purge(stack.instance("gateway").admin, "url=http://troupe.test/a");
    assert_eq!(told.status, 503, "{}", told.text());
    redis.restart();
    await_live(&stack);
    wait::until("it to be shared", BOUND, || {
        let target = "/b";
        get(stack.addresses[0], target);
        get(stack.addresses[1], target).header("cache-status").contains("hit").then_some(())
    });
}

#[test]
fn a_redis_that_dies_freezes_and_forgets_loses_no_purge() {
    let mut redis = Redis::start();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = in_redis(3, 2, &redis, &origin.config(""));
    let readers = Readers::start(&stack.addresses, "/a");
    let admins = admins(&stack);
    let purges = |times| replace_and_purge(&origin, &readers, &admins, times);
    purges(10);
    redis.kill();
    thread::sleep(Duration::from_millis(300));
    redis.restart();
    purges(10);
    for _ in 0..5 {
        redis.command(&["FLUSHALL"]);
        purges(3);
    }
    redis.pause();
    thread::sleep(Duration::from_millis(2500));
    assert!(metric(&stack, "gateway", "troupe_gateway_cache_live") == 0.0, "who hears nothing believes nothing");
    redis.go_on();
    purges(10);
    readers.stop();
    await_live(&stack);
}

/// The replica is behind its master: what it does not know of purges it must not be believed about.
#[test]
fn a_fail_over_fails_no_request_and_loses_no_purge() {
    let mut master = Redis::start();
    let replica = master.replica();
    let sentinel = master.sentinel(1);
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let by_sentinel = format!("redis.mode = \"sentinel\"\nredis.nodes = [\"{}\"]", sentinel.address());
    let config = format!("cache.l2 = \"redis\"\n{by_sentinel}\nredis.timeout = \"500ms\"\n{}", origin.config(""));
    let plan = stack::Plan::apart().several("gateway", 3).several("cache", 2);
    let stack = plan.start(binary(), &functions(), &config);
    await_live(&stack);
    let readers = Readers::start(&stack.addresses, "/a");
    let admins = admins(&stack);
    let purges = |times| replace_and_purge(&origin, &readers, &admins, times);
    purges(10);
    master.kill();
    purges(10);
    assert!(replica.command(&["INFO", "replication"]).text().contains("role:master"), "purges went to somebody else");
    assert!(readers.stop() > 0);
    await_live(&stack);
    let mut number = 0;
    wait::until("it to be shared", BOUND, || {
        // What the other gateway had to fetch for itself it has from then on.
        number += 1;
        let target = format!("/b{number}");
        get(stack.addresses[0], &target);
        get(stack.addresses[1], &target).header("cache-status").contains("troupe-l2; hit").then_some(())
    });
    assert!(replica.behind_resp3().is_empty(), "{:?}", replica.behind_resp3());
}

#[test]
fn a_frozen_redis_costs_a_request_no_more_than_its_wait() {
    let redis = Redis::start();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = in_redis(1, 1, &redis, &origin.config(""));
    wait::until("a word on its bounds", BOUND, || stack.logs().contains("redis has no maxmemory").then_some(()));
    redis.pause();
    let began = Instant::now();
    for n in 0..100 {
        let asked = Instant::now();
        assert_eq!(version(&get(stack.addresses[0], &format!("/{n}"))), 1);
        assert!(asked.elapsed() < Duration::from_secs(5), "request {n} took {:?}", asked.elapsed());
    }
    // Five wait for half a second each, then one each second.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    redis.go_on();
}

#[test]
fn a_full_redis_keeps_what_it_has_and_purges_all_the_same() {
    let redis = Redis::start_with(&["--maxmemory", "16mb", "--maxmemory-policy", "noeviction"]);
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = in_redis(2, 1, &redis, &origin.config(""));
    assert_eq!(version(&get(stack.addresses[0], "/a")), 1);
    let ballast = "x".repeat(1 << 16);
    for n in 0..180 {
        redis.command(&["SET", &format!("ballast{n}"), &ballast]);
    }
    wait::until("it to be full", BOUND, || (metric(&stack, "cache", "troupe_cache_redis_full") == 1.0).then_some(()));
    for n in 0..20 {
        assert_eq!(version(&get(stack.addresses[0], &format!("/{n}"))), 1);
    }
    assert!(metric(&stack, "cache", "troupe_cache_stores_total{result=\"no-room\"}") >= 1.0);
    origin.version.store(2, Ordering::SeqCst);
    let told = purge(admins(&stack)[0], "all=true");
    assert_eq!(told.status, 200, "{}", told.text());
    assert_eq!(version(&get(stack.addresses[1], "/a")), 2);
    // Without room for anything at all it is still asked, and told from one that is away.
    redis.command(&["CONFIG", "SET", "maxmemory", "1mb"]);
    for n in 100..120 {
        assert_eq!(version(&get(stack.addresses[0], &format!("/{n}"))), 2);
    }
    assert_eq!(metric(&stack, "gateway", "troupe_gateway_cache_l2_lookups_total{result=\"away\""), 0.0);
    redis.command(&["CONFIG", "SET", "maxmemory", "16mb"]);
    for n in 0..100 {
        redis.command(&["DEL", &format!("ballast{n}")]);
    }
    wait::until("there to be room", BOUND, || {
        (metric(&stack, "cache", "troupe_cache_redis_full") == 0.0).then_some(())
    });
}

/// Who waits for another gateway's fetch does not wait for Redis as well: it fetches for itself when Redis does not answer.
#[test]
fn a_frozen_redis_does_not_hold_those_who_wait_for_another_gateway() {
    let redis = Redis::start();
    let asked = AtomicUsize::new(0);
    let server = Upstream::start(move |exchange| {
        exchange.read_body()?;
        // The first one's is longer than anybody waits here.
        thread::sleep(Duration::from_secs(if asked.fetch_add(1, Ordering::SeqCst) == 0 { 20 } else { 0 }));
        exchange.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 9\r\n\r\nversion 1")?;
        Ok(Then::Keep)
    });
    let origin = Origin { server, version: Arc::default() };
    let stack = in_redis(2, 1, &redis, &origin.config(""));
    let (first, second) = (stack.addresses[0], stack.addresses[1]);
    thread::spawn(move || troupe_testkit::http::get(first, "/a"));
    wait::until("the first to fetch", BOUND, || (origin.server.most_at_once() == 1).then_some(()));
    let waiting = thread::spawn(move || (get(second, "/a"), Instant::now()));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(origin.server.most_at_once(), 1, "the second waits");
    redis.pause();
    let paused = Instant::now();
    let (answer, at) = waiting.join().unwrap();
    assert_eq!(version(&answer), 1);
    assert!(at.duration_since(paused) < Duration::from_secs(6), "{:?}", at.duration_since(paused));
    redis.go_on();
}

/// There is no lease to be had in a Redis that is full; what is stale is made new all the same.
#[test]
fn what_is_stale_is_made_new_though_redis_is_full() {
    let redis = Redis::start_with(&["--maxmemory", "16mb", "--maxmemory-policy", "noeviction"]);
    let origin = Origin::start("max-age=1, stale-while-revalidate=600", Duration::ZERO);
    let stack = in_redis(1, 1, &redis, &origin.config(""));
    assert_eq!(version(&get(stack.addresses[0], "/a")), 1);
    redis.command(&["CONFIG", "SET", "maxmemory", "100kb"]);
    origin.version.store(2, Ordering::SeqCst);
    let renewed = || (version(&get(stack.addresses[0], "/a")) == 2).then_some(());
    wait::until("what is stale to be made new", BOUND, renewed);
}
