//! A Redis that answers, but late.

use std::time::{Duration, Instant};

use troupe_testkit::redis::{Redis, SlowRoad};
use troupe_testkit::{stack, wait};

use super::{BOUND, Origin, await_live, get, metric, version};
use crate::support::{binary, functions};

/// How late: far more than any request waits.
const LATE: Duration = Duration::from_secs(4);
/// Ten times the 50 ms for which a request waits for Redis where the configuration says nothing else, and far less than an answer of it
/// takes.
const PATIENCE: Duration = Duration::from_millis(500);

#[test]
fn a_slow_redis_holds_no_request_for_longer_than_its_wait() {
    let redis = Redis::start();
    let road = SlowRoad::to(redis.address());
    let origin = Origin::start("max-age=600", Duration::ZERO);
    // With the default for `redis.timeout`.
    let config = format!("cache.l2 = \"redis\"\nredis.url = \"redis://{}\"\n{}", road.address(), origin.config(""));
    let stack = stack::Plan::apart().several("gateway", 2).several("cache", 1).start(binary(), &functions(), &config);
    await_live(&stack);
    let shared = |target: &str| {
        get(stack.addresses[0], target);
        get(stack.addresses[1], target).header("cache-status").starts_with("troupe-l2; hit")
    };
    let mut number = 0;
    let mut is_shared = || {
        number += 1;
        shared(&format!("/shared/{number}")).then_some(())
    };
    wait::until("answers to be shared", BOUND, &mut is_shared);
    get(stack.addresses[0], "/known");

    road.slow_down(LATE);
    let (mut unanswered, mut longest) = (0, Duration::ZERO);
    for number in 0..60 {
        let target = format!("/{number}");
        let began = Instant::now();
        let answer = get(stack.addresses[number % 2], &target);
        longest = longest.max(began.elapsed());
        assert_eq!(version(&answer), 1);
        unanswered += usize::from(answer.header("cache-status").starts_with("troupe-l2; fwd=uri-miss; detail="));
    }
    assert!(longest < PATIENCE, "a request took {longest:?}");
    assert!(unanswered >= 50, "Redis was not slow: {unanswered}");
    assert!(metric(&stack, "gateway", "troupe_gateway_cache_l2_lookups_total") >= 60.0, "it was asked");
    // Who hears nothing of purges for a second validates what it has, and that waits for no Redis either.
    let began = Instant::now();
    assert_eq!(version(&get(stack.addresses[0], "/known")), 1);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());

    road.slow_down(Duration::ZERO);
    await_live(&stack);
    wait::until("answers to be shared again", BOUND, is_shared);
}
