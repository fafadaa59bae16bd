//! The look-up: on the request's own path, without waiting for anything.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use troupe_cache::cache_status::{CacheStatus, Forward};
use troupe_cache::entry::Entry;
use troupe_cache::key::{HostBuffer, Key, Sought};
use troupe_cache::object::Object;
use troupe_cache::range::{Wanted, wanted};
use troupe_cache::reuse::{Asked, Reuse, decide_within};
use troupe_cache::time::Moment;
use troupe_wire::head::RequestHead;

use super::flight::Party;
use super::l2::Grant;
use super::route::RouteCaching;
use super::{Cache, now};
use crate::request::{BodyFrame, Method, Request};

/// The last part of its lifetime in which an entry may be refreshed early, however long a fetch takes: so the origin is
/// asked by a fifteenth more often at most.
const EARLY: u64 = 16;

/// What a look-up finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// The answer.
    Hit {
        entry: Arc<Entry>,
        /// All of it is wanted, whatever the client has.
        plain: bool,
        /// The time at which it was found fresh.
        now: Moment,
        /// How long that took.
        looked: Duration,
    },
    /// Something has to be fetched first.
    Miss(Box<Miss>, Arc<RouteCaching>),
    /// The cache has no part in it.
    Pass(Forward),
    /// The route is not cached.
    Uncached,
}

/// What is known of a request whose answer has to be fetched.
#[derive(Debug)]
pub(crate) struct Miss {
    pub(super) key: Arc<Key>,
    pub(super) asked: Asked,
    /// It is stored and fresh, and this request has drawn the lot to refresh it.
    pub(super) early: bool,
    /// Nothing was known of the URL when the store had been written to so often, see [`Store::writes`].
    ///
    /// [`Store::writes`]: troupe_cache::store::Store::writes
    pub(super) unknown: Option<u64>,
    /// How long it took to find out.
    looked: Duration,
}

/// What the store has for a request.
pub(super) enum Known {
    /// The answer.
    Answer {
        entry: Arc<Entry>,
        /// It is stale.
        stale: bool,
        /// A new one is to be fetched behind it.
        refresh: bool,
    },
    /// Not the answer.
    Nothing(Lack),
}

/// Why the store has no answer.
pub(super) struct Lack {
    pub(super) forward: Forward,
    /// What may be validated.
    pub(super) stale: Option<Arc<Entry>>,
    /// What is answered when the origin fails.
    pub(super) on_error: bool,
    /// Requests for this do not wait for each other.
    pub(super) apart: bool,
    /// Whom one fetch may answer.
    pub(super) party: Party,
    /// What the second tier said.
    pub(super) second: Option<CacheStatus>,
    /// The right to fetch it for all gateways; whoever does something about the answer takes it.
    pub(super) grant: Cell<Option<Grant>>,
}

impl Lack {
    pub(super) fn new(forward: Forward, stale: Option<Arc<Entry>>, on_error: bool, apart: bool, party: Party) -> Self {
        Self { forward, stale, on_error, apart, party, second: None, grant: Cell::new(None) }
    }

    /// The second tier has a version that does not answer; it may be validated, if it is newer than what there is.
    pub(super) fn learn(&mut self, entry: Arc<Entry>, reuse: Reuse) {
        let Reuse::Validate { on_error, .. } = reuse else { return };
        if self.stale.as_ref().is_none_or(|stale| made(stale) < made(&entry)) {
            self.on_error = on_error;
            self.stale = Some(entry);
        }
    }

    /// Whether there is a later version than `theirs`, which the second tier has not been brought: of several the most recent answers (RFC
    /// 9111 §4). Copies of one version are equally good: their times are a little apart, because each tier's clock has its say.
    pub(super) fn is_ahead_of(&self, theirs: &Entry) -> bool {
        self.stale.as_ref().is_some_and(|ours| made(ours) > made(theirs) && ours.digest() != theirs.digest())
    }
}

/// When an entry was made by this machine's clock, in milliseconds since 1970.
fn made(entry: &Entry) -> u64 {
    let terms = entry.terms();
    terms.times.received.millis().saturating_sub(terms.initial_age)
}

impl Cache {
    /// Looks a request up.
    pub(crate) fn look_up(&self, request: &Request, caching: &Arc<RouteCaching>) -> Found {
        if !matches!(request.method, Method::Get | Method::Head) {
            return Found::Pass(Forward::Method);
        }
        let mut asked = Asked::of(&request.head);
        // Ranges mean something to GET alone (RFC 9110 §14.2).
        asked.range &= request.method == Method::Get;
        // The body of a GET is in no key, and some frameworks read it: what it made must not be answered to others.
        if asked.foreign || request.body != BodyFrame::None {
            return Found::Pass(Forward::Bypass);
        }
        let began = began();
        let target = caching.target(request.head.target());
        let mut buffer = HostBuffer::default();
        let Some(sought) = Sought::new(request.head.scheme(), request.head.authority(), &target, &mut buffer) else {
            return Found::Pass(Forward::Bypass);
        };
        let writes = self.store.writes(sought.hashed());
        let object = self.store.get(&sought);
        let (now, mut early) = (now(), false);
        if let Some(entry) = object.as_ref().and_then(|object| object.find(&request.head))
            && decide_within(&asked, entry, now, &caching.policy, self.max_ttl) == Reuse::Fresh
            && is_there(&request.head, &asked, entry)
            && self.is_live()
        {
            early = is_early(entry, now);
            if !early {
                // A 204 has no body, and no length either (RFC 9110 §8.6).
                let whole = !asked.conditional && !asked.range && entry.status() != 204;
                let plain = whole && request.method == Method::Get;
                return Found::Hit { entry: Arc::clone(entry), plain, now, looked: since(began) };
            }
        }
        let (key, unknown) = (Arc::new(sought.to_key()), object.is_none().then_some(writes));
        let miss = Miss { key, asked, early, unknown, looked: since(began) };
        Found::Miss(Box::new(miss), Arc::clone(caching))
    }

