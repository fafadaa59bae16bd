//! The cache in the gateway: look-up before a call, one call for all who ask for the same, the store filled while the
//! answer goes out.
//!
//! ```text
//! request ─▶ Lookup ──hit──▶ answer
//!              └─miss─▶ Fetch ─▶ Flight: the first calls, the others follow what it brings
//!                                  ├─▶ the second tier, which may have it
//!                                  └─▶ store, and behind it the second tier
//! ```
//!
//! The rules are `troupe-cache`'s; what stands here is when they are asked, and on which thread.

pub mod admin;
pub mod cdn;
pub mod config;
mod fetch;
mod filler;
mod filling;
mod flight;
pub mod l2;
mod lookup;
mod memory;
mod origin;
mod others;
mod outcome;
mod parts;
mod patience;
mod route;
#[cfg(test)]
mod sample;
mod serve;
mod spent;
mod written;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use troupe_cache::entry::Entry;
use troupe_cache::invalidation::{self, Invalidated};
use troupe_cache::key::Key;
use troupe_cache::store::{Purged, Selector, Stamp, Store};
use troupe_cache::time::Moment;
use troupe_contracts::invoke::Reply;
use troupe_wire::head::RequestHead;

use crate::path;
use crate::router::{self, RouteTable};
use config::CacheConfig;
pub(crate) use fetch::{Fetch, Fetching, Timeouts};
pub(crate) use filling::Follower;
use flight::Flights;
pub(crate) use lookup::{Found, Miss};
pub(crate) use outcome::{CacheResult, Outcome, Response};
pub(crate) use route::RouteCaching;
pub(crate) use serve::{Sent, Shape, answer};
pub(crate) use spent::Spent;
pub(crate) use written::write_hit;

/// The share of the store that responses may take which are on their way into it. Those beyond it are not stored.
const FILLING_SHARE: u64 = 4;
/// Entries that are refreshed at once while their stale versions are answered; beyond that they wait for the next request.
const MAX_REFRESHES: usize = 256;

/// The cache of a gateway's process: one for all its threads.
#[derive(Debug)]
pub struct Cache {
    store: Store,
    /// For how long what is stored counts as fresh here, at most.
    max_ttl: Duration,
    /// The tier that gateways share, where there is one.
    tier: Option<Arc<l2::Tier>>,
    flights: Flights,
    /// Bytes of responses on their way into the store.
    filling: Arc<AtomicUsize>,
    filling_limit: usize,
    refreshes: Arc<AtomicUsize>,
    /// What says what of a URL's query counts.
    routes: OnceLock<Arc<ArcSwap<RouteTable>>>,
}

impl Cache {
    /// The cache as configured, on its own; `None` when its size is nothing.
    #[must_use]
    pub fn new(config: &CacheConfig) -> Option<Arc<Self>> {
        Self::with_tier(config, None)
    }

    /// The same with the tier behind it, where there is one; `None` when there is neither.
    #[must_use]
    pub fn with_tier(config: &CacheConfig, tier: Option<Arc<l2::Tier>>) -> Option<Arc<Self>> {
        let bytes = config.l1.size.bytes(memory::usable());
        if bytes == 0 && tier.is_none() {
            return None;
        }
        let store = Store::with_eviction(bytes, config.l1.max_object.as_usize(), config.l1.policy.into());
        let room = if bytes > 0 { bytes } else { tier.as_ref().map_or(0, |tier| tier.room()) };
        let filling_limit = usize::try_from(room / FILLING_SHARE).unwrap_or(usize::MAX);
        Some(Arc::new(Self {
            store,
            max_ttl: config.l1.max_ttl.get(),
            tier,
            flights: Flights::default(),
            filling: Arc::default(),
            filling_limit,
            refreshes: Arc::default(),
            routes: OnceLock::new(),
        }))
    }

    /// Removes what `selector` is about from this process's memory, or with `soft` makes it stale. When this returns, no
    /// new request is answered with what was there before.
    pub fn purge(&self, selector: &Selector, soft: bool) -> Purged {
        // Requests from here on do not join what was asked for before.
        self.flights.detach(selector);
        let purged = self.store.purge(selector, soft, now());
        // And those that came between the two may have.
        self.flights.detach(selector);
        purged
    }

