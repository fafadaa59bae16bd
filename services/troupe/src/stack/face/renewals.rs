//! Restart and reload: PHP processes are replaced while calls go on.

use serde_json::{Value, json};
use troupe_balancer::instances::InstanceId;
use troupe_contracts::operate::Action;
use troupe_node::admin::{Answer, Api, Ask, Refusal};

use super::workers::{Target, find};
use super::{Face, stopping};

pub(super) fn register(api: &Api, face: &Face) {
    let own = face.clone();
    api.post("workers/restart", move |ask| restart(own.clone(), ask));
    let own = face.clone();
    api.post("reload", move |ask| reload(own.clone(), ask));
}

async fn restart(face: Face, ask: Ask) -> Answer {
    let target = match face.balancer() {
        Ok(balancer) => find(&balancer.snapshot(), ask.need("worker")?)?,
        Err(refusal) => here(&face, Some(ask.need("worker")?))?.pop().ok_or(refusal)?,
    };
    if !face.config.load().php.contains_key(&target.pool) {
        let why =
            format!("{} is not PHP of this configuration: what Troupe did not start, it cannot restart", target.name);
        return Err(Refusal::new(409, why));
    }
    let done = order(&face, target, Action::Restart).await?;
    match done.get("done").and_then(Value::as_bool) {
        Some(true) => Ok(done),
        _ => Err(Refusal::new(409, done.get("reason").and_then(Value::as_str).unwrap_or_default())),
    }
}

/// Reloads the code of one pool or of all, on every worker. One that fails leaves its old code serving.
async fn reload(face: Face, ask: Ask) -> Answer {
    let only = ask.get("pool").filter(|pool| !pool.is_empty());
    let targets: Vec<Target> = match face.balancer() {
        Ok(balancer) => {
            let wanted = |pool: &str| face.config.load().php.contains_key(pool) && only.is_none_or(|only| only == pool);
            let snapshot = balancer.snapshot();
            let pools = snapshot.pools.iter().filter(|pool| wanted(&pool.pool));
            let target = |pool: &str, instance: &str, worker: &str| Target {
                pool: pool.to_owned(),
                instance: InstanceId::new(instance),
                name: format!("{pool}/{worker}"),
            };
            pools
                .flat_map(|pool| pool.workers.iter().map(|worker| target(&pool.pool, &worker.instance, &worker.worker)))
                .collect()
        }
        Err(_) => here(&face, only)?,
    };
    if targets.is_empty() {
        let what =
            only.map_or("no PHP pool has a worker".to_owned(), |only| format!("no PHP pool {only} has a worker"));
        return Err(Refusal::new(404, what));
    }
    let mut workers = Vec::new();
    // One after another: a fault in the code is found by the first, and the machines are not all busy at once.
    for target in targets {
        let done = order(&face, target, Action::Reload).await?;
        let failed = done.get("done") == Some(&Value::Bool(false));
        workers.push(done);
        if failed {
            break;
        }
    }
    let ok = workers.iter().all(|done| done.get("done") == Some(&Value::Bool(true)));
    Ok(json!({ "ok": ok, "workers": workers }))
}

/// The pools of this process, where no balancer is in it.
fn here(face: &Face, only: Option<&str>) -> Result<Vec<Target>, Refusal> {
    let php = face.php.as_ref().ok_or_else(|| {
        Refusal::new(
            404,
            "neither a balancer nor a php-pool runs in this process: ask one (--service balancer, or --admin URL)",
        )
    })?;
    let pools = php.upgrade().ok_or_else(stopping)?.status();
    let only = only.map(|only| face.own_pool(only)).transpose()?;
    if let Some(only) = only
        && !pools.iter().any(|pool| pool.pool == only)
    {
        let names: Vec<String> = pools.into_iter().map(|pool| pool.pool).collect();
        return Err(Refusal::new(404, format!("this php-pool has no pool {only}; it has {}", names.join(", "))));
    }
    let wanted = pools.into_iter().filter(|pool| only.is_none_or(|only| only == pool.pool));
    let target = |pool: String| Target { name: pool.clone(), pool, instance: InstanceId::local() };
    Ok(wanted.map(|pool| target(pool.pool)).collect())
}

async fn order(face: &Face, target: Target, action: Action) -> Answer {
    let orders = face.orders.as_ref().ok_or_else(stopping)?;
    let Target { pool, instance, name } = target;
    let matter = format!("reload {name}");
    let done = orders.give(instance, pool, action).await?;
    match (&done, action) {
        (Err(reason), Action::Reload) => {
            let text = format!("the code of {name} could not be loaded anew, the old code serves: {reason}");
            face.notices.raise(&matter, true, text);
        }
        (Ok(_), Action::Reload) => face.notices.settle(&matter),
        (_, Action::Restart) => {}
    }
    Ok(match done {
        Ok(done) => json!({ "worker": name, "done": true, "replaced": done.replaced, "functions": done.functions }),
        Err(reason) => json!({ "worker": name, "done": false, "reason": reason }),
    })
}
