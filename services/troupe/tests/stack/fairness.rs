//! Several gateways, balancers and php-pools at once: nobody herds, and no cap is exceeded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use troupe_testkit::http::Connection;
use troupe_testkit::redis::Redis;
use troupe_testkit::stack::{self, Stack};
use troupe_testkit::wait;

use crate::support::{binary, functions};

const HEAL: Duration = Duration::from_secs(100);
/// PHP processes of a worker: its cap.
const SLOTS: usize = 4;
const WORKERS: usize = 3;
/// Requests of a client.
const REQUESTS: usize = 60;

/// A call as PHP saw it: its worker, and from when to when in nanoseconds of the machine's clock.
struct Call {
    worker: u64,
    begin: u64,
    end: u64,
}

/// Three gateways, two balancers, three php-pools, each linked to all in the next row.
fn crowd(redis: &Redis) -> Stack {
    let plan = stack::Plan::apart().several("php-pool", WORKERS).two("balancer").several("gateway", 3);
    let config = format!("gateway.access_log = false\n[php.default.processes]\nmin = {SLOTS}\nmax = {SLOTS}\n");
    let mut stack = plan.through_redis(redis.url()).start(binary(), &functions(), &config);
    for index in 0..2 {
        let balancer = stack.instance_at("balancer", index);
        wait::until("all workers", HEAL, || {
            let metrics = balancer.admin("/metrics")?.text();
            let line = metrics.lines().find(|line| line.starts_with("troupe_balancer_workers_ready"))?;
            (line.rsplit(' ').next()?.parse() == Ok(WORKERS)).then_some(())
        });
    }
    for index in 0..3 {
        let gateway = stack.instance_at("gateway", index);
        // A line per thread and balancer; what counts is that both balancers are among them.
        wait::until("links to both balancers", HEAL, || {
            let log = gateway.log();
            let uids = log.lines().filter(|line| line.contains("link up")).filter_map(|line| {
                line.split("\"uid\":\"").nth(1).and_then(|rest| rest.split('"').next()).map(str::to_owned)
            });
            (uids.collect::<std::collections::BTreeSet<_>>().len() == 2).then_some(())
        });
    }
    stack
}

/// Has `clients` ask the gateways by turns, each for as often as it gets its answer.
fn calls(addresses: &[SocketAddr], clients: usize) -> Vec<Call> {
    let clients: Vec<_> = (0..clients)
        .map(|index| {
            let address = addresses[index % addresses.len()];
            thread::spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                let mut calls = Vec::new();
                for _ in 0..REQUESTS {
                    let answer = connection.request("GET", "/api/where?ms=20", &[], b"").unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let said = answer.json();
                    let number = |key: &str| said[key].as_u64().unwrap();
                    calls.push(Call { worker: number("worker"), begin: number("begin"), end: number("end") });
                }
                calls
            })
        })
        .collect();
    clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
}

/// Of each worker: the mean of its calls in flight over all the time, and the most at once.
fn in_flight(calls: &[Call]) -> BTreeMap<u64, (f64, usize)> {
    let first = calls.iter().map(|call| call.begin).min().unwrap();
    let last = calls.iter().map(|call| call.end).max().unwrap();
    let mut by_worker: BTreeMap<u64, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        by_worker.entry(call.worker).or_default().push(call);
    }
    let of = |calls: Vec<&Call>| {
        let busy: u64 = calls.iter().map(|call| call.end - call.begin).sum();
        // Most are in flight at the beginning of some call.
        let at = |moment: u64| calls.iter().filter(|call| call.begin <= moment && moment < call.end).count();
        let most = calls.iter().map(|call| at(call.begin)).max().unwrap();
        (busy as f64 / (last - first) as f64, most)
    };
    by_worker.into_iter().map(|(worker, calls)| (worker, of(calls))).collect()
}

#[test]
fn load_is_even_over_workers_and_no_cap_is_exceeded() {
    let redis = Redis::start();
    let stack = crowd(&redis);
    // Half of what there is, three quarters, and three times as much.
    for clients in [WORKERS * SLOTS / 2, WORKERS * SLOTS * 3 / 4, WORKERS * SLOTS * 3] {
        let workers = in_flight(&calls(&stack.addresses, clients));
        assert_eq!(workers.len(), WORKERS, "{clients} clients: {workers:?}");
        let means: Vec<f64> = workers.values().map(|(mean, _)| *mean).collect();
        let (most, mean) = (means.iter().copied().fold(0.0, f64::max), means.iter().sum::<f64>() / WORKERS as f64);
        assert!(most / mean <= 1.5, "{clients} clients: max/mean is {:.2}: {workers:?}", most / mean);
        assert!(workers.values().all(|(_, most)| *most <= SLOTS), "{clients} clients: {workers:?}");
    }
}
