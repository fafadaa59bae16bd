//! Whether Redis is there: when to try again, and what is worth a line in the log.
//!
//! Pure: no Redis, no clock.

use std::time::Duration;

use tokio::time::Instant;

/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest: what an instance that starts beside a Redis that comes back waits for at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Failures in a row that make an outage: one answer that came too late is none.
const FAILURES: u32 = 2;

#[derive(Debug)]
pub(super) struct Health {
    /// In a row.
    failures: u32,
    /// When it answered last, or when the first try was made.
    answered: Instant,
    away: bool,
}

/// What a failure means.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// How long to wait before the next try, before jitter.
    pub(super) pause: Duration,
    /// Whether this failure begins an outage.
    pub(super) news: bool,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self { failures: 0, answered: now, away: false }
    }

    pub(super) fn failed(&mut self) -> Failed {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let news = !self.away && self.failures >= FAILURES;
        self.away |= news;
        Failed { pause, news }
    }

    /// How long the outage was that this answer ends, if one was told.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Duration> {
        let outage = self.away.then(|| now.saturating_duration_since(self.answered));
        *self = Self::new(now);
        outage
    }

    /// Whether the last try failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// How old what is known is beyond a pause between two polls: no time at all while it answers.
    pub(super) fn stale(&self, now: Instant) -> Duration {
        if self.is_failing() { now.saturating_duration_since(self.answered) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_so_is_its_end() {
        let start = Instant::now();
        let mut health = Health::new(start);
        let news: Vec<bool> = (0..20).map(|_| health.failed().news).collect();
        assert_eq!(news.iter().filter(|news| **news).count(), 1);
        assert!(!news[0], "one failure is no outage");
        let later = start + Duration::from_secs(9);
        assert_eq!(health.stale(later), Duration::from_secs(9));
        assert_eq!(health.answered(later), Some(Duration::from_secs(9)));
        assert_eq!(health.answered(later), None);
        assert_eq!(health.stale(later + Duration::from_secs(1)), Duration::ZERO);
        health.failed();
        assert_eq!(health.answered(later), None, "what was not told has no end");
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut health = Health::new(Instant::now());
        let pauses: Vec<Duration> = (0..100).map(|_| health.failed().pause).collect();
        assert_eq!(pauses[..3], [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]);
        assert!(pauses[5..].iter().all(|pause| *pause == LONGEST_PAUSE));
    }
}