    /// Looks a request up that is to be fetched anew: what is fresh is not the answer, but is refreshed.
    pub(crate) fn look_up_anew(&self, request: &Request, caching: &Arc<RouteCaching>) -> Found {
        match caching.key(&request.head) {
            Some(key) => {
                let miss =
                    Miss { key, asked: Asked::of(&request.head), early: true, unknown: None, looked: Duration::ZERO };
                Found::Miss(Box::new(miss), Arc::clone(caching))
            }
            None => Found::Pass(Forward::Bypass),
        }
    }

    /// How long what is stored for a request is still fresh, and how long it was to be.
    pub(crate) fn freshness(&self, head: &RequestHead) -> Option<(Duration, Duration)> {
        let mut buffer = HostBuffer::default();
        let sought = Sought::of(head, &mut buffer)?;
        let object = match self.stored_as(&sought.to_key()) {
            Some(key) => self.store.get_key(&key),
            None => self.store.get(&sought),
        }?;
        let entry = object.find(head)?;
        let left = u64::try_from(entry.fresh_for(now())).unwrap_or(0);
        Some((Duration::from_millis(left), Duration::from_millis(entry.terms().lifetime)))
    }

    /// Whether nothing is known of the URL still, as when it was looked up.
    pub(super) fn is_unknown(&self, miss: &Miss) -> bool {
        miss.unknown.is_some_and(|writes| writes == self.store.writes(miss.key.hashed()))
    }

    /// What may be done for a request with an entry whose URL and selection fit it.
    pub(super) fn reuse(&self, asked: &Asked, entry: &Entry, now: Moment, caching: &RouteCaching) -> Reuse {
        let reuse = decide_within(asked, entry, now, &caching.policy, self.max_ttl);
        match &self.tier {
            Some(tier) => tier.believed(reuse, entry, now),
            None => reuse,
        }
    }

    /// What the store has for a request.
    pub(super) fn known(&self, miss: &Miss, head: &RequestHead, caching: &RouteCaching) -> Known {
        let (Miss { key, asked, early, .. }, now) = (miss, now());
        let object = self.store.get_key(key);
        let apart = object.as_ref().is_some_and(|object| object.is_uncacheable(asked.personal, now));
        let variant = object.as_ref().map(|object| object.variant_of(head)).unwrap_or_default();
        let party = Party { variant: variant.into(), personal: asked.personal, authorized: asked.authorized };
        let lack = |forward, stale, on_error, apart| Known::Nothing(Lack::new(forward, stale, on_error, apart, party));
        let Some(entry) = object.as_ref().and_then(|object| object.find(head)) else {
            return lack(forward_without(object.as_deref()), None, false, apart);
        };
        let entry = Arc::clone(entry);
        let reuse = self.reuse(asked, &entry, now, caching);
        if entry.status() == 206 && !(reuse == Reuse::Fresh && is_there(head, asked, &entry)) {
            // What is missing is asked for by itself; the whole by all together, unless it is known to be too large to be shared.
            let large = entry.total() > self.max_object();
            return lack(Forward::Partial, None, false, apart || asked.range || large);
        }
        match reuse {
            Reuse::Fresh => Known::Answer { entry, stale: false, refresh: *early },
            Reuse::Stale => Known::Answer { entry, stale: true, refresh: false },
            Reuse::WhileRevalidating => Known::Answer { entry, stale: true, refresh: true },
            Reuse::Validate { by_request, on_error } => {
                let forward = if by_request { Forward::Request } else { Forward::Stale };
                lack(forward, Some(entry), on_error, apart)
            }
            Reuse::NotForThis => lack(Forward::Bypass, None, false, true),
        }
    }
}

/// When a look-up began, where that is told.
fn began() -> Option<Instant> {
    (!cfg!(feature = "untimed")).then(Instant::now)
}

fn since(began: Option<Instant>) -> Duration {
    began.map_or(Duration::ZERO, |began| began.elapsed())
}

impl Miss {
    /// How long the look-up took.
    pub(super) fn looked(&self) -> Duration {
        self.looked
    }
}

/// Whether this request is the one that refreshes a fresh entry before it is stale (XFetch, Vattani et al. 2015): the
/// likelier the nearer its end and the longer it takes to fetch, so that of many requests about one does.
fn is_early(entry: &Entry, now: Moment) -> bool {
    let left = u64::try_from(entry.fresh_for(now)).unwrap_or(0);
    if left > entry.terms().lifetime / EARLY {
        return false;
    }
    let (left, times) = (left as f64, entry.terms().times);
    let fetch = times.received.since(times.requested).max(1) as f64;
    -fetch * fastrand::f64().max(f64::MIN_POSITIVE).ln() >= left
}

/// Whether what the request wants is in the entry: always, unless it is a part.
fn is_there(head: &RequestHead, asked: &Asked, entry: &Entry) -> bool {
    entry.status() != 206 || asked.range && wanted(head, entry) != Wanted::Missing
}

fn forward_without(object: Option<&Object>) -> Forward {
    match object {
        Some(object) if !object.variants().is_empty() => Forward::VaryMiss,
        _ => Forward::UriMiss,
    }
}

#[cfg(test)]
mod tests;
