//! How long those who read an answer fast are held up by those who read it slowly.

use std::time::{Duration, Instant};

/// Longest that they are before whoever is in their way is left behind: a line that only falters has come back by then, and nobody
/// takes the answer for one that hangs.
const LONGEST: Duration = Duration::from_secs(2);

/// How much of it comes back for each second in which nobody is held up. Who reads an eighth as fast as the fastest is borne for
/// ever, for the fastest may be so only because they share a thread with nobody: where processor time is short, each thread has as
/// much, and some have many readers to serve. To break an answer off does more harm than to be slow.
const RESTORED: u32 = 7;

/// How much of it is left. What was used comes back in the time in which nobody is held up: so a slow reader makes no answer take
/// more than eight times its time, and one that falters now and then is not left behind for it in the end.
#[derive(Debug)]
pub(super) struct Patience {
    left: Duration,
    /// Since when it grows, or is used.
    since: Instant,
}

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: LONGEST, since: now }
    }

    /// Somebody is held up from `now` on: for how long that may last.
    pub(super) fn begin(&mut self, now: Instant) -> Duration {
        let restored = now.duration_since(self.since).saturating_mul(RESTORED);
        self.left = self.left.saturating_add(restored).min(LONGEST);
        self.since = now;
        self.left
    }

    /// Nobody is any more.
    pub(super) fn end(&mut self, now: Instant) {
        self.left = self.left.saturating_sub(now.duration_since(self.since));
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left when somebody was held up for `held` after each `free`, `times` over.
    fn left(free: Duration, held: Duration, times: u32) -> Duration {
        let mut now = Instant::now();
        let mut patience = Patience::new(now);
        for _ in 0..times {
            now += free;
            patience.begin(now);
            now += held;
            patience.end(now);
        }
        patience.begin(now)
    }

    #[test]
    fn who_reads_an_eighth_as_fast_is_borne_for_ever_and_who_is_slower_is_not() {
        let free = Duration::from_millis(100);
        assert_eq!(left(free, 7 * free, 1000), LONGEST - 7 * free);
        assert_eq!(left(free, 7 * free + Duration::from_millis(10), 1000), Duration::ZERO);
        assert_eq!(left(free, LONGEST, 1), Duration::ZERO, "in a row");
    }

    #[test]
    fn time_in_which_nobody_is_held_up_is_saved_only_up_to_a_bound() {
        assert_eq!(left(Duration::from_secs(3600), LONGEST / 2, 9), LONGEST / 2);
    }
}
