//! Services that find each other through Redis, and what clients notice of its troubles: nothing.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use troupe_testkit::load::{Load, Plan};
use troupe_testkit::redis::{Redis, SlowRoad};
use troupe_testkit::stack::{self, Instance, Stack};
use troupe_testkit::wait;

use crate::support::{binary, functions};

/// Ten times what healing takes.
const HEAL: Duration = Duration::from_secs(100);
/// Longer than a beat lasts: by then an instance that does not beat is gone from Redis.
const LONG: Duration = Duration::from_secs(8);
/// Requests between two steps.
const SOME: usize = 150;
const QUIET: &str = "gateway.access_log = false\n";

fn load(stack: &Stack) -> Load {
    Load::start(&Plan {
        addresses: stack.addresses.clone(),
        clients: 16,
        method: "GET",
        body: b"",
        target: "/api/sleep?ms=30",
        pause: Duration::from_millis(10),
    })
}

/// Ends the load; every request has to have been answered with 200.
fn nothing_failed(load: Load) {
    let (records, _) = load.stop();
    let failed: Vec<_> = records.iter().filter(|record| !record.served()).collect();
    assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), records.len());
}

fn lines(instance: &Instance, part: &str) -> usize {
    instance.log().lines().filter(|line| line.contains(part)).count()
}

/// Waits until the balancer has links to so many php-pools.
fn await_workers(stack: &mut Stack, count: usize) {
    let balancer = stack.instance("balancer");
    wait::until(&format!("{count} workers"), HEAL, || {
        let metrics = balancer.admin("/metrics")?.text();
        let line = metrics.lines().find(|line| line.starts_with("troupe_balancer_workers_ready"))?;
        (line.rsplit(' ').next()?.parse() == Ok(count)).then_some(())
    });
}

#[test]
fn redis_is_not_needed_to_start() {
    let mut redis = Redis::start();
    redis.kill();
    let plan = stack::Plan::apart().through_redis(redis.url()).without_answer();
    let mut stack = plan.start(binary(), &functions(), &format!("mesh.connect_wait = \"500ms\"\n{QUIET}"));
    let answer = stack.get("/api/hello");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    for service in ["gateway", "balancer", "php-pool"] {
        let instance = stack.instance(service);
        wait::until("the outage to be told", HEAL, || (lines(instance, "redis is away") > 0).then_some(()));
    }
    redis.restart();
    stack.await_serving(HEAL);
    for service in ["gateway", "balancer", "php-pool"] {
        let instance = stack.instance(service);
        wait::until("its end to be told", HEAL, || (lines(instance, "redis is back") > 0).then_some(()));
    }
}

#[test]
fn with_peers_redis_is_not_needed_to_serve_either() {
    let mut redis = Redis::start();
    redis.kill();
    let plan = stack::Plan::apart().through_redis(redis.url()).and_peers();
    let mut stack = plan.start(binary(), &functions(), QUIET);
    let load = load(&stack);
    load.run(SOME);
    redis.restart();
    wait::until("the php-pool to register", HEAL, || {
        (redis.command(&["ZCARD", "troupe:{php-pool}:members"]).number() == 1).then_some(())
    });
    thread::sleep(LONG / 2);
    load.run(SOME);
    nothing_failed(load);
    assert_eq!(lines(stack.instance("balancer"), "instance found"), 1);
}

#[test]
fn a_cluster_and_sentinels_serve_by_configuration() {
    let nodes = Redis::cluster();
    let master = Redis::start_with(&["--requirepass", "hunter2"]);
    let sentinel = master.sentinel(0);
    let home = tempfile::TempDir::new().unwrap();
    let password = home.path().join("redis.password");
    std::fs::write(&password, "hunter2\n").unwrap();
    let in_cluster = vec![
        "redis.mode=cluster".to_owned(),
        format!("redis.nodes=[\"{}\", \"{}\"]", nodes[0].address(), nodes[1].address()),
        "redis.namespace=shop".to_owned(),
    ];
    let by_sentinel = vec![
        "redis.mode=sentinel".to_owned(),
        format!("redis.nodes=[\"{}\"]", sentinel.address()),
        format!("redis.password_file={password:?}"),
        "redis.database=3".to_owned(),
    ];
    for settings in [in_cluster, by_sentinel] {
        let plan = stack::Plan::apart().through_redis_with(settings);
        let stack = plan.start(binary(), &functions(), QUIET);
        assert_eq!(stack.get("/api/hello").status, 200, "{}", stack.logs());
        assert!(!stack.logs().contains("hunter2"));
    }
    let found: Vec<String> = nodes.iter().flat_map(|node| node.command(&["KEYS", "shop:*"]).texts()).collect();
    assert!(found.iter().any(|key| key == "shop:{php-pool}:members"), "{found:?}");
}

