//! Does not ask who does not answer: after some failures in a row nobody is made to wait, but for one request each second
//! that tries.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Failures in a row after which nobody asks.
const FAILURES: u32 = 5;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// One for the process.
#[derive(Debug)]
pub(super) struct Breaker {
    started: Instant,
    failures: AtomicU32,
    /// When the next one may try, in milliseconds since `started`.
    next: AtomicU64,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), failures: AtomicU32::new(0), next: AtomicU64::new(0) }
    }

    /// Whether to ask now.
    pub(super) fn lets_through(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < FAILURES || {
            let (now, next) = (self.millis(), self.next.load(Ordering::Relaxed));
            // One of those who come now.
            now >= next
                && self
                    .next
                    .compare_exchange(next, now + PAUSE.as_millis() as u64, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
        }
    }

    /// An answer came in time.
    pub(super) fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// None came. Whether that was the last straw.
    pub(super) fn failed(&self) -> bool {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before + 1 == FAILURES {
            self.next.store(self.millis() + PAUSE.as_millis() as u64, Ordering::Relaxed);
        }
        // It does not wrap around to closed.
        if before > u32::MAX / 2 {
            self.failures.store(FAILURES, Ordering::Relaxed);
        }
        before + 1 == FAILURES
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_closes_it() {
        let breaker = Breaker::new();
        for n in 1..FAILURES {
            assert!(breaker.lets_through() && !breaker.failed(), "{n}");
        }
        assert!(breaker.failed() && !breaker.lets_through());
        breaker.next.store(0, Ordering::Relaxed);
        assert!(breaker.lets_through(), "one tries");
        assert!(!breaker.lets_through(), "and nobody else");
        breaker.answered();
        assert!(breaker.lets_through() && breaker.lets_through());
    }
}
