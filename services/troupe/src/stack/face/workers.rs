//! The workers in score order, and who takes one out.

use serde_json::{Value, json};
use troupe_balancer::instances::InstanceId;
use troupe_balancer::{Snapshot, State};
use troupe_node::admin::{Answer, Api, Ask, Refusal};

use super::Face;

/// A worker that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) pool: String,
    pub(super) instance: InstanceId,
    pub(super) name: String,
}

pub(super) fn register(api: &Api, face: &Face) {
    let own = face.clone();
    api.get("workers", move |_| Ok(listed(&own.balancer()?.snapshot())));
    for (name, held) in [("workers/drain", true), ("workers/undrain", false)] {
        let own = face.clone();
        api.post(name, move |ask| hold(own.clone(), ask, held));
    }
}

/// The snapshot, with each worker's full name.
fn listed(snapshot: &Snapshot) -> Value {
    let mut value = json!(snapshot);
    let pools = value.get_mut("pools").and_then(Value::as_array_mut).into_iter().flatten();
    for pool in pools {
        let name = pool.get("pool").and_then(Value::as_str).unwrap_or_default().to_owned();
        let workers = pool.get_mut("workers").and_then(Value::as_array_mut).into_iter().flatten();
        for worker in workers.filter_map(Value::as_object_mut) {
            let own = worker.get("worker").and_then(Value::as_str).unwrap_or_default();
            let full = format!("{name}/{own}");
            worker.insert("name".to_owned(), full.into());
        }
    }
    value
}

/// The worker that `wanted` names: `pool/worker`, `worker`, or either with the instance's id, which tells workers of one name
/// apart.
pub(super) fn find(snapshot: &Snapshot, wanted: &str) -> Result<Target, Refusal> {
    let mut found: Vec<(Target, bool)> = Vec::new();
    for pool in &snapshot.pools {
        for worker in &pool.workers {
            let full = format!("{}/{}", pool.pool, worker.worker);
            let by_instance = worker.instance == wanted || format!("{}/{}", pool.pool, worker.instance) == wanted;
            if full == wanted || worker.worker == wanted || by_instance {
                let instance = InstanceId::new(worker.instance.as_str());
                let target = Target { pool: pool.pool.clone(), instance, name: full.clone() };
                found.push((target, full == wanted));
            }
        }
    }
    if found.iter().filter(|(_, exact)| *exact).count() == 1 {
        found.retain(|(_, exact)| *exact);
    }
    match found.len() {
        1 => found.pop().map(|(target, _)| target).ok_or_else(super::stopping),
        0 => {
            let names: Vec<String> = snapshot
                .pools
                .iter()
                .flat_map(|pool| pool.workers.iter().map(|worker| format!("{}/{}", pool.pool, worker.worker)))
                .take(20)
                .collect();
            let known =
                if names.is_empty() { "there is none".to_owned() } else { format!("there are {}", names.join(", ")) };
            Err(Refusal::new(404, format!("no worker is named {wanted}; {known}")))
        }
        _ => {
            let names: Vec<String> =
                found.iter().take(20).map(|(target, _)| format!("{}/{}", target.pool, target.instance)).collect();
            Err(Refusal::new(409, format!("{wanted} names several workers: write one of {}", names.join(", "))))
        }
    }
}

async fn hold(face: Face, ask: Ask, held: bool) -> Answer {
    let wanted = ask.need("worker")?.to_owned();
    let balancer = match face.balancer() {
        Ok(balancer) => balancer,
        // A php-pool apart tells all its balancers by itself.
        Err(_) if face.php.is_some() => return hold_here(&face, &wanted, held),
        Err(refusal) => return Err(refusal),
    };
    let snapshot = balancer.snapshot();
    let target = find(&snapshot, &wanted)?;
    let others = snapshot.pools.iter().filter(|pool| pool.pool == target.pool).flat_map(|pool| &pool.workers);
    let mut others = others.filter(|worker| worker.instance != target.instance.as_str());
    if held && !ask.flag("force") && !others.any(|worker| worker.state == State::Ready) {
        let why = format!(
            "{} is the only worker of pool {} that takes calls: drained, they would be answered 503 (--force does it all the same)",
            target.name, target.pool
        );
        return Err(Refusal::new(409, why));
    }
    let found = balancer.hold(&target.instance, &target.pool, held).await;
    match found {
        Ok(true) => Ok(json!({ "worker": target.name, "pool": target.pool, "drained": held })),
        Ok(false) => Err(Refusal::new(404, format!("{} is gone", target.name))),
        Err(error) => Err(Refusal::new(503, format!("the balancer's supervisor does not answer: {error}"))),
    }
}

fn hold_here(face: &Face, wanted: &str, held: bool) -> Answer {
    let php = face.php.as_ref().and_then(std::sync::Weak::upgrade).ok_or_else(super::stopping)?;
    let pool = face.own_pool(wanted)?;
    if !php.hold(pool, held) {
        let names: Vec<String> = php.status().into_iter().map(|pool| pool.pool).collect();
        return Err(Refusal::new(404, format!("this php-pool has no pool {pool}; it has {}", names.join(", "))));
    }
    Ok(json!({ "worker": wanted, "pool": pool, "drained": held }))
}

#[cfg(test)]
mod tests {
    use troupe_balancer::{PoolSnapshot, WorkerSnapshot};

    use super::*;

    fn worker(name: &str, instance: &str) -> WorkerSnapshot {
        WorkerSnapshot {
            worker: name.to_owned(),
            instance: instance.to_owned(),
            state: State::Ready,
            reason: "ready",
            score: 1.0,
            latency_us: 0.0,
            in_flight: 0,
            foreign: 0,
            cap: 1,
            gain: 1.0,
            error_rate: 0.0,
            failures: 0,
            load: troupe_contracts::report::Load::default(),
        }
    }

    fn pool(name: &str, workers: Vec<WorkerSnapshot>) -> PoolSnapshot {
        let pool = name.to_owned();
        PoolSnapshot { pool, waiting: 0, queue_max: 1, median_us: 0.0, p95_us: 0.0, all_out: false, workers }
    }

    #[test]
    fn a_worker_is_found_by_what_people_see_and_told_apart_by_its_instance() {
        let snapshot = Snapshot {
            pools: vec![
                pool("api", vec![worker("a@1", "i1"), worker("b@1", "i2")]),
                pool("web", vec![worker("a@1", "i1"), worker("c@1", "i3"), worker("c@1", "i4")]),
            ],
        };
        let name = |wanted: &str| find(&snapshot, wanted).map(|target| (target.name, target.instance.to_string()));
        assert_eq!(name("api/a@1"), Ok(("api/a@1".to_owned(), "i1".to_owned())));
        assert_eq!(name("b@1"), Ok(("api/b@1".to_owned(), "i2".to_owned())));
        assert_eq!(name("web/i4"), Ok(("web/c@1".to_owned(), "i4".to_owned())));
        assert_eq!(name("i3"), Ok(("web/c@1".to_owned(), "i3".to_owned())));
        assert_eq!(name("a@1").unwrap_err().status, 409);
        let several = name("web/c@1").unwrap_err();
        assert!(several.status == 409 && several.detail.contains("web/i3, web/i4"), "{several:?}");
        let none = name("zzz").unwrap_err();
        assert!(none.status == 404 && none.detail.contains("api/a@1"), "{none:?}");
    }
}
