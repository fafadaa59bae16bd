//! The sections of `/api/status`, and what is wrong in plain words.

use std::sync::Weak;
use std::time::Duration;

use serde_json::{Value, json};
use troupe_balancer::{PoolSnapshot, State, WorkerSnapshot};
use troupe_gateway::SlowRequest;
use troupe_node::admin::Api;

use super::{Face, counts};
use crate::stack::troubles;

/// How many slow requests are listed when nobody says how many.
const SLOWEST: usize = 20;
/// How often the gateway's figures are noted.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// A pool whose fullest process takes this much of its hard limit is worth a word, in thousandths.
const MEMORY_FULL: u16 = 900;
/// Share of `descriptors` in use that is worth a word, in percent.
const DESCRIPTORS_FULL: u64 = 90;

fn with_spans(slow: &SlowRequest) -> Value {
    let mut told = json!(slow);
    if let Some(fields) = told.as_object_mut() {
        fields.insert("spans".to_owned(), json!(slow.spans()));
    }
    told
}

pub(super) fn register(api: &Api, face: &Face) {
    if let Some(insight) = face.insight.clone() {
        let noted = insight.clone();
        actix_rt::spawn(async move {
            let mut tick = tokio::time::interval(NOTE_EVERY);
            loop {
                tick.tick().await;
                noted.note();
            }
        });
        let slow = insight.clone();
        api.get("slow", move |ask| {
            let most = ask.get("most").and_then(|most| most.parse().ok()).unwrap_or(SLOWEST);
            Ok(json!({ "requests": slow.slow(most).iter().map(with_spans).collect::<Vec<_>>() }))
        });
        api.section("gateway", move || json!(insight.figures()));
    } else {
        api.get("slow", |_| Err(super::no_gateway()));
    }
    let own = face.clone();
    if face.balancer.is_some() {
        api.section("pools", move || match own.balancer() {
            Ok(balancer) => balancer.snapshot().pools.iter().map(pool).collect(),
            Err(_) => Value::Null,
        });
    }
    if let Some(php) = face.php.clone() {
        api.section("php", move || php.upgrade().map_or(Value::Null, |php| json!(php.status())));
    }
    let metrics = face.metrics.clone();
    api.section("cache", move || counts::cache(&metrics));
    let metrics = face.metrics.clone();
    api.section("failures", move || counts::failures(&metrics));
    let linked = face.linked.clone();
    api.section("links", move || linked.list());
    let own = face.clone();
    api.problems(move |problems| complain(&own, problems));
}

/// A pool in a few numbers; `/api/workers` has the rest.
fn pool(pool: &PoolSnapshot) -> Value {
    let count = |state: State| pool.workers.iter().filter(|worker| worker.state == state).count();
    let sum = |part: fn(&WorkerSnapshot) -> u32| pool.workers.iter().map(part).fold(0, u32::saturating_add);
    json!({
        "pool": pool.pool,
        "workers": pool.workers.len(),
        "ready": count(State::Ready),
        "ejected": count(State::Ejected),
        "draining": count(State::Draining),
        "in_flight": sum(|worker| worker.in_flight),
        "slots": sum(|worker| worker.load.slots),
        "processes": sum(|worker| worker.load.processes),
        "busy": sum(|worker| worker.load.busy),
        "restarts": sum(|worker| worker.load.restarts),
        "waiting": pool.waiting,
        "queue_max": pool.queue_max,
        "median_ms": pool.median_us / 1_000.0,
        "p95_ms": pool.p95_us / 1_000.0,
    })
}

fn complain(face: &Face, problems: &mut Vec<String>) {
    let pools = face.balancer().map(|balancer| balancer.snapshot().pools).unwrap_or_default();
    for pool in &pools {
        complain_of_pool(pool, problems);
    }
    let php = face.php.as_ref().and_then(Weak::upgrade).map(|php| php.status()).unwrap_or_default();
    problems.extend(troubles::list(&face.notices, &face.metrics, &php).into_iter().map(|notice| notice.text));
    if let Some(process) = troupe_node::metrics::ProcessFigures::read() {
        let (open, most) = (process.descriptors, process.max_descriptors);
        if open.saturating_mul(100) >= most.saturating_mul(DESCRIPTORS_FULL) {
            problems.push(format!("{open} of {most} descriptors are open: raise the limit (ulimit -n, LimitNOFILE=)"));
        }
    }
}

fn complain_of_pool(pool: &PoolSnapshot, problems: &mut Vec<String>) {
    let name = &pool.pool;
    if pool.workers.is_empty() {
        problems.push(format!("pool {name} has no worker: its requests get 503; is a php-pool running and linked?"));
    } else if pool.workers.iter().all(|worker| worker.state == State::Draining) {
        problems.push(format!("every worker of pool {name} is drained: its requests wait, and get 503"));
    } else if pool.all_out {
        problems.push(format!("every worker of pool {name} is out; requests go to the least bad one"));
    }
    for worker in &pool.workers {
        let who = format!("{name}/{}", worker.worker);
        match worker.state {
            State::Ejected => problems.push(format!("worker {who} is out: {}", worker.reason)),
            State::Draining => problems.push(format!("worker {who} takes no new calls: {}", worker.reason)),
            State::Ready | State::Down => {}
        }
        if worker.load.memory_permille >= MEMORY_FULL {
            let percent = worker.load.memory_permille / 10;
            problems.push(format!("a process of {who} takes {percent} % of memory_hard and is killed at 100 %"));
        }
    }
    if pool.waiting > 0 && pool.waiting >= pool.queue_max / 2 {
        problems.push(format!(
            "{} requests wait for pool {name}, {} may: more are answered 503; it needs more processes or faster functions",
            pool.waiting, pool.queue_max
        ));
    }
}
