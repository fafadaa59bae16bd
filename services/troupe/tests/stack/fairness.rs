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

/// Three gateways, two balancers and so many php-pools, each linked to all in the next row.
fn crowd(redis: &Redis, workers: usize) -> Stack {
    let plan = stack::Plan::apart().several("php-pool", workers).two("balancer").several("gateway", 3);
    let config = format!("gateway.access_log = false\n[php.default.processes]\nmin = {SLOTS}\nmax = {SLOTS}\n");
    let mut stack = plan.through_redis(redis.url()).start(binary(), &functions(), &config);
    for index in 0..2 {
        let balancer = stack.instance_at("balancer", index);
        wait::until("all workers", HEAL, || {
            let metrics = balancer.admin("/metrics")?.text();
            let line = metrics.lines().find(|line| line.starts_with("troupe_balancer_workers_ready"))?;
            (line.rsplit(' ').next()?.parse() == Ok(workers)).then_some(())
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

/// Has `clients` ask the gateways by turns, each so many times; nothing may fail.
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
    let stack = crowd(&redis, WORKERS);
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

/// Each balancer sends a worker as many calls as it can take: two of them twice as many. The worker holds its cap itself and
/// gives the others back, and they wait at the balancers until it is their turn.
#[test]
fn a_cap_holds_across_balancers() {
    let redis = Redis::start();
    let mut stack = crowd(&redis, 1);
    let addresses = stack.addresses.clone();
    let pool = stack.instance("php-pool");
    let clients = 8 * SLOTS;
    let load = thread::spawn(move || calls(&addresses, clients));
    let mut under_way = Vec::new();
    while !load.is_finished() {
        under_way.push(figure(pool, "troupe_mesh_calls_in_flight{"));
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(load.join().unwrap().len(), clients * REQUESTS);
    // A call that is being given back is seen under way for a moment.
    under_way.sort_by(f64::total_cmp);
    let median = under_way.get(under_way.len() / 2).copied().unwrap();
    assert!(median >= 1.0 && median <= SLOTS as f64, "calls at a worker of {SLOTS} slots: {under_way:?}");
    let given_back = figure(pool, "troupe_php_calls_total{pool=\"default\",outcome=\"overloaded\"");
    assert!(given_back > 0.0, "two balancers never met at the worker: this shows nothing");
}

/// The sum of an instance's series whose lines start so.
fn figure(instance: &stack::Instance, start: &str) -> f64 {
    let page = instance.admin("/metrics").map(|page| page.text()).unwrap_or_default();
    let lines = page.lines().filter(|line| line.starts_with(start));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
