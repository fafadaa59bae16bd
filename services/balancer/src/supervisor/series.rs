//! Which workers have series of their own: so many of a pool at once, and their places go on to others when they leave.

use std::collections::HashMap;
use std::sync::Arc;

use crate::meters::WorkerMeters;
use crate::pool::Pool;
use crate::worker::Worker;

/// Workers of a pool that have series of their own at one time; more are in the snapshot only.
const MOST: usize = 256;

/// The names that have series, by pool, with how many workers of each there are: instances may share one.
#[derive(Debug, Default)]
pub(super) struct SeriesPlaces(HashMap<Arc<str>, HashMap<Arc<str>, usize>>);

impl SeriesPlaces {
    /// Takes a place; `None` while all are taken.
    pub(super) fn take(&mut self, pool: &Pool, worker: &Worker) -> Option<WorkerMeters> {
        let names = self.0.entry(Arc::clone(&pool.name)).or_default();
        if names.len() >= MOST && !names.contains_key(&worker.name) {
            return None;
        }
        *names.entry(Arc::clone(&worker.name)).or_default() += 1;
        Some(WorkerMeters::new(&pool.name, &worker.name))
    }

    /// Gives a place back; the series end with the last worker of their name.
    pub(super) fn give_back(&mut self, pool: &Pool, worker: &Worker, meters: &WorkerMeters) {
        let Some(names) = self.0.get_mut(&pool.name) else { return };
        if let Some(count) = names.get_mut(&worker.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(&worker.name);
                meters.end();
            }
        }
        if names.is_empty() {
            self.0.remove(&pool.name);
        }
    }
}
