//! Whether this process's memory may be believed: for a second from the moment at which it sent a beat that the cache
//! service has answered since.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use troupe_cache::entry::Entry;
use troupe_cache::reuse::Reuse;
use troupe_cache::service::WATCH_LEASE;
use troupe_cache::time::Moment;
use troupe_contracts::cache::watch::Position;

/// What requests ask: one look at an atomic and at the monotonic clock.
#[derive(Debug)]
pub(in crate::cache) struct Coherence {
    started: Instant,
    /// Until when, in nanoseconds since `started`; 0: it has never been believed.
    until: AtomicU64,
    /// The last purge that was done here.
    position: Mutex<Option<Position>>,
}

impl Coherence {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), until: AtomicU64::new(0), position: Mutex::default() }
    }

    /// Whether what is stored here may be given. To be asked *after* it was looked up: what a purge took out before was
    /// not found, and one that is answered after this is waited for.
    pub(super) fn is_live(&self) -> bool {
        self.now() < self.until.load(Ordering::Acquire)
    }

    /// The beat that was sent at `sent` is answered.
    pub(super) fn extend(&self, sent: Instant) {
        let until = nanos((sent + WATCH_LEASE).saturating_duration_since(self.started));
        self.until.fetch_max(until, Ordering::Release);
    }

    /// It may not be believed from now on.
    pub(super) fn cut(&self) {
        self.until.fetch_min(self.now(), Ordering::Release);
    }

    /// For how long it has not been believed; nothing when it is.
    fn cut_for(&self) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(self.until.load(Ordering::Acquire)))
    }

    pub(super) fn position(&self) -> Option<Position> {
        *self.position.lock()
    }

    pub(super) fn set_position(&self, position: Position) {
        *self.position.lock() = Some(position);
    }

    /// What may be done with `entry`, which would be `reuse`d if everything here could be believed. While it cannot, what
    /// is stored is validated first, and stands in where that fails for as long as `stale_when_cut`, or its own
    /// `stale-if-error`, allows.
    pub(in crate::cache) fn believed(
        &self,
        reuse: Reuse,
        entry: &Entry,
        now: Moment,
        stale_when_cut: Duration,
    ) -> Reuse {
        if self.is_live() {
            return reuse;
        }
        match reuse {
            Reuse::Fresh | Reuse::Stale | Reuse::WhileRevalidating => {
                let terms = entry.terms();
                let stale_for = u64::try_from(entry.fresh_for(now).saturating_neg()).unwrap_or(0);
                let by_itself = terms.stale_if_error > 0 && stale_for <= terms.stale_if_error;
                let by_config = stale_for == 0 && self.cut_for() <= stale_when_cut;
                let on_error = !terms.must_revalidate && !terms.no_cache && (by_itself || by_config);
                Reuse::Validate { by_request: false, on_error }
            }
            Reuse::Validate { .. } | Reuse::NotForThis => reuse,
        }
    }

    fn now(&self) -> u64 {
        nanos(self.started.elapsed())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::sample;

    const NOW: Moment = Moment::from_secs(1_000_000);
    const LONG: Duration = Duration::from_secs(1000);

    fn entry(control: &str) -> Entry {
        sample::entry(control, NOW)
    }

    #[test]
    fn it_is_believed_for_a_second_from_the_sending_of_the_beat() {
        let coherence = Coherence::new();
        assert!(!coherence.is_live(), "never heard of anything");
        let now = Instant::now();
        coherence.extend(now);
        assert!(coherence.is_live());
        coherence.cut();
        assert!(!coherence.is_live());
        // An answer to a beat of long ago, as after a pause of the whole process, is worth nothing.
        if let Some(long_ago) = now.checked_sub(WATCH_LEASE) {
            coherence.extend(long_ago);
            assert!(!coherence.is_live());
        }
        coherence.extend(Instant::now());
        assert!(coherence.is_live());
    }

    #[test]
    fn while_it_is_not_nothing_is_given_unasked() {
        let coherence = Coherence::new();
        let validate = |on_error| Reuse::Validate { by_request: false, on_error };
        let plain = entry("max-age=60");
        for reuse in [Reuse::Fresh, Reuse::Stale, Reuse::WhileRevalidating] {
            assert_eq!(coherence.believed(reuse, &plain, NOW, LONG), validate(true));
            assert_eq!(coherence.believed(reuse, &plain, NOW, Duration::ZERO), validate(false));
        }
        assert_eq!(coherence.believed(Reuse::NotForThis, &plain, NOW, LONG), Reuse::NotForThis);
        let strict = entry("max-age=60, must-revalidate");
        assert_eq!(coherence.believed(Reuse::Fresh, &strict, NOW, LONG), validate(false));
        let lenient = entry("max-age=60, stale-if-error=10");
        assert_eq!(coherence.believed(Reuse::Fresh, &lenient, NOW, Duration::ZERO), validate(true));
        let old = NOW.after(Duration::from_secs(65));
        assert_eq!(coherence.believed(Reuse::Stale, &lenient, old, Duration::ZERO), validate(true));
        assert_eq!(coherence.believed(Reuse::Stale, &plain, old, LONG), validate(false), "stale of age");
        coherence.extend(Instant::now());
        assert_eq!(coherence.believed(Reuse::Fresh, &plain, NOW, Duration::ZERO), Reuse::Fresh);
    }
}
