//! When a restart is one too many, and how long to wait before the next.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How many restarts within how long are borne; one more escalates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts that are borne.
    pub restarts: usize,
    /// The span they are counted in.
    pub within: Duration,
}

impl Default for Intensity {
    fn default() -> Self {
        Self { restarts: 5, within: Duration::from_secs(10) }
    }
}

/// Pauses before restarts: doubled each time from `min` to `max`, each shortened by up to a half at random, so that
/// actors that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Duration::from_millis(50), max: Duration::from_secs(5) }
    }
}

/// The restarts of one actor.
#[derive(Debug)]
pub(super) struct Restarts {
    intensity: Intensity,
    backoff: Backoff,
    recent: VecDeque<Instant>,
    /// Restarts since the actor last lived for the whole span.
    streak: u32,
}

impl Restarts {
    pub(super) fn new(intensity: Intensity, backoff: Backoff) -> Self {
        Self { intensity, backoff, recent: VecDeque::new(), streak: 0 }
    }

    /// The actor failed at `now` after it had lived for `lived`: the pause before the restart, or `None` to give up.
    pub(super) fn next(&mut self, now: Instant, lived: Duration) -> Option<Duration> {
        while self.recent.front().is_some_and(|at| now.duration_since(*at) >= self.intensity.within) {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.intensity.restarts {
            return None;
        }
        self.recent.push_back(now);
        if lived >= self.intensity.within {
            self.streak = 0;
        }
        let longest = self.backoff.min.saturating_mul(2_u32.saturating_pow(self.streak)).min(self.backoff.max);
        self.streak = self.streak.saturating_add(1);
        Some(longest.mul_f64(1.0 - fastrand::f64() / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sixth_failure_in_ten_seconds_escalates() {
        let mut restarts = Restarts::new(Intensity::default(), Backoff::default());
        let start = Instant::now();
        for failure in 0..5 {
            assert!(restarts.next(start + Duration::from_secs(failure), Duration::ZERO).is_some());
        }
        assert_eq!(restarts.next(start + Duration::from_secs(9), Duration::ZERO), None);
        // Two have left the span by now.
        assert!(restarts.next(start + Duration::from_secs(11), Duration::ZERO).is_some());
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_after_a_long_life() {
        let intensity = Intensity { restarts: usize::MAX, within: Duration::from_secs(10) };
        let mut restarts = Restarts::new(intensity, Backoff::default());
        let now = Instant::now();
        for longest in [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let pause = restarts.next(now, Duration::ZERO).expect("never too many");
            let longest = Duration::from_millis(longest);
            assert!(pause <= longest && pause >= longest / 2, "{pause:?} of {longest:?}");
        }
        let pause = restarts.next(now, Duration::from_secs(10)).expect("never too many");
        assert!(pause <= Duration::from_millis(50));
    }

    proptest! {
        #[test]
        fn never_more_restarts_than_borne_in_any_span(gaps in proptest::collection::vec(0_u64..6_000, 1..200)) {
            let intensity = Intensity::default();
            let mut restarts = Restarts::new(intensity, Backoff::default());
            let mut now = Instant::now();
            let mut granted: Vec<Instant> = Vec::new();
            for gap in gaps {
                now += Duration::from_millis(gap);
                if let Some(pause) = restarts.next(now, Duration::from_millis(gap)) {
                    prop_assert!(pause <= Backoff::default().max);
                    granted.push(now);
                }
                let recent = granted.iter().filter(|at| now.duration_since(**at) < intensity.within).count();
                prop_assert!(recent <= intensity.restarts);
            }
        }
    }
}
