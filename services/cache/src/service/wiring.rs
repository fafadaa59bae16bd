//! How the service is put together.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use troupe_contracts::cache::Uid;
use troupe_contracts::cache::lease::Lease;
use troupe_contracts::cache::lookup::Lookup;
use troupe_contracts::cache::purge::{Purge, Purged};
use troupe_contracts::cache::store::Store;
use troupe_contracts::cache::watch::Watch;
use troupe_mesh::failure::{Failure, Stage};
use troupe_mesh::port::Service;
use troupe_redis::Redis;

use super::config::StoreConfig;
use super::disk::OpenError;
use super::embedded::Embedded;
use super::face::Face;
use super::holders::Holders;
use super::meters::Gauges;
use super::redis::{self, InRedis};
use super::tier::Tier;

/// How long a purge that was ordered here may take: several times as long as anybody may give what it is about.
const PURGE_PATIENCE: Duration = Duration::from_secs(10);
/// How often gauges are read.
const GAUGES: Duration = Duration::from_secs(1);

/// The cache service of this process. Clones share it.
#[derive(Debug, Clone)]
pub struct CacheService {
    store: Shared,
    max_object: usize,
    holders: Arc<Holders>,
}

/// What all threads share.
#[derive(Debug, Clone)]
enum Shared {
    Embedded(Arc<Embedded>),
    Redis(Redis, Arc<redis::Shared>),
}

/// What answers the contracts of the cache on one thread.
#[derive(Clone)]
pub struct Faces(Face);

impl CacheService {
    /// With a store in this process's memory, and the copy of it on disk that the configuration may ask for: it is read whole before
    /// this returns.
    ///
    /// # Errors
    /// When the copy cannot be had.
    pub fn embedded(config: &StoreConfig) -> Result<Self, OpenError> {
        Ok(Self::new(Shared::Embedded(Arc::new(Embedded::new(config)?)), config))
    }

    /// With a store in Redis, where other instances have theirs as well; `me` is this one.
    pub fn in_redis(redis: Redis, me: Uid, config: &StoreConfig) -> Self {
        let shared = Arc::new(redis::Shared::new(&redis, me, config));
        Self::new(Shared::Redis(redis, shared), config)
    }

    fn new(store: Shared, config: &StoreConfig) -> Self {
        let holders = Arc::new(Holders::new(config.lease.get()));
        Self { store, max_object: config.max_object.as_usize(), holders }
    }

    /// The service on the calling thread.
    pub fn on_thread(&self) -> Faces {
        Faces(Face::new(self.tier(), self.max_object, Arc::clone(&self.holders)))
    }

    /// Takes answers out of every tier; returns when no gateway gives them any more.
    ///
    /// # Errors
    /// When that is not known.
    pub async fn purge(&self, call: Purge) -> Result<Purged, Failure> {
        let purged = tokio::time::timeout(PURGE_PATIENCE, self.tier().purge(call)).await;
        purged.unwrap_or_else(|_| Err(Failure::deadline(Stage::Cache)))
    }

    /// Ends the streams of all watchers, which would never end by themselves: gateways turn to another instance.
    pub fn end_watches(&self) {
        self.tier().hub().end();
    }

    /// Waits until what was stored is where it survives this process.
    pub async fn settle(&self) {
        if let Shared::Embedded(store) = &self.store {
            store.settle().await;
        }
    }

    /// What goes on beside answering, until the calling thread's event loop ends: following what is purged elsewhere, and
    /// reading gauges once a second.
    pub async fn run(self) {
        if let Shared::Redis(redis, shared) = &self.store {
            actix_rt::spawn(redis::follow(redis.again(), Arc::clone(shared)));
        }
        let (gauges, tier) = (Gauges::new(), self.tier());
        loop {
            gauges.read(&tier);
            tokio::time::sleep(GAUGES).await;
        }
    }

    fn tier(&self) -> Tier {
        match &self.store {
            Shared::Embedded(store) => Tier::Embedded(Arc::clone(store)),
            // With connections of its own: they belong to the event loop that they were made on.
            Shared::Redis(redis, shared) => Tier::Redis(InRedis::new(redis.again(), Arc::clone(shared))),
        }
    }
}

impl Faces {
    /// Answers look-ups.
    pub fn lookup(&self) -> Rc<dyn Service<Lookup>> {
        Rc::new(self.0.clone())
    }

    /// Answers stores.
    pub fn store(&self) -> Rc<dyn Service<Store>> {
        Rc::new(self.0.clone())
    }

    /// Answers what concerns leases.
    pub fn lease(&self) -> Rc<dyn Service<Lease>> {
        Rc::new(self.0.clone())
    }

    /// Answers purges.
    pub fn purge(&self) -> Rc<dyn Service<Purge>> {
        Rc::new(self.0.clone())
    }

    /// Serves watchers.
    pub fn watch(&self) -> Rc<dyn Service<Watch>> {
        Rc::new(self.0.clone())
    }
}
