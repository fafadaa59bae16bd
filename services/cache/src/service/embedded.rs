//! The store in this process's memory. It is the only one of its kind: what it knows of purges is all there is to know. It may have a
//! copy on disk, which is read at the start and written behind it.

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
use troupe_mesh::failure::{Failure, Outcome, Stage};

use super::config::StoreConfig;
use super::convert::{selector, url_name};
use super::disk::{Disk, OpenError, Place, Put};
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
    disk: Option<Disk>,
}

impl Embedded {
    /// A store with what its copy on disk holds, where it has one; without, an empty one. Reads all of the copy.
    ///
    /// # Errors
    /// When there is to be a copy, and it cannot be had.
    pub(crate) fn new(config: &StoreConfig) -> Result<Self, OpenError> {
        // Drawn: a gateway that watched an earlier process has missed what that was told.
        let first = Position { generation: fastrand::u64(1..), seq: 1, nonce: fastrand::u64(..) };
        let store = Store::new(config.size.bytes(), config.max_object.as_usize());
        let disk = match config.is_on_disk() {
            true => Some(restored(config, &store)?),
            false => None,
        };
        Ok(Self {
            store,
            leases: Leases::new(config.lease.get()),
            hub: Arc::new(Hub::new(first, Instant::now() + WATCH_LEASE)),
            max_ttl: millis(config.max_ttl.get()),
            disk,
        })
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Bytes held, and URLs known.
    pub(crate) fn figures(&self) -> (u64, usize) {
        (self.store.bytes(), self.store.len())
    }

    /// URLs that had to make room in memory since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.store.evicted()
    }

    pub(crate) fn look_up(&self, call: &Lookup) -> Looked {
        let looked = self.look(call, None);
        match looked.leased {
            // Whoever had the lease before may have brought the answer between the look and the grant.
            Leased::Granted { name, token } => self.look(call, Some((name, token))),
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
            (true, Want::Answer, None) | (_, Want::Stored, _) => Leased::No,
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

    pub(crate) async fn store(&self, about: &About, record: &Bytes, body: Bytes) -> Kept {
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
                // In the order in which the memory has them: whoever stores the next version comes after this.
                true => Ok((before, self.write(about, record, &entry, now))),
                false => Err(Kept::Raced),
            }
        };
        let (before, is_written) = match self.leases.store(about.lease, about.token, put) {
            None => return Kept::Fenced,
            Some(Err(why)) => return why,
            Some(Ok(done)) => done,
        };
        if let (Some(disk), false, true) = (&self.disk, is_written, before.is_some()) {
            disk.forget(disk_name(about, &entry)).await;
        }
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

    /// Has an answer written to the disk; false where it will not be.
    fn write(&self, about: &About, record: &Bytes, entry: &Entry, now: Moment) -> bool {
        let Some(disk) = &self.disk else { return true };
        disk.put(Put {
            name: disk_name(about, entry),
            url: about.url.clone(),
            born: about.born.seq,
            stored: now,
            age_ms: about.age_ms,
            keep_ms: self.keep_for(entry, now),
            record: record.clone(),
            body: entry.body().clone(),
        })
    }

    /// Takes answers out, here and at every watcher.
    ///
    /// # Errors
    /// When they are out of every memory, and may come back from the disk after a restart.
    pub(crate) async fn purge(&self, purge: Purge) -> Result<Purged, Failure> {
        let Some(selector) = selector(&purge.target) else { return Ok(Purged::default()) };
        // Out of this tier first: what a watcher looks up after it was told is not what was purged.
        self.store.purge(&selector, purge.soft, now());
        let number = self.store.stamp().number();
        let target = purge.target.clone();
        let on_disk = async {
            match &self.disk {
                Some(disk) => disk.purge(&target, number).await,
                None => true,
            }
        };
        let (at, counted) = self.hub.make_counted(purge.target, purge.soft, purge.source);
        let (on_disk, standing) = tokio::join!(on_disk, self.hub.confirmed(at));
        if !on_disk {
            let reason = "the purge is done, but not on the disk of the cache service: a restart could undo it";
            return Err(Failure::new(Outcome::Internal, Stage::Cache, reason));
        }
        Ok(counted.purged(standing))
    }

    /// Waits until what was stored is on the disk.
    pub(crate) async fn settle(&self) {
        if let Some(disk) = &self.disk {
            disk.settle().await;
        }
    }

    fn keep_for(&self, entry: &Entry, now: Moment) -> u64 {
        entry.keep_for(now).min(self.max_ttl.saturating_sub(now.since(entry.terms().times.received)))
    }
}

/// Opens the copy on disk, and puts what it holds into `store`.
fn restored(config: &StoreConfig, store: &Store) -> Result<Disk, OpenError> {
    let (began, now) = (Instant::now(), now());
    let place = Place { path: config.file.clone(), limit: config.size.bytes(), max_ttl: config.max_ttl.get() };
    let first = store.stamp();
    let mut answers = 0u64;
    let disk = Disk::open(place, now, |key, entry| {
        answers += u64::from(store.put_again(&Arc::new(key.clone()), Arc::new(entry), first));
    })?;
    tracing::info!(file = %config.file.display(), answers, took = ?began.elapsed(), "the cache goes on with what was on the disk");
    Ok(disk)
}

/// What an answer is called on the disk: its URL, and what its variants are told apart by.
fn disk_name(about: &About, entry: &Entry) -> LeaseName {
    url_name(&about.url, &entry.terms().selection.variant())
}

fn now() -> Moment {
    Moment::from(SystemTime::now())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
