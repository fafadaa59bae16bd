//! The history of purges in this process, who watches it, and who has confirmed what.
//!
//! All threads share it; its lock is held for look-ups and appends, never across a wait.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use troupe_contracts::cache::Uid;
use troupe_contracts::cache::purge::{Purged, Target};
use troupe_contracts::cache::watch::{Invalidation, Position};

use super::watchers::{Standing, Watchers};

/// Purges that are remembered for watchers that come anew; one that missed more has nothing fresh any more.
const REMEMBERED: usize = 16_384;
/// Purges that are told at once.
const BATCH: usize = 256;
/// Purges under way whose finds are counted; of those beyond it the count is not told.
const MAX_COUNTED: usize = 16_384;

/// What every thread of the service shares.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Stirred when there is something to tell watchers.
    news: watch::Sender<()>,
    /// Stirred when a watcher has done something.
    done: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    position: Position,
    log: VecDeque<Arc<Invalidation>>,
    watchers: Watchers,
    /// Until when it is known that the history is whole.
    sure: Sure,
    /// Until when a gateway may give what it has stored because another process told it so: one before this, with the
    /// same store. No purge counts as confirmed before.
    quiet: Instant,
    /// URLs and answers that were found, by purges that somebody waits for.
    found: HashMap<u64, (u64, u64)>,
}

/// Until when it is known that there is no purge that this process has not heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sure {
    /// All purges are made here.
    Always,
    /// They are made elsewhere, too.
    #[expect(dead_code, reason = "there is no store yet that other processes write to")]
    Until(Instant),
}

/// What follows a place in the history.
#[derive(Debug)]
pub(crate) enum News {
    /// The next purges; none when there is nothing new.
    Purges(Vec<Arc<Invalidation>>),
    /// The place is not known any more, or never was: what follows begins here.
    Anew(Position),
}

impl Hub {
    /// A history that begins at `position`, of a store for which others have spoken until `quiet`.
    pub(crate) fn new(position: Position, sure: Sure, quiet: Instant) -> Self {
        let mut log = VecDeque::new();
        log.push_back(Arc::new(beginning(position)));
        let state = State { position, log, watchers: Watchers::default(), sure, quiet, found: HashMap::new() };
        Self { state: Mutex::new(state), news: watch::Sender::new(()), done: watch::Sender::new(()) }
    }

    /// The last purge.
    pub(crate) fn position(&self) -> Position {
        self.state.lock().position
    }

    /// Watchers that are there.
    pub(crate) fn watchers(&self) -> usize {
        self.state.lock().watchers.len()
    }

    /// Appends a purge with the next number, made here.
    pub(crate) fn make(&self, target: Target, soft: bool, source: Option<Uid>) -> Position {
        let at = self.state.lock().make(target, soft, source);
        self.news.send_replace(());
        at
    }

    /// The same, and has counted what watchers find.
    pub(crate) fn make_counted(
        self: &Arc<Self>,
        target: Target,
        soft: bool,
        source: Option<Uid>,
    ) -> (Position, Counted) {
        let mut state = self.state.lock();
        let at = state.make(target, soft, source);
        state.count(at.seq);
        drop(state);
        self.news.send_replace(());
        (at, Counted { hub: Arc::clone(self), seq: at.seq })
    }

    /// Whether it is known now that the history is whole.
    pub(crate) fn is_sure(&self, now: Instant) -> bool {
        self.state.lock().is_sure(now)
    }

    /// What follows `cursor`.
    pub(crate) fn after(&self, cursor: Position) -> News {
        let state = self.state.lock();
        if cursor == state.position {
            return News::Purges(Vec::new());
        }
        // Numbers rise, if not one by one.
        let next = state.log.partition_point(|purge| purge.at.seq <= cursor.seq);
        let known = next.checked_sub(1).and_then(|place| state.log.get(place)).is_some_and(|purge| purge.at == cursor);
        if !known {
            return News::Anew(state.position);
        }
        News::Purges(state.log.iter().skip(next).take(BATCH).cloned().collect())
    }

    /// A stream of a watcher begins: where it begins. `None` when there are too many watchers.
    pub(crate) fn join(&self, uid: Uid, since: Option<Position>) -> Option<Position> {
        let from = match since.map(|since| (since, self.after(since))) {
            Some((since, News::Purges(_))) => since,
            _ => self.position(),
        };
        let joined = self.state.lock().watchers.join(uid, from.seq, Instant::now());
        joined.then_some(from)
    }

    /// A stream of a watcher ends.
    pub(crate) fn leave(&self, uid: &Uid) {
        self.state.lock().watchers.leave(uid);
    }

