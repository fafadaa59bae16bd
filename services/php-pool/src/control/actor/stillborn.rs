//! Processes that end before their first call: how many in a row, how long to wait before the next, what is told of it.

use std::time::{Duration, Instant};

use super::{FIRST_PAUSE, LONGEST_PAUSE, PoolActor};
use crate::pool::CrashLoop;

/// So many in a row are no accident: new ones are started after a pause only, and people are told.
const LOOP: u32 = 3;
/// A row to which none was added for so long is over, if a process is up: the longest pause, its jitter and a slow start are
/// shorter.
const OVER_AFTER: Duration = Duration::from_secs(30);

/// A row of such processes.
#[derive(Debug, Default)]
pub(super) struct Stillborn {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Stillborn {
    /// One more; how long to wait before another process is started, if that is to wait.
    pub(super) fn another(&mut self, now: Instant) -> Option<Duration> {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.last = Some(now);
        let beyond = self.in_a_row.checked_sub(LOOP)?;
        Some((FIRST_PAUSE * 2_u32.saturating_pow(beyond.min(16))).min(LONGEST_PAUSE))
    }

    /// Whether a process that was started at `since`, and does not belong to the row, ends it: one that is older than the last
    /// of the row proves nothing of those that are started now.
    pub(super) fn ended_by(&self, since: Instant) -> bool {
        self.last.is_some_and(|last| since > last)
    }

    fn is_loop(&self) -> bool {
        self.in_a_row >= LOOP
    }
}

impl PoolActor {
    /// Ends the row once a process has taken a call that was started since, or none was added for long.
    pub(super) fn end_crash_loop(&mut self, now: Instant) {
        let Some(last) = self.stillborn.last else { return };
        let old = now.duration_since(last) >= OVER_AFTER;
        let mut up = self.processes.values().filter(|record| record.up && record.serves());
        if up.any(|record| old || (self.stillborn.ended_by(record.since) && record.info.worked() > 0)) {
            self.no_crash_loop();
        }
    }

    pub(super) fn no_crash_loop(&mut self) {
        self.stillborn = Stillborn::default();
        *self.pool.crash_loop.lock() = None;
    }

    /// A process has ended before its first call: people are told once there are several in a row.
    pub(super) fn tell_of_crash_loop(&self, status: &str, tail: &str) {
        if !self.stillborn.is_loop() {
            return;
        }
        // What PHP says last is why; the rest is in the log.
        let last = match tail.lines().next_back() {
            Some(line) => format!("{status}: {line}"),
            None => status.to_owned(),
        };
        *self.pool.crash_loop.lock() = Some(CrashLoop { processes: self.stillborn.in_a_row, last });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_in_a_row_is_a_loop_and_pauses_grow_to_a_bound() {
        let (mut row, now) = (Stillborn::default(), Instant::now());
        assert_eq!((row.another(now), row.another(now), row.is_loop()), (None, None, false));
        assert_eq!(row.another(now), Some(FIRST_PAUSE));
        assert!(row.is_loop());
        assert_eq!(row.another(now), Some(FIRST_PAUSE * 2));
        for _ in 0..100 {
            assert!(row.another(now).unwrap() <= LONGEST_PAUSE);
        }
        assert_eq!(row.another(now), Some(LONGEST_PAUSE));
    }

    #[test]
    fn only_a_process_that_was_started_since_ends_the_row() {
        let (mut row, before) = (Stillborn::default(), Instant::now());
        let last = before + Duration::from_secs(1);
        assert!(!row.ended_by(last), "there is none");
        row.another(last);
        assert!(!row.ended_by(before));
        assert!(row.ended_by(last + Duration::from_secs(1)));
    }
}
