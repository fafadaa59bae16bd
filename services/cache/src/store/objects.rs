//! The objects, under the policy by which they make room for others.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, Weighter};

use super::index::GroupIndex;
use super::lru::LruObjects;
use super::{Counts, MOST_SHARDS, SMALLEST_SHARD, USUAL_OBJECT};
use crate::key::Key;
use crate::object::Object;

/// Which objects go when the store is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Eviction {
    /// S3-FIFO: what was not asked for again goes first, in the order in which it came. Hits write nothing that threads
    /// share but a counter.
    #[default]
    S3Fifo,
    /// What was not asked for the longest goes first. Each hit takes the lock of its shard.
    Lru,
}

/// The objects.
#[derive(Debug)]
pub(super) enum Objects {
    S3Fifo(FifoObjects),
    Lru(LruObjects),
}

type FifoObjects = quick_cache::sync::Cache<Arc<Key>, Arc<Object>, ByWeight, DefaultHashBuilder, OnEviction>;

#[derive(Debug, Clone)]
pub(super) struct ByWeight;

impl Weighter<Arc<Key>, Arc<Object>> for ByWeight {
    fn weight(&self, key: &Arc<Key>, object: &Arc<Object>) -> u64 {
        weight(key, object)
    }
}

/// Bytes that an object takes with its key.
pub(super) fn weight(key: &Key, object: &Object) -> u64 {
    (key.weight() + object.weight()) as u64
}

/// What is told of an eviction.
#[derive(Debug, Clone)]
pub(super) struct OnEviction {
    pub(super) index: Arc<GroupIndex>,
    pub(super) counts: Arc<Counts>,
}

impl OnEviction {
    /// An object goes: it makes room, or another one has its place (quick_cache tells of both). Locks of the index are taken
    /// inside those of shards, never the other way round.
    pub(super) fn evicted(&self, object: &Object) {
        if object.goes() {
            self.counts.evicted.fetch_add(1, Ordering::Relaxed);
        }
        self.index.remove(object);
    }
}

impl Lifecycle<Arc<Key>, Arc<Object>> for OnEviction {
    /// What was evicted, dropped when the shard's lock is free again.
    type RequestState = Vec<Arc<Object>>;

    fn on_evict(&self, evicted: &mut Self::RequestState, _: Arc<Key>, object: Arc<Object>) {
        self.evicted(&object);
        evicted.push(object);
    }
}

impl Objects {
    pub(super) fn new(eviction: Eviction, bytes: u64, max_object: usize, on_eviction: OnEviction) -> Self {
        let shard = SMALLEST_SHARD.max(4 * max_object as u64);
        let shards = (bytes / shard).clamp(1, MOST_SHARDS);
        if eviction == Eviction::Lru {
            return Self::Lru(LruObjects::new(shards as usize, bytes, on_eviction));
        }
        let items = usize::try_from((bytes / USUAL_OBJECT).max(shards)).unwrap_or(usize::MAX);
        let mut options = OptionsBuilder::new();
        options.shards(shards as usize).weight_capacity(bytes).estimated_items_capacity(items);
        let hasher = DefaultHashBuilder::default();
        Self::S3Fifo(match options.build() {
            Ok(options) => FifoObjects::with_options(options, ByWeight, hasher, on_eviction),
            // Both numbers are set above, which is all that could be missing.
            Err(_) => FifoObjects::with(items, bytes, ByWeight, hasher, on_eviction),
        })
    }

    pub(super) fn get<Q: Hash + Equivalent<Arc<Key>>>(&self, key: &Q) -> Option<Arc<Object>> {
        match self {
            Self::S3Fifo(objects) => objects.get(key),
            Self::Lru(objects) => objects.get(key),
        }
    }

    /// The same, and it does not count as asked for.
    pub(super) fn peek(&self, key: &Key) -> Option<Arc<Object>> {
        match self {
            Self::S3Fifo(objects) => objects.peek(key),
            Self::Lru(objects) => objects.peek(key),
        }
    }

    pub(super) fn insert(&self, key: Arc<Key>, object: Arc<Object>) {
        match self {
            Self::S3Fifo(objects) => objects.insert(key, object),
            Self::Lru(objects) => objects.insert(key, object),
        }
    }

    pub(super) fn remove(&self, key: &Key) {
        match self {
            Self::S3Fifo(objects) => {
                objects.remove(key);
            }
            Self::Lru(objects) => objects.remove(key),
        }
    }

    /// The keys for which `wanted` is true.
    pub(super) fn keys(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Arc<Key>> {
        match self {
            Self::S3Fifo(objects) => objects.iter().map(|(key, _)| key).filter(|key| wanted(key)).collect(),
            Self::Lru(objects) => objects.keys(wanted),
        }
    }

    /// Bytes that one shard holds.
    pub(super) fn shard_capacity(&self) -> u64 {
        match self {
            Self::S3Fifo(objects) => objects.shard_capacity(),
            Self::Lru(objects) => objects.shard_capacity(),
        }
    }

    pub(super) fn weight(&self) -> u64 {
        match self {
            Self::S3Fifo(objects) => objects.weight(),
            Self::Lru(objects) => objects.weight(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::S3Fifo(objects) => objects.len(),
            Self::Lru(objects) => objects.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
