//! Objects of which the one that was not asked for the longest goes first: shards of the `lru` crate's lists, bounded in
//! bytes. Every look-up takes its shard's lock, because it changes the order.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use quick_cache::Equivalent;

use super::objects::{OnEviction, weight};
use crate::key::Key;
use crate::object::Object;

#[derive(Debug)]
pub(super) struct LruObjects {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// Bytes that one shard holds.
    capacity: u64,
    on_eviction: OnEviction,
}

#[derive(Debug)]
struct Shard {
    /// By the key's hash, so that what is looked for need not be a key. Of two keys with one hash the later one stays.
    objects: LruCache<u64, (Arc<Key>, Arc<Object>)>,
    weight: u64,
}

impl LruObjects {
    pub(super) fn new(shards: usize, bytes: u64, on_eviction: OnEviction) -> Self {
        let shard = || Mutex::new(Shard { objects: LruCache::unbounded(), weight: 0 });
        Self {
            shards: (0..shards.max(1)).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            capacity: bytes / shards.max(1) as u64,
            on_eviction,
        }
    }

    pub(super) fn get<Q: Hash + Equivalent<Arc<Key>>>(&self, key: &Q) -> Option<Arc<Object>> {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash)?.lock();
        shard.objects.get(&hash).filter(|(known, _)| key.equivalent(known)).map(|(_, object)| Arc::clone(object))
    }

    pub(super) fn peek(&self, key: &Key) -> Option<Arc<Object>> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash)?.lock();
        shard.objects.peek(&hash).filter(|(known, _)| **known == *key).map(|(_, object)| Arc::clone(object))
    }

    pub(super) fn insert(&self, key: Arc<Key>, object: Arc<Object>) {
        let hash = self.hasher.hash_one(&*key);
        let Some(shard) = self.shard(hash) else { return };
        // Dropped when the lock is free again.
        let mut gone = Vec::new();
        let mut shard = shard.lock();
        shard.weight += weight(&key, &object);
        if let Some((known, before)) = shard.objects.put(hash, (Arc::clone(&key), object)) {
            shard.weight -= weight(&known, &before);
            if *known != *key {
                self.on_eviction.evicted(&before);
            }
            gone.push((known, before));
        }
        while shard.weight > self.capacity
            && let Some((_, (known, object))) = shard.objects.pop_lru()
        {
            shard.weight -= weight(&known, &object);
            self.on_eviction.evicted(&object);
            gone.push((known, object));
        }
        drop(shard);
    }

    pub(super) fn remove(&self, key: &Key) {
        let hash = self.hasher.hash_one(key);
        let Some(shard) = self.shard(hash) else { return };
        let mut shard = shard.lock();
        if shard.objects.peek(&hash).is_some_and(|(known, _)| **known == *key)
            && let Some((known, object)) = shard.objects.pop(&hash)
        {
            shard.weight -= weight(&known, &object);
            drop(shard);
            drop((known, object));
        }
    }

    pub(super) fn keys(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Arc<Key>> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            keys.extend(shard.objects.iter().map(|(_, (key, _))| key).filter(|key| wanted(key)).cloned());
        }
        keys
    }

    pub(super) fn shard_capacity(&self) -> u64 {
        self.capacity
    }

    pub(super) fn weight(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().weight).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().objects.len()).sum()
    }

    fn shard(&self, hash: u64) -> Option<&Mutex<Shard>> {
        // The list's own table uses the lower bits.
        self.shards.get((hash >> 32) as usize % self.shards.len())
    }
}
