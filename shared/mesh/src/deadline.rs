//! The time a call may still take.

use std::time::{Duration, Instant};

/// The wire's unit for a remaining budget.
const TICK: Duration = Duration::from_micros(100);

/// When a call's first reply byte is due, on this process's own clock.
///
/// On the wire it is the *remaining* budget, so that the clocks of two hosts may differ; the receiver counts it from the
/// moment the frame was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline `budget` from now.
    pub fn after(budget: Duration) -> Self {
        Self(Instant::now() + budget)
    }

    /// A deadline at `instant`.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The deadline of a call that came with `ticks` of 100 µs left and was read at `now`.
    pub fn from_ticks(ticks: u32, now: Instant) -> Self {
        Self(now + TICK * ticks)
    }

    /// What is left at `now`, in ticks of 100 µs, rounded down; 0 once it has passed. Saturates at about 119 hours.
    pub fn ticks(self, now: Instant) -> u32 {
        u32::try_from(self.0.saturating_duration_since(now).as_micros() / TICK.as_micros()).unwrap_or(u32::MAX)
    }

    /// The moment itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left, zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn expired(self) -> bool {
        self.remaining().is_zero()
    }

    /// The nearer of two: a stage may shorten a budget, never lengthen it.
    #[must_use]
    pub fn or_earlier(self, other: Self) -> Self {
        self.min(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_carry_what_is_left() {
        let now = Instant::now();
        let deadline = Deadline::at(now + Duration::from_millis(25));
        assert_eq!(deadline.ticks(now), 250);
        assert_eq!(Deadline::from_ticks(250, now), deadline);
        assert_eq!(deadline.ticks(now + Duration::from_secs(1)), 0);
        assert_eq!(Deadline::at(now + Duration::from_secs(1_000_000)).ticks(now), u32::MAX);
    }
}
