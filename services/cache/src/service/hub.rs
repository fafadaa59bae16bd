//! The history of purges as this process knows it, who watches it, and who has confirmed what.
//!
//! All threads share it; its lock is held for look-ups and appends, never across a wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;
use troupe_contracts::cache::Uid;
use troupe_contracts::cache::purge::{Purged, Target};
use troupe_contracts::cache::watch::{Invalidation, Position};

use super::watchers::{Standing, WATCH_LEASE, Watchers};

/// Purges that are remembered for watchers that come anew; one that missed more has nothing fresh any more.
pub(crate) const REMEMBERED: usize = 16_384;
/// Purges that are told at once.
const BATCH: usize = 256;
/// Purges whose finds are counted; the oldest goes when there are more.
const MAX_COUNTED: usize = 16_384;

/// What every thread of the service shares.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Stirred when there is something to tell watchers.
    news: watch::Sender<()>,
    /// Stirred when a watcher has done something, or the history goes on.
    done: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    position: Position,
    log: VecDeque<Arc<Invalidation>>,
    watchers: Watchers,
    sure: Sure,
    /// Until when a gateway may give what it has stored because another process told it so: one before this, with the
    /// same store. No purge counts as confirmed before.
    quiet: Instant,
    /// What was found, by purge.
    found: BTreeMap<u64, Found>,
    /// The process is about to end: watchers are to turn to another.
    over: bool,
}

/// Until when it is known that there is no purge that this process has not heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sure {
    /// All purges are made here.
    Always,
    /// They are made elsewhere, too.
    Until(Instant),
}

#[derive(Debug, Default, Clone, Copy)]
struct Found {
    /// Whoever ordered it waits in this process.
    own: bool,
    urls: u64,
    responses: u64,
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
    /// A history that is made here and begins at `position`, of a store for which others have spoken until `quiet`.
    pub(crate) fn new(position: Position, quiet: Instant) -> Self {
        let hub = Self::with(Sure::Always, quiet);
        hub.state.lock().append(beginning(position));
        hub
    }

    /// A history that is made elsewhere, of which nothing is known yet.
    pub(crate) fn unsure() -> Self {
        let now = Instant::now();
        Self::with(Sure::Until(now), now)
    }

    fn with(sure: Sure, quiet: Instant) -> Self {
        let position = Position { generation: 0, seq: 0, nonce: 0 };
        let (log, watchers, found) = (VecDeque::new(), Watchers::default(), BTreeMap::new());
        let state = State { position, log, watchers, sure, quiet, found, over: false };
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
        self.stir();
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
        state.count(at.seq, true);
        drop(state);
        self.stir();
        (at, Counted { hub: Arc::clone(self), seq: at.seq })
    }

    /// Appends purges that were made elsewhere, or in this process by way of there (`own`), in their order.
    pub(crate) fn append(&self, purges: Vec<(Invalidation, bool)>) {
        if purges.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for (purge, own) in purges {
            state.count(purge.at.seq, own);
            state.append(purge);
        }
        drop(state);
        self.stir();
    }

    /// Another history, or a part of this one that does not follow what is known: watchers are to doubt what they have.
    pub(crate) fn replace(&self, log: Vec<Invalidation>) {
        let mut state = self.state.lock();
        state.log.clear();
        log.into_iter().for_each(|purge| state.append(purge));
        state.watchers.forget();
        drop(state);
        self.stir();
    }

    /// There is no purge that is not known here, and there will be none until then that does not wait for this process.
    pub(crate) fn is_well_until(&self, until: Instant) {
        self.state.lock().sure = Sure::Until(until);
    }

    /// It is not known any more what is purged.
    pub(crate) fn lose(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.is_sure(now) {
            state.sure = Sure::Until(now);
        }
        drop(state);
        self.stir();
    }

    /// Whether it is known now that the history is whole.
    pub(crate) fn is_sure(&self, now: Instant) -> bool {
        self.state.lock().is_sure(now)
    }

    /// Ends every stream: watchers turn to another instance.
    pub(crate) fn end(&self) {
        self.state.lock().over = true;
        self.stir();
    }