#[test]
fn redis_dies_comes_back_is_flushed_freezes_and_slows_down_and_no_request_fails() {
    let mut redis = Redis::start();
    let road = SlowRoad::to(redis.address());
    let url = format!("redis://{}", road.address());
    let mut stack = stack::Plan::apart().two("php-pool").through_redis(url).start(binary(), &functions(), QUIET);
    await_workers(&mut stack, 2);
    let load = load(&stack);
    load.run(SOME);

    let told = |stack: &mut Stack| lines(stack.instance("balancer"), "redis is away");
    let before = told(&mut stack);
    redis.kill();
    thread::sleep(LONG);
    load.run(SOME);
    assert_eq!(told(&mut stack) - before, 1, "one line for one outage: {}", stack.instance("balancer").log());
    redis.restart();
    thread::sleep(LONG);
    load.run(SOME);

    for _ in 0..20 {
        redis.command(&["FLUSHALL"]);
        thread::sleep(Duration::from_millis(200));
    }
    load.run(SOME);

    redis.pause();
    thread::sleep(LONG);
    load.run(SOME);
    redis.go_on();
    load.run(SOME);

    road.slow_down(Duration::from_millis(30));
    thread::sleep(LONG / 2);
    road.slow_down(Duration::from_millis(500));
    thread::sleep(LONG);
    load.run(SOME);
    road.slow_down(Duration::ZERO);
    thread::sleep(LONG / 2);
    load.run(SOME);
    nothing_failed(load);

    // All the while the same two: nobody was lost and found again.
    let balancer = stack.instance("balancer");
    assert_eq!(lines(balancer, "instance found"), 2, "{}", balancer.log());
    await_workers(&mut stack, 2);
    wait::until("redis to know both", HEAL, || {
        (redis.command(&["ZCARD", "troupe:{php-pool}:members"]).number() == 2).then_some(())
    });
}

#[test]
fn php_pools_come_go_die_and_start_anew_and_no_request_fails() {
    let redis = Redis::start();
    let mut stack = stack::Plan::apart().through_redis(redis.url()).start(binary(), &functions(), QUIET);
    let load = load(&stack);
    load.run(SOME);
    // One more.
    stack.add("php-pool");
    await_workers(&mut stack, 2);
    load.run(SOME);
    // The first one stops, and says so before it does.
    let first = stack.instance_at("php-pool", 0);
    first.signal(Signal::TERM);
    let status = first.wait();
    assert_eq!(status.code(), Some(0), "{}", first.log());
    load.run(SOME);
    await_workers(&mut stack, 1);
    // It starts anew where it was.
    stack.instance_at("php-pool", 0).restart();
    await_workers(&mut stack, 2);
    load.run(SOME);
    // The second dies without a word and starts anew.
    stack.instance_at("php-pool", 1).kill();
    load.run(SOME);
    stack.instance_at("php-pool", 1).restart();
    await_workers(&mut stack, 2);
    load.run(SOME);
    nothing_failed(load);
    let members = redis.command(&["ZCARD", "troupe:{php-pool}:members"]).number();
    assert!(members <= 3, "two, and for a while the one that stopped: {members}");
}

#[test]
fn a_rolling_restart_of_balancers_that_redis_knows_fails_no_request() {
    let redis = Redis::start();
    let plan = stack::Plan::apart().two("balancer").through_redis(redis.url());
    let mut stack = plan.start(binary(), &functions(), QUIET);
    let both = "troupe:{balancer}:members";
    wait::until("both to register", HEAL, || (redis.command(&["ZCARD", both]).number() == 2).then_some(()));
    stack.instance_at("balancer", 1).await_ready();
    let load = load(&stack);
    load.run(SOME);
    for index in 0..2 {
        let balancer = stack.instance_at("balancer", index);
        balancer.signal(Signal::TERM);
        let status = balancer.wait();
        assert_eq!(status.code(), Some(0), "{}", balancer.log());
        load.run(SOME);
        balancer.restart();
        balancer.await_ready();
        let gateway = stack.instance("gateway");
        wait::until("a link to it", HEAL, || (lines(gateway, "link up") >= 3 + index).then_some(()));
        load.run(SOME);
    }
    nothing_failed(load);
}
