//! Who watches, until when each may give what it has stored, and what each has confirmed. Without clock, I/O or threads.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use troupe_contracts::cache::Uid;

/// For how long a watcher may give what it has stored, counted by its own clock from the moment it sent a beat that was
/// answered; counted here from the moment the beat was read, which is later.
pub const WATCH_LEASE: Duration = Duration::from_secs(1);
/// Watchers at most; each is a gateway.
const MAX_WATCHERS: usize = 1024;

/// The watchers of an instance of the service.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    list: HashMap<Uid, Watcher>,
}

#[derive(Debug)]
struct Watcher {
    /// Until when it may give what it has stored; it may not yet.
    until: Option<Instant>,
    /// The last purge it has done.
    applied: u64,
    /// Streams of it that are open: two for a moment when it comes anew.
    streams: usize,
}

/// Where the confirmation of a purge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Watchers that have done it.
    pub(crate) confirmed: u32,
    /// Watchers that have not, and may not give anything.
    pub(crate) lapsed: u32,
    /// When the next of those lapses that have neither; `None`: there is none, and the purge is confirmed.
    pub(crate) wait_until: Option<Instant>,
}

impl Watchers {
    /// A stream of a watcher begins that has done all up to `applied`. False when there are too many.
    ///
    /// What was granted to it over a stream before still holds.
    pub(crate) fn join(&mut self, uid: Uid, applied: u64, now: Instant) -> bool {
        self.sweep(now);
        if !self.list.contains_key(&uid) && self.list.len() >= MAX_WATCHERS {
            return false;
        }
        let watcher = self.list.entry(uid).or_insert(Watcher { until: None, applied, streams: 0 });
        watcher.applied = applied;
        watcher.streams += 1;
        true
    }

    /// A stream ends. The watcher's lease runs on.
    pub(crate) fn leave(&mut self, uid: &Uid) {
        if let Some(watcher) = self.list.get_mut(uid) {
            watcher.streams = watcher.streams.saturating_sub(1);
        }
    }

    /// Grants a watcher another second.
    pub(crate) fn extend(&mut self, uid: &Uid, now: Instant) {
        if let Some(watcher) = self.list.get_mut(uid) {
            watcher.until = Some(now + WATCH_LEASE);
        }
    }

    /// A watcher has done all up to `seq`.
    pub(crate) fn applied(&mut self, uid: &Uid, seq: u64) {
        if let Some(watcher) = self.list.get_mut(uid) {
            watcher.applied = watcher.applied.max(seq);
        }
    }

    /// The history is another: nobody has done anything of it.
    pub(crate) fn forget(&mut self) {
        self.list.values_mut().for_each(|watcher| watcher.applied = 0);
    }

    /// Who has confirmed purge `seq`.
    pub(crate) fn standing(&self, seq: u64, now: Instant) -> Standing {
        let mut standing = Standing { confirmed: 0, lapsed: 0, wait_until: None };
        for watcher in self.list.values() {
            match watcher.until {
                _ if watcher.applied >= seq => standing.confirmed += 1,
                Some(until) if until > now => {
                    standing.wait_until = Some(standing.wait_until.map_or(until, |other| other.min(until)));
                }
                _ => standing.lapsed += 1,
            }
        }
        standing
    }

    /// The last purge that all have done who may give what they have; `None`: nobody may.
    pub(crate) fn lowest(&self, now: Instant) -> Option<u64> {
        let live = self.list.values().filter(|watcher| watcher.until.is_some_and(|until| until > now));
        live.map(|watcher| watcher.applied).min()
    }

    /// Whether a watcher has a stream.
    pub(crate) fn has_stream(&self, uid: &Uid) -> bool {
        self.list.get(uid).is_some_and(|watcher| watcher.streams > 0)
    }

    /// Watchers with a stream.
    pub(crate) fn len(&self) -> usize {
        self.list.values().filter(|watcher| watcher.streams > 0).count()
    }