    /// Whether streams are to end.
    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().over
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
        let (from, applied) = match since.map(|since| (since, self.after(since))) {
            Some((since, News::Purges(_))) => (since, since.seq),
            // It has yet to doubt what it has, and may give it until then if it was granted that before.
            _ => (self.position(), 0),
        };
        let joined = self.state.lock().watchers.join(uid, applied, Instant::now());
        joined.then_some(from)
    }

    /// A stream of a watcher ends.
    pub(crate) fn leave(&self, uid: &Uid) {
        self.state.lock().watchers.leave(uid);
    }

    /// Whether a watcher has a stream.
    pub(crate) fn is_watched_by(&self, uid: &Uid) -> bool {
        self.state.lock().watchers.has_stream(uid)
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
            found.urls = found.urls.saturating_add(urls);
            found.responses = found.responses.saturating_add(responses);
        }
        drop(state);
        self.done.send_replace(());
    }

    /// Told when there is something new for watchers.
    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Told when a watcher has done something.
    pub(crate) fn done(&self) -> watch::Receiver<()> {
        self.done.subscribe()
    }

    /// What watchers find in a purge that was ordered here and made elsewhere.
    pub(crate) fn counted(self: &Arc<Self>, seq: u64) -> Counted {
        self.state.lock().count(seq, true);
        Counted { hub: Arc::clone(self), seq }
    }

    /// How far the watchers of this process are, all of them: `generation:seq`.
    pub(crate) fn ack(&self) -> String {
        let state = self.state.lock();
        let applied = state.watchers.lowest(Instant::now()).unwrap_or(u64::MAX).min(state.position.seq);
        format!("{}:{applied}", state.position.generation)
    }

    /// What watchers found in purges that others ordered and that all have done; each once.
    pub(crate) fn take_found(&self) -> Vec<(u64, Purged)> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let applied = state.watchers.lowest(now).unwrap_or(u64::MAX).min(state.position.seq);
        let done: Vec<(u64, Found)> =
            state.found.range(..=applied).filter(|(_, found)| !found.own).map(|(seq, found)| (*seq, *found)).collect();
        let purged = done.into_iter().map(|(seq, found)| {
            state.found.remove(&seq);
            (seq, found.purged(state.watchers.standing(seq, now)))
        });
        purged.collect()
    }

    /// Waits until every watcher of this process has done purge `at`, or may give nothing.
    pub(crate) async fn confirmed(&self, at: Position) -> Standing {
        let mut done = self.done();
        loop {
            let standing = self.state.lock().standing(at, Instant::now());
            let Some(until) = standing.wait_until else { return standing };
            tokio::select! {
                // The sender is this hub's.
                _ = done.changed() => {}
                () = tokio::time::sleep_until(until.into()) => {}
            }
        }
    }

    fn stir(&self) {
        self.news.send_replace(());
        self.done.send_replace(());
    }
}

impl State {
    fn make(&mut self, target: Target, soft: bool, source: Option<Uid>) -> Position {
        let Position { generation, seq, .. } = self.position;
        let at = Position { generation, seq: seq + 1, nonce: fastrand::u64(..) };
        self.append(Invalidation { at, target, soft, source });
        at
    }

    fn append(&mut self, purge: Invalidation) {
        if self.log.len() >= REMEMBERED {
            self.log.pop_front();
        }
        self.position = purge.at;
        self.log.push_back(Arc::new(purge));
    }

    fn count(&mut self, seq: u64, own: bool) {
        self.found.entry(seq).or_default().own |= own;
        if self.found.len() > MAX_COUNTED {
            self.found.pop_first();
        }
    }

    fn standing(&self, at: Position, now: Instant) -> Standing {
        // A purge that is not known here yet is told to nobody. Whoever hears nothing of any is silent a second later.
        let known = self.position.generation == at.generation && self.position.seq >= at.seq;
        let (seq, silent) = match (known, self.sure) {
            (true, _) | (false, Sure::Always) => (at.seq, now),
            (false, Sure::Until(until)) => (u64::MAX, until + WATCH_LEASE),
        };
        let mut standing = self.watchers.standing(seq, now);
        let wait = self.quiet.max(silent);
        if standing.wait_until.is_none() && wait > now {
            standing.wait_until = Some(wait);
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

impl Found {
    fn purged(self, standing: Standing) -> Purged {
        let Self { urls, responses, .. } = self;
        Purged { urls, responses, confirmed: standing.confirmed, lapsed: standing.lapsed }
    }
}

/// What stands at the beginning of a history, so that every place in it is a purge's.
fn beginning(at: Position) -> Invalidation {
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
        self.hub.state.lock().found.get(&self.seq).copied().unwrap_or_default().purged(standing)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.hub.state.lock().found.remove(&self.seq);
    }
}

#[cfg(test)]
mod tests;
