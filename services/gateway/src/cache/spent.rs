//! Where the time of a request of a cached route goes, tier by tier.

use std::cell::Cell;
use std::time::{Duration, Instant};

use troupe_contracts::invoke::Times;

/// What was spent, in all. A stage that was not passed has no time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Looking into the store in memory.
    pub(crate) l1: Duration,
    /// Waiting for another request of this process that fetches the same.
    pub(crate) flight: Duration,
    /// Asking the second tier, with what it answered read whole.
    pub(crate) l2: Duration,
    /// Waiting for another gateway that fetches the same.
    pub(crate) lease: Duration,
    /// The calls behind the cache, to their replies' heads.
    pub(crate) call: Duration,
    /// What the last of their replies said of its time.
    pub(crate) times: Times,
}

/// Adds it up, for one fetch.
#[derive(Debug, Default)]
pub(super) struct Clock(Cell<Spent>);

impl Clock {
    /// Begins with what the look-up took.
    pub(super) fn after(l1: Duration) -> Self {
        Self(Cell::new(Spent { l1, ..Spent::default() }))
    }

    pub(super) fn spent(&self) -> Spent {
        self.0.get()
    }

    /// Waits for `work`, and counts it among what `part` names.
    pub(super) async fn count<T>(&self, part: fn(&mut Spent) -> &mut Duration, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.add(part, began);
        done
    }

    /// Counts the time since `began`.
    pub(super) fn add(&self, part: fn(&mut Spent) -> &mut Duration, began: Instant) {
        let mut spent = self.0.get();
        *part(&mut spent) += began.elapsed();
        self.0.set(spent);
    }

    /// A reply came.
    pub(super) fn replied(&self, times: Times) {
        self.0.set(Spent { times, ..self.0.get() });
    }
}
