//! The second tier in Redis, with several instances of the cache service in front of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use troupe_testkit::http::Connection;
use troupe_testkit::redis::Redis;
use troupe_testkit::stack::{self, Stack};
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::wait;

use super::coherence::{Readers, admins, churn};
use super::{BOUND, Origin, get, in_redis, metric, purge, purge_until_done, version};

#[test]
fn what_one_gateway_fetched_another_gives_and_a_restart_keeps() {
    let redis = Redis::start();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = in_redis(2, 2, &redis, &origin.config(""));
    assert_eq!(version(&get(stack.addresses[0], "/a")), 1);
    let second = get(stack.addresses[1], "/a");
    assert!(second.header("cache-status").starts_with("troupe-l2; hit; ttl="), "{:?}", second.headers);
    // Gateways and services anew: it is in Redis.
    for service in ["cache", "gateway"] {
        for index in 0..2 {
            stack.instance_at(service, index).kill();
            stack.instance_at(service, index).restart();
        }
    }
    super::await_live(&stack);
    stack.await_serving(BOUND);
    assert_eq!(version(&get(stack.addresses[0], "/a")), 1);
    assert_eq!(origin.asked("/a"), 1);
}

/// Once to look and to claim the fetch, once to store and to end the claim.
#[test]
fn a_miss_asks_redis_twice() {
    const MISSES: u64 = 100;
    /// What the service asks on its own meanwhile: where the history of purges is, a few times a second.
    const OWN: u64 = 100;
    let redis = Redis::start();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = in_redis(1, 1, &redis, &origin.config(""));
    let stored = |count: u64| {
        wait::until("all to be stored", BOUND, || {
            let stored = metric(&stack, "cache", "troupe_cache_stores_total{result=\"stored\"}");
            (stored >= count as f64).then_some(())
        });
    };
    // Redis gets to know the scripts.
    get(stack.addresses[0], "/first");
    stored(1);
    redis.command(&["CONFIG", "RESETSTAT"]);
    for number in 0..MISSES {
        get(stack.addresses[0], &format!("/{number}"));
    }
    stored(MISSES + 1);
    let said = redis.command(&["INFO", "commandstats"]).text();
    let calls = |command: &str| {
        let counted = said.split(&format!("cmdstat_{command}:calls=")).nth(1);
        counted.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    assert!((2 * MISSES..2 * MISSES + OWN).contains(&calls("evalsha")), "{said}");
    // One in each script that looks, and none beside.
    assert_eq!(calls("hmget"), MISSES, "{said}");
    assert_eq!(calls("getrange"), MISSES, "{said}");
}

#[test]
fn long_bodies_arrive_as_they_were() {
    let redis = Redis::start();
    let body: String = (0..300_000).map(|n| format!("{n:07}")).collect();
    let sent = body.clone();
    let server = Upstream::start(move |exchange| {
        let length = exchange.request.target().trim_start_matches('/').parse().unwrap_or(0);
        let body = &sent[..length];
        exchange
            .send(format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {length}\r\n\r\n{body}"))?;
        Ok(Then::Keep)
    });
    let origin = Origin { server, version: Arc::default() };
    let stack = in_redis(2, 1, &redis, &origin.config(""));
    // Around the size of a part, and of what is read at once.
    for length in [0, 1, 65_535, 65_536, 65_537, 131_072, 17 * 65_536, 2_100_000] {
        let target = format!("/{length}");
        assert_eq!(get(stack.addresses[0], &target).body.len(), length);
        let shared = wait::until("it to be shared", BOUND, || {
            let answer = get(stack.addresses[1], &target);
            answer.header("cache-status").contains("hit").then_some(answer)
        });
        assert!(shared.text() == body[..length], "{length}: {} bytes", shared.body.len());
    }
}

#[test]
fn purges_reach_what_is_in_redis_alone() {
    let redis = Redis::start();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let mut stack = in_redis(2, 1, &redis, &origin.config(""));
    let (first, second) = (stack.addresses[0], stack.addresses[1]);
    let admin = stack.instance("gateway").admin;
    for (n, query) in super::coherence::QUERIES.iter().enumerate() {
        // Only the first gateway has it.
        let before = version(&get(first, "/a"));
        wait::until("it to be stored", BOUND, || {
            (metric(&stack, "cache", "troupe_cache_stores_total{result=\"stored\"}") >= (n + 1) as f64).then_some(())
        });
        origin.version.fetch_add(1, Ordering::SeqCst);
        let told = purge(admin, query);
        assert_eq!((told.status, told.json()["confirmed"].as_u64()), (200, Some(2)), "{}", told.text());
        assert_eq!(version(&get(second, "/a")), before + 1, "{query}");
    }
    // What is about something else leaves it.
    let kept = version(&get(first, "/a"));
    for query in ["url=http://troupe.test/b", "group=others", "prefix=http://troupe.test/b", "host=elsewhere"] {
        assert_eq!(purge(admin, query).status, 200);
    }
    origin.version.fetch_add(1, Ordering::SeqCst);
    assert_eq!(version(&get(second, "/a")), kept);
}

#[test]
fn after_a_purge_no_gateway_gives_what_was_purged_while_push_connections_are_killed() {
    let redis = Redis::start();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = in_redis(4, 2, &redis, &origin.config(""));
    let readers = Readers::start(&stack.addresses, "/a");
    let over = Arc::new(AtomicBool::new(false));
    let redis = Arc::new(redis);
    let killer = {
        let (redis, over) = (Arc::clone(&redis), Arc::clone(&over));
        thread::spawn(move || {
            let mut killed = 0;
            while !over.load(Ordering::SeqCst) {
                let clients = redis.command(&["CLIENT", "LIST"]).text();
                let waiting = clients.lines().filter(|line| line.contains("cmd=xread"));
                for id in waiting.filter_map(|line| line.split(' ').next()?.strip_prefix("id=")) {
                    redis.command(&["CLIENT", "KILL", "ID", id]);
                    killed += 1;
                }
                thread::sleep(Duration::from_millis(150));
            }
            killed
        })
    };
    let admins = admins(&stack);
    let queries = super::coherence::QUERIES;
    churn(&origin, &readers, 300, |version| {
        purge_until_done(admins[version as usize % admins.len()], queries[version as usize % queries.len()]);
    });
    over.store(true, Ordering::SeqCst);
    let answers = readers.stop();
    assert!(killer.join().unwrap() > 3, "push connections were killed");
    assert!(answers > 300, "{answers}");
    super::await_live(&stack);
    // And it is a cache all the same.
    for address in &stack.addresses {
        get(*address, "/a");
        assert!(get(*address, "/a").header("cache-status").starts_with("troupe-l1; hit"));
    }
}

/// A thousand purges at once, each of an object of its own: when they are answered nobody has any of it.
#[test]
fn a_thousand_purges_at_once_are_all_done() {
    let redis = Redis::start();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = in_redis(4, 2, &redis, &origin.config(""));
    let targets: Vec<String> = (0..250).map(|n| format!("/item/{n}")).collect();
    for address in &stack.addresses {
        let mut connection = Connection::open(*address).unwrap();
        for target in &targets {
            assert_eq!(version(&connection.request("GET", target, &[], b"").unwrap()), 1);
        }
    }
    origin.version.store(2, Ordering::SeqCst);
    let admins = admins(&stack);
    let orders: Vec<_> = (0..16)
        .map(|part| {
            let (admin, targets) = (admins[part % admins.len()], targets.clone());
            thread::spawn(move || {
                for target in targets.iter().cycle().skip(part).step_by(4).take(64) {
                    purge_until_done(admin, &format!("url=http://troupe.test{target}"));
                }
            })
        })
        .collect();
    orders.into_iter().for_each(|order| order.join().unwrap());
    for address in &stack.addresses {
        let mut connection = Connection::open(*address).unwrap();
        for target in &targets {
            assert_eq!(version(&connection.request("GET", target, &[], b"").unwrap()), 2, "{target} at {address}");
        }
    }
}

/// A stack of two gateways and two cache services with the store in a cluster; all of them are linked.
fn in_cluster(nodes: &[Redis], config: &str) -> Stack {
    let places: Vec<String> = nodes.iter().map(|node| node.address().to_string()).collect();
    let config = format!("cache.l2 = \"redis\"\nredis.mode = \"cluster\"\nredis.nodes = {places:?}\n{config}");
    let plan = stack::Plan::apart().several("gateway", 2).several("cache", 2);
    let stack = plan.start(crate::support::binary(), &crate::support::functions(), &config);
    super::await_live(&stack);
    stack
}

/// The connection that hears of purges broke after each `redis.timeout`, and nothing that a gateway had could be believed.
#[test]
fn with_a_cluster_and_the_default_timeout_a_gateway_gives_what_it_has() {
    /// Far more often than a loaded machine loses a connection, and far less often than one broke.
    const LOSSES: f64 = 5.0;
    let nodes = Redis::cluster();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let stack = in_cluster(&nodes, &origin.config(""));
    let losses = || metric(&stack, "cache", "troupe_cache_redis_losses_total");
    let (before, mut hits) = (losses(), 0);
    get(stack.addresses[0], "/a");
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(50));
        hits += usize::from(get(stack.addresses[0], "/a").header("cache-status").starts_with("troupe-l1; hit"));
    }
    assert!(losses() - before < LOSSES, "{} losses", losses() - before);
    assert!(hits > 50, "{hits} hits of 100");
}

