//! The workers of a pool ordered by score, and the view of it that people get.

use std::sync::Arc;

use serde::Serialize;
use troupe_contracts::report::Load;

use crate::clock;
use crate::pool::Pool;
use crate::slot::{Slot, State};
use crate::worker::Worker;

/// Workers, best score first. Also who is recycled, scaled down or probed first, from the end.
#[derive(Debug, Default)]
pub(crate) struct Order(pub(crate) Box<[Arc<Worker>]>);

/// 1 / cost, with cost in seconds: a worker with a latency of 10 ms and nothing in flight scores 100.
pub(crate) fn score(slot: &Slot, median_us: f32, now_us: u64) -> f32 {
    // Before the first reply there is nothing to compare by; the scale is then one second.
    let median_us = if median_us > 0.0 { median_us } else { 1e6 };
    1e6 / slot.cost_for_people(median_us, now_us)
}

/// Orders by state, then by score.
pub(crate) fn rank<'a>(workers: impl Iterator<Item = &'a Arc<Worker>>, median_us: f32, now_us: u64) -> Order {
    let mut ranked: Vec<(bool, f32, Arc<Worker>)> = workers
        .map(|worker| (worker.slot.state() == State::Ready, score(&worker.slot, median_us, now_us), Arc::clone(worker)))
        .collect();
    ranked.sort_by(|one, other| other.0.cmp(&one.0).then(other.1.total_cmp(&one.1)));
    Order(ranked.into_iter().map(|(.., worker)| worker).collect())
}

/// All pools at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The pools, by name.
    pub pools: Vec<PoolSnapshot>,
}

/// One pool.
#[derive(Debug, Clone, Serialize)]
pub struct PoolSnapshot {
    /// Its name.
    pub pool: String,
    /// Calls that wait for a worker.
    pub waiting: u32,
    /// Calls that may wait.
    pub queue_max: u32,
    /// The median of the workers' latencies in microseconds; 0 while unknown.
    pub median_us: f32,
    /// The 95th percentile of replies in microseconds, rounded up to a power of two; 0 while unknown.
    pub p95_us: f32,
    /// Every worker is out, and the least bad one is used.
    pub all_out: bool,
    /// The workers, best score first.
    pub workers: Vec<WorkerSnapshot>,
}

/// One worker, with all that makes up its score.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerSnapshot {
    /// Its name.
    pub worker: String,
    /// Its instance.
    pub instance: String,
    /// Whether it takes calls.
    pub state: State,
    /// Why it is in that state.
    pub reason: &'static str,
    /// 1 / cost, cost in seconds; higher is better.
    pub score: f32,
    /// L: the peak-EWMA of outcome-adjusted latency in microseconds; 0 while unknown.
    pub latency_us: f32,
    /// q: our calls in flight.
    pub in_flight: u32,
    /// q: calls of other balancers, as far as known.
    pub foreign: u32,
    /// Calls it may have in flight now.
    pub cap: u32,
    /// w * s: weight times slow start.
    pub gain: f32,
    /// The rate of application errors.
    pub error_rate: f32,
    /// Failures since the last success.
    pub failures: u32,
    /// What it last said of itself.
    pub load: Load,
}

pub(crate) fn pool_snapshot(pool: &Pool) -> PoolSnapshot {
    let now_us = clock::now();
    let median_us = pool.median_us();
    let table = pool.table();
    let order = pool.order();
    let workers = order.0.iter().filter(|worker| worker.slot.state() != State::Down);
    PoolSnapshot {
        pool: pool.name.to_string(),
        waiting: pool.queue.waiting(),
        queue_max: pool.queue.max(),
        median_us,
        p95_us: pool.p95_us(),
        all_out: table.ready == 0 && !table.workers.is_empty(),
        workers: workers.map(|worker| worker_snapshot(worker, median_us, now_us)).collect(),
    }
}

fn worker_snapshot(worker: &Worker, median_us: f32, now_us: u64) -> WorkerSnapshot {
    let slot = &worker.slot;
    WorkerSnapshot {
        worker: worker.name.to_string(),
        instance: worker.instance.to_string(),
        state: slot.state(),
        reason: *worker.reason.lock(),
        score: score(slot, median_us, now_us),
        latency_us: slot.estimate().latency_us,
        in_flight: slot.in_flight(),
        foreign: slot.foreign(),
        cap: slot.cap(),
        gain: slot.gain(),
        error_rate: slot.error_rate(),
        failures: slot.failures(),
        load: *worker.load.lock(),
    }
}
