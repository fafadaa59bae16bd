//! The cache over several gateways: what one has fetched another gives, and what was purged nobody gives.

mod coherence;
mod disk;
mod early;
mod fencing;
mod fire;
mod leases;
mod outages;
mod redis;
mod scale;
mod sharing;
mod slow;
mod switches;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use troupe_testkit::http::{self, Connection, Response};
use troupe_testkit::redis::Redis;
use troupe_testkit::stack::{self, Stack};
use troupe_testkit::upstream::{Exchange, Then, Upstream};
use troupe_testkit::wait;

use crate::support::{binary, functions};

/// Ten times what anything may take.
const BOUND: Duration = Duration::from_secs(60);

/// An origin whose every answer is a version, and how they are cached.
struct Origin {
    server: Upstream,
    version: Arc<AtomicU64>,
}

impl Origin {
    /// Answers take `takes`, and say `control`.
    fn start(control: &'static str, takes: Duration) -> Self {
        let version = Arc::new(AtomicU64::new(1));
        let current = Arc::clone(&version);
        let server = Upstream::start(move |exchange| {
            exchange.read_body()?;
            // Read before the pause: what is purged meanwhile is what this answers.
            let version = current.load(Ordering::SeqCst);
            if version == 0 {
                return Ok(Then::Close);
            }
            thread::sleep(takes);
            answer(exchange, control, version)
        });
        Self { server, version }
    }

    fn asked(&self, target: &str) -> usize {
        self.server.requests().iter().filter(|request| request.target() == target).count()
    }

    fn config(&self, more: &str) -> String {
        let address = self.server.address;
        format!(
            "gateway.access_log = false\n{more}\n[[route]]\npath = \"/api/{{function*}}\"\nfunctions = \"default\"\n\
             [[route]]\npath = \"/{{rest*}}\"\nupstream = \"app\"\ncache = true\n[upstream.app]\nservers = [\"{address}\"]\n"
        )
    }
}

/// Answers with a version.
fn answer(exchange: &mut Exchange<'_>, control: &str, version: u64) -> io::Result<Then> {
    let body = format!("version {version}");
    exchange.send(format!(
        "HTTP/1.1 200 OK\r\nCache-Control: {control}\r\nCache-Groups: \"things\"\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))?;
    Ok(Then::Keep)
}

/// The version that an answer is of.
fn version(response: &Response) -> u64 {
    assert_eq!(response.status, 200, "{}", response.text());
    response.text().strip_prefix("version ").and_then(|version| version.parse().ok()).expect("a version")
}

fn get(address: SocketAddr, target: &str) -> Response {
    http::get(address, target).expect("an answer")
}

/// A stack of so many gateways and one cache service with the store in its memory; all of them are linked.
fn embedded(gateways: usize, config: &str) -> Stack {
    let plan = stack::Plan::apart().several("gateway", gateways).with_cache();
    // A loaded machine is no slow store.
    let stack = plan.start(binary(), &functions(), &format!("redis.timeout = \"500ms\"\n{config}"));
    await_live(&stack);
    stack
}

/// A stack of so many gateways and cache services with the store in Redis; all of them are linked.
fn in_redis(gateways: usize, caches: usize, redis: &Redis, config: &str) -> Stack {
    let stack = in_redis_unlinked(gateways, caches, redis, config);
    await_live(&stack);
    stack
}

/// The same, which may be not linked yet.
fn in_redis_unlinked(gateways: usize, caches: usize, redis: &Redis, config: &str) -> Stack {
    let plan = stack::Plan::apart().several("gateway", gateways).several("cache", caches);
    let config = format!("cache.l2 = \"redis\"\nredis.url = {:?}\nredis.timeout = \"500ms\"\n{config}", redis.url());
    plan.start(binary(), &functions(), &config)
}

/// Orders a purge until it is confirmed: while nobody can confirm it, the answer says so.
fn purge_until_done(admin: SocketAddr, query: &str) {
    wait::until("a purge to be confirmed", BOUND, || (purge(admin, query).status == 200).then_some(()));
}

/// Waits until every gateway hears of purges.
fn await_live(stack: &Stack) {
    for gateway in stack.instances.iter().filter(|instance| runs(instance, "gateway")) {
        wait::until("the gateway to hear of purges", BOUND, || {
            let page = gateway.admin("/metrics")?.text();
            page.lines().any(|line| line == "troupe_gateway_cache_live 1").then_some(())
        });
    }
}

/// Orders a purge at the admin listener of an instance; returns when it is answered.
fn purge(admin: SocketAddr, query: &str) -> Response {
    let mut connection = Connection::open(admin).unwrap();
    let head = format!(
        "POST /api/cache/purge?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nX-Troupe-Request: 1\r\n\r\n"
    );
    connection.send(head.as_bytes()).unwrap();
    connection.response(false).unwrap()
}

/// A figure of an instance's, all its labels summed up.
fn metric(stack: &Stack, service: &str, name: &str) -> f64 {
    let sum = |instance: &stack::Instance| {
        let page = instance.admin("/metrics").map(|page| page.text()).unwrap_or_default();
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    stack.instances.iter().filter(|instance| runs(instance, service)).map(sum).sum()
}

fn runs(instance: &stack::Instance, service: &str) -> bool {
    instance.service == service || instance.service == "all"
}