#[test]
fn a_cluster_is_as_good_as_one_server() {
    let nodes = Redis::cluster();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    // A loaded machine is no slow store.
    let stack = in_cluster(&nodes, &origin.config("redis.timeout = \"500ms\""));
    // Each thread's first look-up finds its way to the nodes, which may take longer than it may.
    let mut warm = 0..100;
    wait::until("every thread to know the nodes", BOUND, || {
        let target = format!("/warm/{}", warm.next()?);
        let answers = [0, 1, 0, 1].map(|gateway| get(stack.addresses[gateway], &target));
        answers.iter().all(|answer| !answer.header("cache-status").contains("detail=")).then_some(())
    });
    for n in 0..20 {
        assert_eq!(version(&get(stack.addresses[0], &format!("/{n}"))), 1);
        let second = get(stack.addresses[1], &format!("/{n}"));
        assert!(second.header("cache-status").starts_with("troupe-l2; hit"), "{:?}", second.headers);
    }
    let readers = Readers::start(&stack.addresses, "/a");
    let (admins, queries) = (admins(&stack), super::coherence::QUERIES);
    churn(&origin, &readers, 60, |version| {
        purge_until_done(admins[version as usize % admins.len()], queries[version as usize % queries.len()]);
    });
    readers.stop();
    let behind: Vec<_> = nodes.iter().flat_map(Redis::behind_resp3).collect();
    assert!(behind.is_empty(), "{behind:?}");
}

