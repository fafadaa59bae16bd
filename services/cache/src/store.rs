//! The store in memory: one for all threads of a process, bounded in bytes.
//!
//! A look-up takes the read lock of one shard for as long as it takes to count a reference; nothing waits while entries
//! are made or dropped. Which entries go when the store is full is the business of quick_cache (S3-FIFO).

mod index;
mod purge;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use troupe_wire::head::RequestHead;

use crate::entry::Entry;
use crate::key::{Key, Sought};
use crate::object::Object;
use crate::time::Moment;
use index::GroupIndex;
use purge::PurgeLog;
pub use purge::{Purged, Selector, Stamp};

/// Locks that keep two writers of one key apart. Writers of different keys seldom share one.
const WRITERS: usize = 64;
/// Bytes of one shard at least, and four objects: one may take half of it.
const SMALLEST_SHARD: u64 = 4 << 20;
/// Shards at most; threads beyond that rarely meet in one.
const MOST_SHARDS: u64 = 64;
/// Bytes of a usual object, for the size of the tables.
const USUAL_OBJECT: u64 = 4 << 10;

type Objects = quick_cache::sync::Cache<Arc<Key>, Arc<Object>, ByWeight, quick_cache::DefaultHashBuilder, OnEviction>;

/// The store.
#[derive(Debug)]
pub struct Store {
    objects: Objects,
    writers: Box<[Mutex<()>]>,
    index: Arc<GroupIndex>,
    purges: PurgeLog,
    counts: Arc<Counts>,
    max_object: usize,
}

/// What happened in the store.
#[derive(Debug, Default)]
struct Counts {
    evicted: AtomicU64,
}

#[derive(Debug, Clone)]
struct ByWeight;

impl Weighter<Arc<Key>, Arc<Object>> for ByWeight {
    fn weight(&self, key: &Arc<Key>, object: &Arc<Object>) -> u64 {
        (key.weight() + object.weight()) as u64
    }
}

/// What is told of an eviction.
#[derive(Debug, Clone)]
struct OnEviction {
    index: Arc<GroupIndex>,
    counts: Arc<Counts>,
}

impl Lifecycle<Arc<Key>, Arc<Object>> for OnEviction {
    /// What was evicted, dropped when the shard's lock is free again.
    type RequestState = Vec<Arc<Object>>;

    fn on_evict(&self, evicted: &mut Self::RequestState, _: Arc<Key>, object: Arc<Object>) {
        self.counts.evicted.fetch_add(1, Ordering::Relaxed);
        // Locks of the index are taken inside those of shards, never the other way round.
        self.index.remove(&object);
        evicted.push(object);
    }
}

impl Store {
    /// A store of `bytes` bytes, index and tables included, for objects of up to `max_object` bytes.
    pub fn new(bytes: u64, max_object: usize) -> Self {
        let shard = SMALLEST_SHARD.max(4 * max_object as u64);
        let shards = (bytes / shard).clamp(1, MOST_SHARDS);
        let items = usize::try_from((bytes / USUAL_OBJECT).max(shards)).unwrap_or(usize::MAX);
        let mut options = OptionsBuilder::new();
        options.shards(shards as usize).weight_capacity(bytes).estimated_items_capacity(items);
        let index = Arc::new(GroupIndex::default());
        let counts = Arc::new(Counts::default());
        let lifecycle = OnEviction { index: Arc::clone(&index), counts: Arc::clone(&counts) };
        let objects = match options.build() {
            Ok(options) => {
                Objects::with_options(options, ByWeight, quick_cache::DefaultHashBuilder::default(), lifecycle)
            }
            // Both numbers are set above, which is all that could be missing.
            Err(_) => Objects::with(items, bytes, ByWeight, quick_cache::DefaultHashBuilder::default(), lifecycle),
        };
        let half_a_shard = usize::try_from(objects.shard_capacity() / 2).unwrap_or(usize::MAX);
        Self {
            max_object: max_object.min(half_a_shard),
            objects,
            writers: (0..WRITERS).map(|_| Mutex::new(())).collect(),
            index,
            purges: PurgeLog::default(),
            counts,
        }
    }