    /// Whether anything was ever stored.
    pub(crate) fn is_used(&self) -> bool {
        self.store.is_used()
    }

    /// Bytes held, and URLs known.
    pub(crate) fn figures(&self) -> (u64, usize) {
        (self.store.bytes(), self.store.len())
    }

    /// Stores a response to a request of a route; see [`Store::put`].
    fn put(
        &self,
        caching: &RouteCaching,
        key: &Arc<Key>,
        request: &RequestHead,
        entry: Arc<Entry>,
        began: Stamp,
    ) -> bool {
        self.store.put_counted(key, request, entry, began, Some(caching.evictions()))
    }

    /// Begins to go by the routes of a gateway.
    pub(crate) fn follow(&self, routes: &Arc<ArcSwap<RouteTable>>) {
        // A cache belongs to one gateway.
        let _ = self.routes.set(Arc::clone(routes));
    }

    /// What the answer to a GET of the URL `key` is found by, where its route brings the query into another form.
    fn stored_as(&self, key: &Key) -> Option<Key> {
        let routes = self.routes.get()?.load();
        let path = key.target().split('?').next().unwrap_or_default();
        match routes.find(key.host(), "GET", path) {
            router::Found::Route(matched) => matched.route.caching.as_ref()?.other_key(key),
            _ => None,
        }
    }

    /// Makes untrue what an unsafe request has changed (RFC 9111 §4.4).
    pub(crate) fn after_unsafe(&self, request: &RequestHead, reply: &Reply) {
        if self.tier.is_none() && self.store.is_empty() && self.flights.is_empty() {
            return;
        }
        let normalise = |path: &str| path::normalise(path).ok().map(std::borrow::Cow::into_owned);
        let Some(Invalidated { keys, groups }) = invalidation::of(request, &reply.head, normalise) else { return };
        let origin = keys.first().cloned();
        let others: Vec<Key> = keys.iter().filter_map(|key| self.stored_as(key)).collect();
        let urls = keys.into_iter().chain(others).map(Selector::Url);
        let groups = groups.into_iter().map(|group| Selector::Group(group, origin.clone()));
        for selector in urls.chain(groups) {
            self.purge(&selector, false);
            if let Some(tier) = &self.tier {
                tier.tell(&selector);
            }
        }
    }

    /// The second tier on a thread that has these ports to it.
    pub(crate) fn on_thread(&self, ports: l2::Ports) -> Option<l2::L2> {
        Some(l2::L2::new(Arc::clone(self.tier.as_ref()?), ports))
    }

    /// Whether what is stored may be given without asking anybody.
    fn is_live(&self) -> bool {
        self.tier.as_ref().is_none_or(|tier| tier.is_live())
    }

    /// Bytes of the largest body that some tier stores.
    fn max_object(&self) -> usize {
        self.store.max_object().max(self.tier.as_ref().map_or(0, |tier| tier.max_object()))
    }

    /// Takes one of the places for refreshes; given back when it is dropped.
    fn begin_refresh(&self) -> Option<Counted> {
        Counted::take(&self.refreshes, 1, MAX_REFRESHES)
    }

    /// Takes room for `bytes` bytes on their way into the store.
    fn begin_filling(&self, bytes: usize) -> Option<Counted> {
        Counted::take(&self.filling, bytes, self.filling_limit)
    }
}

/// A part of something bounded, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    total: Arc<AtomicUsize>,
    part: usize,
    limit: usize,
}

impl Counted {
    fn take(total: &Arc<AtomicUsize>, part: usize, limit: usize) -> Option<Self> {
        let mut counted = Self { total: Arc::clone(total), part: 0, limit };
        counted.add(part).then_some(counted)
    }

    /// Takes more; false when the limit is reached.
    pub(crate) fn add(&mut self, more: usize) -> bool {
        let before = self.total.fetch_add(more, Ordering::Relaxed);
        if before.saturating_add(more) > self.limit {
            self.total.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.part += more;
        true
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.fetch_sub(self.part, Ordering::Relaxed);
    }
}

/// The wall clock.
fn now() -> Moment {
    Moment::from(SystemTime::now())
}
