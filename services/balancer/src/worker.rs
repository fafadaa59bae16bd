//! A worker: one pool of one php-pool instance, or one upstream server.

use std::sync::Arc;

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
    pub(crate) weight: f32,
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
            weight: 1.0,
            slot: CachePadded::new(Slot::new(capacity(&load))),
            load: Mutex::new(load),
            reason: Mutex::new("new"),
        }
    }
}

impl Worker {
    /// The same worker with this weight.
    pub(crate) fn weighing(self, weight: u32) -> Self {
        Self { weight: weight.max(1) as f32, ..self }
    }
}

/// Calls that a worker of this load takes at once.
pub(crate) fn capacity(load: &Load) -> u32 {
    load.slots.saturating_add(load.prefetch)
}