    /// What is known of a URL.
    pub fn get(&self, key: &Sought<'_>) -> Option<Arc<Object>> {
        self.objects.get(key)
    }

    /// The same, for a key that is at hand.
    pub fn get_key(&self, key: &Key) -> Option<Arc<Object>> {
        self.objects.get(key)
    }

    /// Bytes of the largest body that is stored.
    pub fn max_object(&self) -> usize {
        self.max_object
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> u64 {
        self.objects.weight()
    }

    /// URLs that are known.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Objects that had to make room since the start.
    pub fn evicted(&self) -> u64 {
        self.counts.evicted.load(Ordering::Relaxed)
    }

    /// The moment, among all purges, at which a fetch begins; see [`Store::put`].
    pub fn stamp(&self) -> Stamp {
        self.purges.stamp()
    }

    /// Stores a response to `request`. Nothing is stored when a purge since `began` was about it: what was fetched then may
    /// be what the purge was to remove. Returns whether it is stored.
    pub fn put(&self, key: &Arc<Key>, request: &RequestHead, entry: Arc<Entry>, began: Stamp) -> bool {
        if entry.body().len() > self.max_object {
            return false;
        }
        {
            let _writer = self.writer(key);
            let before = self.objects.peek(&**key);
            let object = Arc::new(Object::with(Arc::clone(&entry), request, before.as_deref()));
            self.replace(key, before.as_deref(), &object);
        }
        self.drop_if_purged(key, &entry, began)
    }

    /// The same for a response whose request is not at hand: it replaces the variant that was selected alike.
    pub fn put_again(&self, key: &Arc<Key>, entry: Arc<Entry>, began: Stamp) -> bool {
        if entry.body().len() > self.max_object {
            return false;
        }
        {
            let _writer = self.writer(key);
            let before = self.objects.peek(&**key);
            let object = Arc::new(Object::with_alike(Arc::clone(&entry), before.as_deref()));
            self.replace(key, before.as_deref(), &object);
        }
        self.drop_if_purged(key, &entry, began)
    }

    /// Remembers that responses of a URL are not stored, so that requests for it do not wait for each other.
    pub fn put_uncacheable(&self, key: &Arc<Key>, until: Moment) {
        let _writer = self.writer(key);
        let before = self.objects.peek(&**key);
        let object = Arc::new(Object::uncacheable(until, before.as_deref()));
        self.replace(key, before.as_deref(), &object);
    }

    /// Looked at when it can be found: a purge from here on finds it, one from before is in the log. Whether it stays.
    fn drop_if_purged(&self, key: &Arc<Key>, entry: &Arc<Entry>, began: Stamp) -> bool {
        let purged = self.purges.matches_since(began, key, &entry.terms().groups);
        if purged {
            self.drop_entry(key, entry);
        }
        !purged
    }

    /// Takes one variant out, if it is still there.
    pub fn drop_entry(&self, key: &Arc<Key>, entry: &Arc<Entry>) {
        let _writer = self.writer(key);
        let Some(before) = self.objects.peek(&**key) else { return };
        match before.without(entry) {
            Some(object) => self.replace(key, Some(&before), &Arc::new(object)),
            None => {
                self.index.remove(&before);
                self.objects.remove(&**key);
            }
        }
    }

    fn replace(&self, key: &Arc<Key>, before: Option<&Object>, object: &Arc<Object>) {
        // In the index first: what can be found by its URL can be found by its groups.
        self.index.add(key, object);
        self.objects.insert(Arc::clone(key), Arc::clone(object));
        if let Some(before) = before {
            self.index.remove(before);
        }
    }

    fn writer(&self, key: &Key) -> Option<parking_lot::MutexGuard<'_, ()>> {
        use std::hash::BuildHasher as _;
        let hash = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(key);
        self.writers.get(hash as usize % WRITERS).map(Mutex::lock)
    }
}

#[cfg(test)]
mod tests;
