//! The store in this process's memory. It is the only one of its kind: what it knows of purges is all there is to know.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use troupe_contracts::cache::lease::{Ask, Lease};
use troupe_contracts::cache::lookup::{Looked, Lookup, Stored, Want};
use troupe_contracts::cache::purge::{Purge, Purged, Target};
use troupe_contracts::cache::store::{About, Kept};
use troupe_contracts::cache::watch::Position;
use troupe_contracts::cache::{Born, LeaseName, Leased};
use troupe_mesh::body::Body;

use super::config::StoreConfig;
use super::convert::{selector, url_name};
use super::hub::Hub;
use super::leases::Leases;
use super::watchers::WATCH_LEASE;
use crate::entry::Entry;
use crate::key::Key;
use crate::record;
use crate::store::{Stamp, Store};
use crate::time::Moment;

/// The embedded store.
#[derive(Debug)]
pub(crate) struct Embedded {
    store: Store,
    leases: Leases,
    hub: Arc<Hub>,
    max_ttl: u64,
}

impl Embedded {
    /// An empty store.
    pub(crate) fn new(config: &StoreConfig) -> Self {
        // Drawn: a gateway that watched an earlier process has missed what that was told.
        let first = Position { generation: fastrand::u64(1..), seq: 1, nonce: fastrand::u64(..) };
        Self {
            store: Store::new(config.size.bytes(), config.max_object.as_usize()),
            leases: Leases::new(config.lease.get()),
            hub: Arc::new(Hub::new(first, Instant::now() + WATCH_LEASE)),
            max_ttl: millis(config.max_ttl.get()),
        }
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Bytes held, and URLs known.
    pub(crate) fn figures(&self) -> (u64, usize) {
        (self.store.bytes(), self.store.len())
    }

    pub(crate) fn look_up(&self, call: &Lookup) -> Looked {
        let looked = self.look(call, None);
        match (looked.leased, call.want) {
            // Whoever had the lease before may have brought the answer between the look and the grant.
            (Leased::Granted { name, token }, Want::Answer) => self.look(call, Some((name, token))),
            _ => looked,
        }
    }

    /// What there is; where nothing fresh is, with the lease to fetch it: `granted`, if it is given back where something is.
    fn look(&self, call: &Lookup, granted: Option<(LeaseName, u64)>) -> Looked {
        let (key, now) = (Key::from(&call.url), now());
        // Before the look-up: a purge after this is about what is found as well.
        let born = Born { generation: self.hub.position().generation, seq: self.store.stamp().number() };
        let object = self.store.get_key(&key);
        let entry = object.as_ref().and_then(|object| object.find(&call.head));
        let entry = entry.filter(|entry| self.keep_for(entry, now) > 0);
        let is_fresh = entry.is_some_and(|entry| entry.fresh_for(now) > 0 && !entry.terms().no_cache);
        let leased = match (is_fresh, call.want, granted) {
            (true, Want::Answer, Some((name, token))) => {
                self.leases.give(name, token, false, Instant::now());
                Leased::No
            }
            (true, Want::Answer, None) => Leased::No,
            (_, _, Some((name, token))) => Leased::Granted { name, token },
            (_, _, None) => {
                let variant = object.as_ref().map(|object| object.variant_of(&call.head)).unwrap_or_default();
                self.leases.take(url_name(&call.url, &variant), Instant::now())
            }
        };
        let found = entry.map(|entry| Stored {
            age_ms: entry.age(now),
            stale: entry.is_made_stale(),
            record: record::encode(entry),
            body: Body::full(entry.body().clone()),
        });
        Looked { found, leased, born }
    }

    pub(crate) fn store(&self, about: &About, record: &Bytes, body: Bytes) -> Kept {
        if about.born.generation != self.hub.position().generation {
            return Kept::Raced;
        }
        let now = now();
        let Some(entry) = record::decode(record, body, about.age_ms, now) else { return Kept::NoRoom };
        let (key, entry) = (Arc::new(Key::from(&about.url)), Arc::new(entry));
        let put = || {
            if entry.body().len() > self.store.max_object() {
                return Err(Kept::NoRoom);
            }
            let before = self.store.get_key(&key).and_then(|object| object.like(&entry).cloned());
            match self.store.put_again(&key, Arc::clone(&entry), Stamp::of_number(about.born.seq)) {
                true => Ok(before),
                false => Err(Kept::Raced),
            }
        };
        let before = match self.leases.store(about.lease, about.token, Instant::now(), put) {
            None => return Kept::Fenced,
            Some(Err(why)) => return why,
            Some(Ok(before)) => before,
        };
        // What gateways have of the version before is fresh to them, and not what the URL stands for any more.
        let replaced = before.is_some_and(|before| before.fresh_for(now) > 0 && before.digest() != entry.digest());
        if replaced {
            self.hub.make(Target::Url(about.url.clone()), false, Some(about.source));
        }
        Kept::Stored
    }

    pub(crate) async fn lease(&self, call: Lease) -> Leased {
        match call.ask {
            Ask::Await { millis } => self.leases.wait(call.name, Duration::from_millis(millis.into())).await,
            Ask::Give { token, apart } => {
                self.leases.give(call.name, token, apart, Instant::now());
                Leased::Over
            }
        }
    }

    /// Takes answers out, here and at every watcher.
    pub(crate) async fn purge(&self, purge: Purge) -> Purged {
        let Some(selector) = selector(&purge.target) else { return Purged::default() };
        // Out of this tier first: what a watcher looks up after it was told is not what was purged.
        self.store.purge(&selector, purge.soft, now());
        let (at, counted) = self.hub.make_counted(purge.target, purge.soft, purge.source);
        let standing = self.hub.confirmed(at).await;
        counted.purged(standing)
    }

    fn keep_for(&self, entry: &Entry, now: Moment) -> u64 {
        entry.keep_for(now).min(self.max_ttl.saturating_sub(now.since(entry.terms().times.received)))
    }
}

fn now() -> Moment {
    Moment::from(SystemTime::now())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