    /// A watcher's beat has come: whether it may be answered. It has done all up to `applied` of a history.
    pub(crate) fn beat(&self, uid: &Uid, generation: u64, applied: u64) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        let sure = state.is_sure(now);
        if generation == state.position.generation {
            state.watchers.applied(uid, applied);
        }
        if sure {
            state.watchers.extend(uid, now);
        }
        drop(state);
        self.done.send_replace(());
        sure
    }

    /// A watcher has done a purge, and found something.
    pub(crate) fn applied(&self, uid: &Uid, generation: u64, seq: u64, (urls, responses): (u64, u64)) {
        let mut state = self.state.lock();
        if generation != state.position.generation {
            return;
        }
        state.watchers.applied(uid, seq);
        if let Some(found) = state.found.get_mut(&seq) {
            *found = (found.0.saturating_add(urls), found.1.saturating_add(responses));
        }
        drop(state);
        self.done.send_replace(());
    }

    /// Told when there is something new for watchers.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Waits until every watcher of this process has done purge `seq`, or may give nothing.
    pub(crate) async fn confirmed(&self, seq: u64) -> Standing {
        let mut done = self.done.subscribe();
        loop {
            let standing = self.state.lock().standing(seq, Instant::now());
            let Some(until) = standing.wait_until else { return standing };
            tokio::select! {
                // The sender is this hub's.
                _ = done.changed() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }
}

impl State {
    fn make(&mut self, target: Target, soft: bool, source: Option<Uid>) -> Position {
        let Position { generation, seq, .. } = self.position;
        let at = Position { generation, seq: seq + 1, nonce: fastrand::u64(..) };
        self.append(Invalidation { at, target, soft, source });
        at
    }

    fn count(&mut self, seq: u64) {
        if self.found.len() < MAX_COUNTED {
            self.found.entry(seq).or_default();
        }
    }

    fn append(&mut self, purge: Invalidation) {
        if self.log.len() >= REMEMBERED {
            self.log.pop_front();
        }
        self.position = purge.at;
        self.log.push_back(Arc::new(purge));
    }

    fn standing(&self, seq: u64, now: Instant) -> Standing {
        let mut standing = self.watchers.standing(seq, now);
        if standing.wait_until.is_none() && self.quiet > now {
            standing.wait_until = Some(self.quiet);
        }
        standing
    }

    fn is_sure(&self, now: Instant) -> bool {
        match self.sure {
            Sure::Always => true,
            Sure::Until(until) => now < until,
        }
    }
}

/// What stands at the beginning of a history, so that every place in it is a purge's.
pub(crate) fn beginning(at: Position) -> Invalidation {
    Invalidation { at, target: Target::Nothing, soft: false, source: None }
}

/// A purge whose finds are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    hub: Arc<Hub>,
    seq: u64,
}

impl Counted {
    /// What came of it.
    pub(crate) fn purged(&self, standing: Standing) -> Purged {
        let (urls, responses) = self.hub.state.lock().found.get(&self.seq).copied().unwrap_or_default();
        Purged { urls, responses, confirmed: standing.confirmed, lapsed: standing.lapsed }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.hub.state.lock().found.remove(&self.seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uid = [1; 16];

    fn hub() -> Arc<Hub> {
        Arc::new(Hub::new(Position { generation: 7, seq: 100, nonce: 1 }, Sure::Always, Instant::now()))
    }

    fn purges(hub: &Hub, cursor: Position) -> Option<Vec<u64>> {
        match hub.after(cursor) {
            News::Purges(purges) => Some(purges.iter().map(|purge| purge.at.seq).collect()),
            News::Anew(_) => None,
        }
    }

    #[test]
    fn a_watcher_hears_what_followed_the_place_it_names() {
        let hub = hub();
        let first = hub.position();
        let second = hub.make(Target::All, false, None);
        hub.make(Target::All, true, None);
        assert_eq!(purges(&hub, first), Some(vec![101, 102]));
        assert_eq!(purges(&hub, second), Some(vec![102]));
        assert_eq!(purges(&hub, hub.position()), Some(vec![]));
        assert_eq!(hub.join(A, Some(second)), Some(second));
        assert_eq!(hub.join(A, None), Some(hub.position()));
    }

    #[test]
    fn a_place_of_another_history_or_one_long_gone_is_none() {
        let hub = hub();
        let first = hub.position();
        assert_eq!(purges(&hub, Position { nonce: 2, ..first }), None);
        assert_eq!(purges(&hub, Position { generation: 8, ..first }), None);
        assert_eq!(purges(&hub, Position { seq: 99, ..first }), None);
        assert_eq!(purges(&hub, Position { seq: 105, ..first }), None);
        for _ in 0..REMEMBERED {
            hub.make(Target::All, false, None);
        }
        assert_eq!(purges(&hub, first), None);
        assert_eq!(hub.join(A, Some(first)), Some(hub.position()));
    }

    #[tokio::test]
    async fn a_purge_is_confirmed_when_those_who_watch_have_done_it() {
        let hub = hub();
        let from = hub.join(A, None).unwrap();
        assert!(hub.beat(&A, from.generation, from.seq));
        let (at, counted) = hub.make_counted(Target::All, false, None);
        let waiting = hub.confirmed(at.seq);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        hub.applied(&A, from.generation + 1, at.seq, (9, 9));
        assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "of another history");
        hub.applied(&A, from.generation, at.seq, (1, 2));
        let standing = waiting.await;
        let purged = counted.purged(standing);
        assert_eq!((purged.urls, purged.responses, purged.confirmed, purged.lapsed), (1, 2, 1, 0));
        drop(counted);
        assert!(hub.state.lock().found.is_empty());
    }

    #[tokio::test]
    async fn no_purge_is_confirmed_while_a_process_before_this_one_may_have_granted_something() {
        let quiet = Instant::now() + std::time::Duration::from_millis(50);
        let hub = Hub::new(Position { generation: 7, seq: 100, nonce: 1 }, Sure::Always, quiet);
        hub.confirmed(hub.make(Target::All, false, None).seq).await;
        assert!(Instant::now() >= quiet);
    }

    #[tokio::test]
    async fn a_silent_watcher_is_waited_for_no_longer_than_its_lease() {
        let hub = hub();
        let from = hub.join(A, None).unwrap();
        hub.beat(&A, from.generation, from.seq);
        let at = hub.make(Target::All, false, None);
        let since = Instant::now();
        let standing = hub.confirmed(at.seq).await;
        assert_eq!((standing.confirmed, standing.lapsed), (0, 1));
        assert!(since.elapsed() < super::super::WATCH_LEASE * 10);
    }
}
