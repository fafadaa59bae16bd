//! When a call may be tried again, and how often that may happen.

use std::sync::atomic::{AtomicI64, Ordering};

use troupe_mesh::failure::{Failure, Outcome, Started};

/// Tries a call gets in all. More would only add load where load is the likely cause.
pub(crate) const MAX_TRIES: u32 = 3;
/// One retry, in the budget's unit.
const RETRY: i64 = 1_000;
/// What a call adds: 10 % of a retry.
const PER_CALL: i64 = RETRY / 10;
/// Retries that a pool may make before it has had any calls, and the most it may have spared: a quiet pool's few calls
/// can be retried, and a burst of failures cannot spend what an hour has saved.
const LEAST: i64 = 10 * RETRY;
const MOST: i64 = 100 * RETRY;

/// Retries a pool has left: a token bucket.
#[derive(Debug)]
pub(crate) struct Budget(AtomicI64);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(AtomicI64::new(LEAST))
    }

    /// `calls` more calls were made.
    pub(crate) fn earn(&self, calls: u32) {
        let earned = i64::from(calls) * PER_CALL;
        // Adding beyond the most is put right by the next; the bound need not be exact.
        if self.0.load(Ordering::Relaxed) < MOST {
            self.0.fetch_add(earned, Ordering::Relaxed);
        }
    }

    /// Takes one retry, if there is one.
    pub(crate) fn spend(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                (left >= RETRY).then_some(left.min(MOST) - RETRY)
            })
            .is_ok()
    }
}

/// What may be done after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The worker was full and did not start: it waits for a place again, for free.
    Requeue,
    /// Proven not to have started.
    RetryNotStarted,
    /// It may have started, but may be repeated.
    RetryIdempotent,
    /// The caller gets the failure.
    Final,
}

/// Judges a failure that came instead of the first byte of a reply.
pub(crate) fn judge(failure: &Failure, idempotent: bool) -> Verdict {
    match (failure.outcome, failure.started) {
        (Outcome::Refused | Outcome::Deadline | Outcome::Cancelled, _) => Verdict::Final,
        (Outcome::Overloaded, _) if failure.lacks_place() => Verdict::Requeue,
        (Outcome::Overloaded, _) => Verdict::Final,
        (_, Started::No) => Verdict::RetryNotStarted,
        // Not `Internal`: that is code which ran and said that it failed.
        (Outcome::Unreachable | Outcome::Broken, Started::Maybe) if idempotent => Verdict::RetryIdempotent,
        _ => Verdict::Final,
    }
}

#[cfg(test)]
mod tests {
    use troupe_mesh::failure::Stage;

    use super::*;

    #[test]
    fn only_what_is_safe_is_repeated() {
        let broken = Failure::new(Outcome::Broken, Stage::PhpPool, "gone");
        assert_eq!(judge(&broken, false), Verdict::Final);
        assert_eq!(judge(&broken, true), Verdict::RetryIdempotent);
        assert_eq!(judge(&broken.clone().not_started(), false), Verdict::RetryNotStarted);
        assert_eq!(judge(&broken.answered(), true), Verdict::Final);
        let full = Failure::overloaded(Stage::PhpPool, "full", std::time::Duration::from_secs(1));
        assert_eq!(judge(&full, false), Verdict::Requeue);
        let exhausted = Failure::exhausted(Stage::PhpPool, "no room", std::time::Duration::from_secs(1));
        assert_eq!(judge(&exhausted, true), Verdict::Final);
        for outcome in [Outcome::Refused, Outcome::Deadline, Outcome::Cancelled] {
            let failure = Failure::new(outcome, Stage::PhpPool, "no").not_started();
            assert_eq!(judge(&failure, true), Verdict::Final);
        }
    }

    #[test]
    fn retries_stay_within_a_tenth_of_the_calls() {
        let budget = Budget::new();
        let spend_all = |budget: &Budget| (0..10_000).take_while(|_| budget.spend()).count();
        assert_eq!(spend_all(&budget), 10);
        budget.earn(500);
        assert_eq!(spend_all(&budget), 50);
        budget.earn(10_000_000);
        assert_eq!(spend_all(&budget), 100);
    }
}
