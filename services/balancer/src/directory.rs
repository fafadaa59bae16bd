//! All pools by name: those of the configuration, and those that instances report.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use troupe_node::config::QueueConfig;

use crate::config::BalancerConfig;
use crate::pool::Pool;
use crate::thread::Pools;

/// Pools there may be. Names beyond the configured come from peers, and each costs metrics and a queue.
pub(crate) const MAX_POOLS: usize = 256;

/// Reports more often than this cost more than they tell.
const LEAST_REPORT_INTERVAL: Duration = Duration::from_millis(20);

/// What all threads share.
pub(crate) struct Directory {
    pub(crate) pools: Arc<Pools>,
    /// Rings when the data path or a worker's actor has changed something that the supervisor must look at.
    pub(crate) wake: Arc<Notify>,
    pub(crate) report_interval: Duration,
    pub(crate) slow_start: Duration,
    decay: Duration,
    shards: usize,
    adding: Mutex<()>,
}

impl Directory {
    pub(crate) fn new(config: &BalancerConfig, queues: &BTreeMap<String, QueueConfig>, shards: usize) -> Self {
        let directory = Self {
            pools: Arc::new(ArcSwap::from_pointee(HashMap::new())),
            wake: Arc::new(Notify::new()),
            report_interval: config.report_interval.get().max(LEAST_REPORT_INTERVAL),
            slow_start: config.slow_start.get(),
            decay: config.decay.get(),
            shards,
            adding: Mutex::new(()),
        };
        for (name, queue) in queues {
            directory.add(name, queue);
        }
        directory
    }

    /// The pool of this name, made with a default queue if it is new. `None`: there are too many.
    pub(crate) fn get_or_add(&self, name: &str) -> Option<Arc<Pool>> {
        if let Some(pool) = self.pools.load().get(name) {
            return Some(Arc::clone(pool));
        }
        if self.pools.load().len() >= MAX_POOLS {
            return None;
        }
        Some(self.add(name, &QueueConfig::default()))
    }

    fn add(&self, name: &str, queue: &QueueConfig) -> Arc<Pool> {
        let _one_at_a_time = self.adding.lock();
        let mut pools = HashMap::clone(&self.pools.load());
        let wake = Arc::clone(&self.wake);
        let make = || Arc::new(Pool::new(name, queue, self.decay, self.shards, wake));
        let pool = Arc::clone(pools.entry(name.to_owned()).or_insert_with(make));
        self.pools.store(Arc::new(pools));
        pool
    }
}
