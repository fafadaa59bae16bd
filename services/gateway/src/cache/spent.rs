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
pub(super) struct Clock {
    spent: Cell<Spent>,
    /// What is being waited for, and since when.
    open: Cell<Option<(Part, Instant)>>,
}

/// One of the times of [`Spent`].
type Part = fn(&mut Spent) -> &mut Duration;

impl Clock {
    /// Begins with what the look-up took.
    pub(super) fn after(l1: Duration) -> Self {
        Self { spent: Cell::new(Spent { l1, ..Spent::default() }), open: Cell::default() }
    }

    /// What was spent up to now, with what is being waited for.
    pub(super) fn spent(&self) -> Spent {
        let mut spent = self.spent.get();
        if let Some((part, began)) = self.open.get() {
            *part(&mut spent) += began.elapsed();
        }
        spent
    }

    /// Waits for `work`, and counts it among what `part` names.
    pub(super) async fn count<T>(&self, part: Part, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        self.open.set(Some((part, began)));
        let done = work.await;
        self.open.set(None);
        self.add(part, began);
        done
    }

    /// Counts the time since `began`.
    pub(super) fn add(&self, part: Part, began: Instant) {
        let mut spent = self.spent.get();
        *part(&mut spent) += began.elapsed();
        self.spent.set(spent);
    }

    /// A reply came, or the failure that stands for it.
    pub(super) fn replied(&self, times: Times) {
        self.spent.set(Spent { times, ..self.spent.get() });
    }
}
