//! The hot path alone, for instruction counts. Not for use by other services.

use std::sync::Arc;

use tokio::sync::Notify;
use troupe_contracts::report::Load;
use troupe_node::config::QueueConfig;

use crate::config::BalancerConfig;
use crate::instances::InstanceId;
use crate::pool::Pool;
use crate::tuning::Tuning;
use crate::worker::Worker;

/// Calls that each worker has in flight while picks are counted: ties are then rare.
const SLOTS: u32 = 64;

/// Picks a worker of `workers`, learns a reply of it and gives its place back, `rounds` times. Returns how often a
/// worker was found.
pub fn pick_and_release(workers: usize, rounds: usize) -> usize {
    let wake = Arc::new(Notify::new());
    let tuning = Arc::new(Tuning::new(&BalancerConfig::default()));
    let pool = Arc::new(Pool::new("bench", &QueueConfig::default(), tuning, 1, wake));
    let load = Load { slots: SLOTS, ..Load::default() };
    let listed: Vec<_> = (0..workers)
        .map(|id| Arc::new(Worker::new(id as u64, InstanceId::new(id.to_string()), Arc::from(id.to_string()), load)))
        .collect();
    pool.publish(&listed);
    fastrand::seed(1);
    let mut found = 0;
    for round in 0..rounds {
        // Time passes as it would at 100,000 calls a second.
        let now_us = 10 * round as u64;
        let table = pool.table();
        let Some(index) = table.pick(pool.median_us(), now_us, round, None) else { continue };
        let worker = &table.workers[index];
        pool.learn_reply(worker, 200, &load, 100.0 + (index % 7) as f32 * 10.0, now_us + 100, round);
        pool.release(worker, 0, true);
        found += 1;
    }
    found
}
