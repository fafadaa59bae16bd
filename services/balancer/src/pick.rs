//! The pick: which worker takes the next call. O(1), no lock, no message.

use std::sync::Arc;

use crate::worker::Worker;

/// Up to this many workers all are compared. Beyond, the better of two random ones: nearly as even, and it does not herd
/// when several balancers decide on what they last heard.
pub(crate) const SCAN_ALL: usize = 8;
/// A pick that loses its place to another thread this often leaves the call to the queue, which cannot lose it.
const LOST_RACES: usize = 4;

/// The workers of a pool that may be called. Published whole; threads keep the one they last saw.
#[derive(Debug)]
pub(crate) struct Table {
    /// Counts up with each change.
    pub(crate) generation: u64,
    /// First those that were ready when the table was made, then the ejected ones.
    pub(crate) workers: Box<[Arc<Worker>]>,
    /// How many of them were ready.
    pub(crate) ready: usize,
}

impl Table {
    pub(crate) fn empty() -> Self {
        Self { generation: 0, workers: Box::new([]), ready: 0 }
    }

    /// Picks a worker and counts the call in; the worker's index. `None`: all are at their caps.
    ///
    /// `turn` breaks ties and should count up with each call of a thread; `except` is passed over.
    pub(crate) fn pick(&self, median_us: f32, now_us: u64, turn: usize, except: Option<u64>) -> Option<usize> {
        let view = View { table: self, median_us, now_us, except };
        match self.ready {
            0 => view.pick_among(self.workers.len(), turn, true),
            ready => match view.pick_among(ready, turn, false) {
                // All of them may have been ejected since the table was made.
                None if self.workers[..ready].iter().all(|worker| worker.slot.ejected()) => {
                    view.pick_among(self.workers.len(), turn, true)
                }
                picked => picked,
            },
        }
    }

    /// Picks a worker for a call whose body is on its way, which takes no place yet; the worker's index. `None`: there is none.
    pub(crate) fn pick_for_upload(&self, median_us: f32, now_us: u64, turn: usize) -> Option<usize> {
        let ejected_too = self.ready == 0;
        let count = if ejected_too { self.workers.len() } else { self.ready };
        // As many as a pick compares at most, from where it is this call's turn to begin.
        let compared = (0..count.min(SCAN_ALL)).map(|step| (turn + step) % count);
        let costs = compared.map(|index| (index, self.workers[index].slot.upload_cost(median_us, now_us, ejected_too)));
        let cheapest = costs.min_by(|(_, one), (_, other)| one.total_cmp(other));
        cheapest.filter(|(_, cost)| *cost < f32::INFINITY).map(|(index, _)| index)
    }
}

struct View<'a> {
    table: &'a Table,
    median_us: f32,
    now_us: u64,
    except: Option<u64>,
}

impl View<'_> {
    fn pick_among(&self, count: usize, turn: usize, ejected_too: bool) -> Option<usize> {
        if count == 0 {
            return None;
        }
        for _ in 0..LOST_RACES {
            let chosen = if count <= SCAN_ALL {
                self.cheapest(count, turn, ejected_too)
            } else {
                self.better_of_two(count, ejected_too)
            }?;
            if self.table.workers[chosen].slot.admit(self.now_us) {
                return Some(chosen);
            }
        }
        None
    }

    /// The cheapest of the first `count`; the first in turn among equals.
    fn cheapest(&self, count: usize, turn: usize, ejected_too: bool) -> Option<usize> {
        let mut best = (f32::INFINITY, None);
        let mut index = turn % count;
        for _ in 0..count {
            let cost = self.cost(index, ejected_too);
            if cost < best.0 {
                best = (cost, Some(index));
            }
            index = if index + 1 == count { 0 } else { index + 1 };
        }
        best.1
    }

    /// The better of two random ones; a third when both are full; then any that has room, before a call has to wait.
    fn better_of_two(&self, count: usize, ejected_too: bool) -> Option<usize> {
        let first = fastrand::usize(..count);
        // Uniform over the others: it never is the first again.
        let second = (first + 1 + fastrand::usize(..count - 1)) % count;
        let (one, two) = (self.cost(first, ejected_too), self.cost(second, ejected_too));
        if one.min(two) < f32::INFINITY {
            return Some(if one <= two { first } else { second });
        }
        let third = fastrand::usize(..count);
        (0..count).map(|step| (third + step) % count).find(|&index| self.cost(index, ejected_too) < f32::INFINITY)
    }

    fn cost(&self, index: usize, ejected_too: bool) -> f32 {
        let worker = &self.table.workers[index];
        if self.except == Some(worker.id) {
            return f32::INFINITY;
        }
        worker.slot.cost(self.median_us, self.now_us, ejected_too)
    }
}