#[test]
fn one_process_may_share_its_cache_with_others() {
    let redis = Redis::start();
    let origin = Origin::start("max-age=600", Duration::ZERO);
    let config = format!(
        "cache.l2 = \"redis\"\nredis.url = {:?}\nredis.timeout = \"500ms\"\n{}",
        redis.url(),
        origin.config("")
    );
    let start = |wiring: &str| {
        let config = format!("mesh.wiring = \"{wiring}\"\n{config}");
        Stack::one_process(crate::support::binary(), &crate::support::functions(), &config)
    };
    for wiring in ["inline", "mailbox", "loopback"] {
        let (one, other) = (start(wiring), start(wiring));
        for stack in [&one, &other] {
            wait::until("it to hear of purges", BOUND, || {
                let page = stack.instances[0].admin("/metrics")?.text();
                page.lines().any(|line| line == "troupe_gateway_cache_live 1").then_some(())
            });
        }
        let first = version(&get(one.address, "/a"));
        assert!(get(other.address, "/a").header("cache-status").starts_with("troupe-l2; hit"), "{wiring}");
        origin.version.fetch_add(1, Ordering::SeqCst);
        assert_eq!(purge(one.instances[0].admin, "url=http://troupe.test/a").json()["confirmed"], 2);
        assert_eq!(version(&get(other.address, "/a")), first + 1, "{wiring}");
        redis.command(&["FLUSHALL"]);
    }
}
