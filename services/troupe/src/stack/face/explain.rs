//! What would be done with a request: the gateway's part, and the worker that would be picked.

use serde_json::{Value, json};
use troupe_balancer::{PoolSnapshot, Snapshot, State, WorkerSnapshot};
use troupe_contracts::invoke::UPSTREAM;
use troupe_gateway::explain::Explanation;
use troupe_node::admin::{Api, Refusal};

use super::Face;
use crate::config::Config;

/// Up to this many workers all are compared, as the pick does it.
const COMPARED: usize = 8;

pub(super) fn register(api: &Api, face: &Face) {
    let face = face.clone();
    api.get("explain", move |ask| {
        let Some(insight) = &face.insight else {
            return Err(Refusal::new(
                404,
                "no gateway runs in this process: ask one (--service gateway, or --admin URL)",
            ));
        };
        let target = ask.need("target")?;
        let explained = insight.explain(ask.need("method")?, ask.get("host").unwrap_or_default(), target);
        let snapshot = face.balancer().ok().map(|balancer| balancer.snapshot());
        Ok(whole(&explained, &face.config.load(), snapshot.as_ref()))
    });
}

/// The explanation with what the configuration says of route and pool, and the pick if there is a balancer here.
pub(super) fn whole(explained: &Explanation, config: &Config, snapshot: Option<&Snapshot>) -> Value {
    let mut value = json!(explained);
    let Some((whole, route)) = value.as_object_mut().zip(explained.route.as_ref()) else { return value };
    if let (Some(written), Some(shown)) =
        (config.routes.get(route.index), whole.get_mut("route").and_then(Value::as_object_mut))
    {
        let methods = if written.methods.is_empty() { json!("all") } else { json!(written.methods) };
        shown.insert("methods".to_owned(), methods);
        shown.insert("path".to_owned(), written.path.as_str().into());
        shown.insert("host".to_owned(), json!(written.host));
    }
    let gateway = &config.gateway;
    let mut limits = json!({
        "request_timeout": gateway.request_timeout.to_string(),
        "stream_idle": gateway.stream_idle.to_string(),
        "max_head": gateway.max_head.to_string(),
        "max_body": gateway.max_body.to_string(),
    });
    if let (Some(pool), Some(limits)) = (config.php.get(&route.pool), limits.as_object_mut()) {
        limits.insert("php_timeout".to_owned(), pool.timeout.to_string().into());
        limits.insert("processes".to_owned(), json!({ "min": pool.processes.min, "max": pool.processes.max }));
        limits.insert("queue".to_owned(), json!({ "max": pool.queue.max, "wait": pool.queue.wait.to_string() }));
    }
    if let (Some(group), Some(limits)) =
        (route.pool.strip_prefix(UPSTREAM).and_then(|name| config.upstream.get(name)), limits.as_object_mut())
    {
        limits.insert("first_byte".to_owned(), group.timeouts.first_byte.to_string().into());
        limits.insert("max_connections".to_owned(), group.max_connections.into());
        if explained.method == "GET" {
            limits.insert("tunnel".to_owned(), group.timeouts.tunnel.to_string().into());
        }
        limits.insert("queue".to_owned(), json!({ "max": group.queue.max, "wait": group.queue.wait.to_string() }));
    }
    whole.insert("limits".to_owned(), limits);
    let pick = match snapshot {
        None => json!({ "why": "the balancer is in another process: `troupe workers` asks it for its order" }),
        Some(snapshot) => match snapshot.pools.iter().find(|pool| pool.pool == route.pool) {
            None => json!({ "why": "the balancer knows no such pool: it answers 503" }),
            Some(pool) => pick(pool),
        },
    };
    whole.insert("pick".to_owned(), pick);
    value
}

/// Whom the next call would go to, by the numbers of this moment.
fn pick(pool: &PoolSnapshot) -> Value {
    let ready: Vec<&WorkerSnapshot> = pool.workers.iter().filter(|worker| worker.state == State::Ready).collect();
    let ejected = || pool.workers.iter().filter(|worker| worker.state == State::Ejected).collect();
    let (candidates, last_resort) = if ready.is_empty() { (ejected(), true) } else { (ready, false) };
    let has_room = |worker: &&&WorkerSnapshot| worker.in_flight < worker.cap;
    let best = candidates.iter().filter(has_room).max_by(|one, other| one.score.total_cmp(&other.score));
    let others: Vec<Value> = candidates
        .iter()
        .map(|worker| {
            json!({
                "worker": format!("{}/{}", pool.pool, worker.worker),
                "score": worker.score,
                "in_flight": worker.in_flight,
                "cap": worker.cap,
                "latency_us": worker.latency_us,
                "gain": worker.gain,
            })
        })
        .collect();
    let why = match best {
        None if candidates.is_empty() && pool.workers.is_empty() => {
            "the pool has no worker: the call waits for one, then 503".to_owned()
        }
        None if candidates.is_empty() => {
            "no worker takes calls (all drain): the call waits for one, then 503".to_owned()
        }
        None => format!(
            "every worker is at its cap: the call waits in the queue ({} wait, {} may)",
            pool.waiting, pool.queue_max
        ),
        Some(_) if pool.waiting > 0 => format!("{} calls wait before it in the queue", pool.waiting),
        Some(_) if last_resort => "every worker is out: the least bad one is used".to_owned(),
        Some(_) if candidates.len() == 1 => "it is the only worker that takes calls".to_owned(),
        Some(_) if candidates.len() > COMPARED => {
            "it has the best score; with so many workers the better of two random ones is taken".to_owned()
        }
        Some(_) => "it has the best score: the lowest latency * (calls in flight + 1) / weight".to_owned(),
    };
    json!({
        "worker": best.map(|worker| format!("{}/{}", pool.pool, worker.worker)),
        "why": why,
        "candidates": others,
    })
}
