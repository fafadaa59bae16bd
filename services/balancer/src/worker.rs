//! A worker: one pool of one php-pool instance, or one upstream server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use troupe_contracts::report::Load;

use crate::instances::InstanceId;
use crate::slot::Slot;

/// A worker as the data path sees it. Calls in flight keep it alive after it has left the table.
#[derive(Debug)]
pub(crate) struct Worker {
    /// Counts up over the process's life: never used twice.
    pub(crate) id: u64,
    pub(crate) instance: InstanceId,
    /// What people see.
    pub(crate) name: Arc<str>,
    /// Its share beside the others' at equal speed.
    weight: AtomicU32,
    /// Padded: every call writes here, and must not disturb what other workers' callers read.
    pub(crate) slot: CachePadded<Slot>,
    /// What it last said of itself, for people.
    pub(crate) load: Mutex<Load>,
    /// Why it is in the state it is in, for people.
    pub(crate) reason: Mutex<&'static str>,
}

impl Worker {
    pub(crate) fn new(id: u64, instance: InstanceId, name: Arc<str>, load: Load) -> Self {
        Self {
            id,
            instance,
            name,
            weight: AtomicU32::new(1),
            slot: CachePadded::new(Slot::new(capacity(&load))),
            load: Mutex::new(load),
            reason: Mutex::new("new"),
        }
    }
}

impl Worker {
    /// Gives it this weight; its actor's next look takes it into account.
    pub(crate) fn weigh(&self, weight: u32) {
        self.weight.store(weight.max(1), Ordering::Relaxed);
    }

    pub(crate) fn weight(&self) -> f32 {
        self.weight.load(Ordering::Relaxed) as f32
    }
}

/// Calls that a worker of this load takes at once.
pub(crate) fn capacity(load: &Load) -> u32 {
    load.slots.saturating_add(load.prefetch)
}
