//! The pools that calls can reach, published whole to all threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::pool::Pool;

/// See the module. A handful of pools: looking at each is faster than hashing the name.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pools: ArcSwap<Vec<Arc<Pool>>>,
    /// Moves with each change, so that a thread need not touch the list to know that it has it.
    generation: AtomicU64,
}

impl Published {
    pub(crate) fn new(pools: Vec<Arc<Pool>>) -> Self {
        Self { pools: ArcSwap::from_pointee(pools), generation: AtomicU64::new(1) }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn list(&self) -> Arc<Vec<Arc<Pool>>> {
        self.pools.load_full()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Pool>> {
        self.pools.load().iter().find(|pool| pool.name == name).cloned()
    }

    /// Publishes what `change` makes of the list.
    pub(crate) fn change(&self, change: impl Fn(&[Arc<Pool>]) -> Vec<Arc<Pool>>) {
        self.pools.rcu(|pools| change(pools));
        self.generation.fetch_add(1, Ordering::Release);
    }
}
