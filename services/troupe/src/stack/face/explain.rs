//! What would be done with a request: the gateway's part, and the worker that would be picked.

use serde_json::{Value, json};
use troupe_contracts::invoke::UPSTREAM;
use troupe_contracts::survey::Surveyed;
use troupe_gateway::explain::Explanation;
use troupe_mesh::failure::Failure;
use troupe_node::admin::Api;

use super::Face;
use crate::config::Config;

pub(super) fn register(api: &Api, face: &Face) {
    let face = face.clone();
    api.get_later("explain", move |ask| {
        let face = face.clone();
        async move {
            let Some(insight) = &face.insight else {
                return Err(super::no_gateway());
            };
            let target = ask.need("target")?;
            let explained = insight.explain(ask.need("method")?, ask.get("host").unwrap_or_default(), target);
            let pick = match (&explained.route, &face.surveys) {
                (Some(route), Some(surveys)) => pick(surveys.ask(&route.pool).await),
                _ => Value::Null,
            };
            Ok(whole(&explained, &face.config.load(), pick))
        }
    });
}

/// What a balancer says of whom the call would go to.
fn pick(surveyed: Result<Surveyed, Failure>) -> Value {
    let Surveyed { balancer, worker, why, candidates, more } = match surveyed {
        Ok(surveyed) => surveyed,
        Err(failure) => return json!({ "why": format!("no balancer says whom: {failure}") }),
    };
    let named = |name: String| if name.is_empty() { Value::Null } else { name.into() };
    json!({
        "balancer": named(balancer),
        "worker": named(worker),
        "why": why,
        "candidates": candidates,
        "more": more,
    })
}

/// The explanation with what the configuration says of route and pool, and with the pick, if one was asked for.
pub(super) fn whole(explained: &Explanation, config: &Config, pick: Value) -> Value {
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
    let pick = match pick {
        Value::Null => json!({ "why": "no balancer was asked: this is what the configuration alone says" }),
        pick => pick,
    };
    whole.insert("pick".to_owned(), pick);
    value
}
