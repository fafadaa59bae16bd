//! All pools by name: those of the configuration, and those that instances report.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use troupe_node::config::QueueConfig;

use crate::config::BalancerConfig;
use crate::pool::Pool;
use crate::thread::Pools;
use crate::tuning::Tuning;

/// Pools there may be over the life of the process. Names beyond the configured come from peers, and each costs metrics and a
/// queue.
pub(crate) const MAX_POOLS: usize = 256;

/// What all threads share.
pub(crate) struct Directory {
    pub(crate) pools: Arc<Pools>,
    /// Rings when the data path or a worker's actor has changed something that the supervisor must look at.
    pub(crate) wake: Arc<Notify>,
    pub(crate) tuning: Arc<Tuning>,
    shards: usize,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    configured: HashSet<String>,
    /// Named by the configuration before, and no more: they go once they have no worker.
    dropped: HashSet<String>,
    /// Pools that went. Threads may still know them, so a pool that comes back is the same one.
    resting: HashMap<String, Arc<Pool>>,
}

/// More pools were named than there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} pools and upstreams were named since the process started; restart it", MAX_POOLS)]
pub struct TooManyPools;

impl Directory {
    pub(crate) fn new(config: &BalancerConfig, queues: &BTreeMap<String, QueueConfig>, shards: usize) -> Self {
        let directory = Self {
            pools: Arc::new(ArcSwap::from_pointee(HashMap::new())),
            wake: Arc::new(Notify::new()),
            tuning: Arc::new(Tuning::new(config)),
            shards,
            names: Mutex::default(),
        };
        directory.name(&mut directory.names.lock(), queues);
        directory
    }

    /// The pool of this name, made with a default queue if it is new. `None`: there are too many.
    pub(crate) fn get_or_add(&self, name: &str) -> Option<Arc<Pool>> {
        if let Some(pool) = self.pools.load().get(name) {
            return Some(Arc::clone(pool));
        }
        let mut names = self.names.lock();
        if !names.resting.contains_key(name) && self.pools.load().len() + names.resting.len() >= MAX_POOLS {
            return None;
        }
        Some(self.add(&mut names, name, &QueueConfig::default()))
    }

    /// Takes the pools of a new configuration: new bounds for those that are known, and those that are new.
    ///
    /// # Errors
    /// When there would be too many; all stays as it was.
    pub(crate) fn configure(&self, queues: &BTreeMap<String, QueueConfig>) -> Result<(), TooManyPools> {
        let mut names = self.names.lock();
        let known = self.pools.load();
        let new = queues.keys().filter(|&name| !known.contains_key(name) && !names.resting.contains_key(name)).count();
        if new > 0 && known.len() + names.resting.len() + new > MAX_POOLS {
            return Err(TooManyPools);
        }
        self.name(&mut names, queues);
        Ok(())
    }

    fn name(&self, names: &mut Names, queues: &BTreeMap<String, QueueConfig>) {
        for (name, queue) in queues {
            names.dropped.remove(name);
            self.add(names, name, queue).bound(queue);
        }
        let gone = names.configured.drain().filter(|name| !queues.contains_key(name));
        names.dropped.extend(gone);
        names.configured.extend(queues.keys().cloned());
    }

    fn add(&self, names: &mut Names, name: &str, queue: &QueueConfig) -> Arc<Pool> {
        let mut pools = HashMap::clone(&self.pools.load());
        let make = || {
            let (tuning, wake) = (Arc::clone(&self.tuning), Arc::clone(&self.wake));
            Arc::new(Pool::new(name, queue, tuning, self.shards, wake))
        };
        let rested = names.resting.remove(name);
        let pool = Arc::clone(pools.entry(name.to_owned()).or_insert_with(|| rested.unwrap_or_else(make)));
        self.pools.store(Arc::new(pools));
        pool
    }

    /// Lets those pools go that the configuration no longer names, once they have no worker and no call waits.
    pub(crate) fn retire(&self, has_workers: impl Fn(&Pool) -> bool) {
        let mut names = self.names.lock();
        if names.dropped.is_empty() {
            return;
        }
        let mut pools = HashMap::clone(&self.pools.load());
        let Names { dropped, resting, .. } = &mut *names;
        dropped.retain(|name| {
            let Some(pool) = pools.get(name) else { return false };
            if has_workers(pool) || pool.queue.waiting() > 0 {
                return true;
            }
            tracing::info!(pool = %name, "the pool is no longer configured and has no worker: it is gone");
            if let Some((name, pool)) = pools.remove_entry(name) {
                resting.insert(name, pool);
            }
            false
        });
        self.pools.store(Arc::new(pools));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(names: &[&str], max: u32) -> BTreeMap<String, QueueConfig> {
        names.iter().map(|name| ((*name).to_owned(), QueueConfig { max, ..QueueConfig::default() })).collect()
    }

    fn names(directory: &Directory) -> Vec<String> {
        let mut names: Vec<String> = directory.pools.load().keys().cloned().collect();
        names.sort();
        names
    }

    #[test]
    fn pools_come_and_go_with_the_configuration_and_one_that_comes_back_is_the_same() {
        let directory = Directory::new(&BalancerConfig::default(), &queues(&["a", "b"], 5), 1);
        let first = directory.get_or_add("b").unwrap();
        directory.configure(&queues(&["a", "c"], 7)).unwrap();
        assert_eq!(names(&directory), ["a", "b", "c"], "one that still has workers stays");
        assert_eq!(directory.get_or_add("a").unwrap().queue.max(), 7);
        directory.retire(|pool| &*pool.name == "b");
        assert_eq!(names(&directory), ["a", "b", "c"]);
        directory.retire(|_| false);
        assert_eq!(names(&directory), ["a", "c"]);
        directory.configure(&queues(&["b"], 9)).unwrap();
        let again = directory.get_or_add("b").unwrap();
        assert!(Arc::ptr_eq(&first, &again), "a thread that knew it would wait at a pool that nobody serves");
        assert_eq!(again.queue.max(), 9);
    }

    #[test]
    fn pools_that_instances_report_stay_whatever_the_configuration_says() {
        let directory = Directory::new(&BalancerConfig::default(), &queues(&["a"], 5), 1);
        directory.get_or_add("reported").unwrap();
        directory.configure(&queues(&["a"], 5)).unwrap();
        directory.retire(|_| false);
        assert_eq!(names(&directory), ["a", "reported"]);
    }

    #[test]
    fn more_pools_than_there_may_be_change_nothing() {
        let directory = Directory::new(&BalancerConfig::default(), &queues(&["a"], 5), 1);
        let many: Vec<String> = (0..=MAX_POOLS).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(directory.configure(&queues(&many, 5)), Err(TooManyPools));
        assert_eq!(names(&directory), ["a"]);
    }
}