    /// Forgets who has neither a stream nor anything to give.
    fn sweep(&mut self, now: Instant) {
        self.list.retain(|_, watcher| watcher.streams > 0 || watcher.until.is_some_and(|until| until > now));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: Uid = [1; 16];
    const B: Uid = [2; 16];

    fn is_confirmed(watchers: &Watchers, seq: u64, now: Instant) -> bool {
        watchers.standing(seq, now).wait_until.is_none()
    }

    #[test]
    fn a_purge_waits_for_every_watcher_that_may_give() {
        let (mut watchers, now) = (Watchers::default(), Instant::now());
        assert!(is_confirmed(&watchers, 5, now), "nobody is there");
        watchers.join(A, 4, now);
        watchers.join(B, 4, now);
        assert!(is_confirmed(&watchers, 5, now), "neither may give anything yet");
        watchers.extend(&A, now);
        watchers.extend(&B, now);
        assert_eq!(watchers.standing(5, now).wait_until, Some(now + WATCH_LEASE));
        watchers.applied(&A, 5);
        assert!(!is_confirmed(&watchers, 5, now));
        assert_eq!(watchers.lowest(now), Some(4));
        watchers.applied(&B, 6);
        assert_eq!((watchers.lowest(now), watchers.lowest(now + WATCH_LEASE)), (Some(5), None));
        let standing = watchers.standing(5, now);
        assert_eq!((standing.confirmed, standing.lapsed, standing.wait_until), (2, 0, None));
    }

    #[test]
    fn one_that_is_silent_lapses_whether_its_stream_is_open_or_not() {
        let (mut watchers, now) = (Watchers::default(), Instant::now());
        watchers.join(A, 4, now);
        watchers.extend(&A, now);
        watchers.leave(&A);
        assert!(!is_confirmed(&watchers, 5, now + WATCH_LEASE / 2), "it may give what it has");
        let standing = watchers.standing(5, now + WATCH_LEASE);
        assert_eq!((standing.lapsed, standing.wait_until), (1, None));
        assert_eq!(watchers.len(), 0);
        watchers.join(B, 4, now + WATCH_LEASE);
        assert_eq!(watchers.list.len(), 1, "it is forgotten");
    }

    #[test]
    fn one_that_comes_anew_keeps_what_it_was_granted() {
        let (mut watchers, now) = (Watchers::default(), Instant::now());
        watchers.join(A, 4, now);
        watchers.extend(&A, now);
        watchers.leave(&A);
        watchers.join(A, 4, now);
        assert!(!is_confirmed(&watchers, 5, now));
        watchers.applied(&A, 5);
        assert!(is_confirmed(&watchers, 5, now));
        watchers.forget();
        assert!(!is_confirmed(&watchers, 5, now), "what it did was of another history");
    }

    #[test]
    fn watchers_are_bounded() {
        let (mut watchers, now) = (Watchers::default(), Instant::now());
        for n in 0..MAX_WATCHERS as u128 {
            assert!(watchers.join(n.to_le_bytes(), 0, now));
        }
        assert!(!watchers.join([0xff; 16], 0, now));
        assert!(watchers.join(0u128.to_le_bytes(), 0, now), "who is there may come anew");
    }

    proptest! {
        /// Whatever happens in whatever order: while a purge counts as confirmed, no watcher that has not done it believes
        /// that it may give. A watcher believes so for a second from the moment it *sent* a beat that was answered.
        #[test]
        fn nobody_believes_longer_than_it_is_waited_for(steps in proptest::collection::vec((0u8..4, 0u64..3, 0u64..700), 1..60)) {
            let (mut watchers, mut now) = (Watchers::default(), Instant::now());
            let mut believes = HashMap::<Uid, Instant>::new();
            let mut done = HashMap::<Uid, u64>::new();
            for (what, who, millis) in steps {
                let uid = [who as u8; 16];
                match what {
                    0 => { watchers.join(uid, 0, now); done.insert(uid, 0); }
                    1 => watchers.leave(&uid),
                    // The beat was sent before it is read.
                    2 if watchers.list.contains_key(&uid) => {
                        let sent = now;
                        now += Duration::from_millis(millis);
                        watchers.extend(&uid, now);
                        believes.insert(uid, sent + WATCH_LEASE);
                    }
                    2 => {}
                    _ => { if watchers.list.contains_key(&uid) { watchers.applied(&uid, 1); done.insert(uid, 1); } }
                }
                now += Duration::from_millis(millis);
                if is_confirmed(&watchers, 1, now) {
                    for (uid, until) in &believes {
                        prop_assert!(*until <= now || done.get(uid) == Some(&1) , "{uid:?} still gives");
                    }
                }
            }
        }
    }
}
