//! The store in memory: one for all threads of a process, bounded in bytes.
//!
//! A look-up takes the read lock of one shard for as long as it takes to count a reference; nothing waits while entries
//! are made or dropped. Which entries go when the store is full is the business of quick_cache (S3-FIFO), or where the
//! configuration wants it of the lru crate.

mod index;
mod lru;
mod objects;
mod purge;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metrics::Counter;
use parking_lot::{Mutex, MutexGuard};
use troupe_wire::head::RequestHead;

use crate::entry::Entry;
use crate::key::{Key, Sought};
use crate::object::{Object, Whose};
use crate::partial::combined;
use crate::time::Moment;
use index::GroupIndex;
pub use objects::Eviction;
use objects::{Objects, OnEviction};
use purge::PurgeLog;
pub use purge::{Purged, Selector, Stamp};

/// Parts of the keys, in each of which one writes at a time. Writers of different keys seldom share one.
const PARTS: usize = 64;
/// Bytes of one shard at least, and four objects: one may take half of it.
const SMALLEST_SHARD: u64 = 4 << 20;
/// Shards at most; threads beyond that rarely meet in one.
const MOST_SHARDS: u64 = 64;
/// Bytes of a usual object, for the size of the tables.
const USUAL_OBJECT: u64 = 4 << 10;

/// The store.
#[derive(Debug)]
pub struct Store {
    objects: Objects,
    parts: Box<[Part]>,
    index: Arc<GroupIndex>,
    purges: PurgeLog,
    counts: Arc<Counts>,
    max_object: usize,
}

/// What keeps two writers of one key apart.
#[derive(Debug, Default)]
struct Part {
    writer: Mutex<()>,
    /// Writes so far.
    writes: AtomicU64,
}

/// What happened in the store.
#[derive(Debug, Default)]
struct Counts {
    evicted: AtomicU64,
    used: AtomicBool,
}

impl Store {
    /// A store of `bytes` bytes, index and tables included, for objects of up to `max_object` bytes.
    pub fn new(bytes: u64, max_object: usize) -> Self {
        Self::with_eviction(bytes, max_object, Eviction::default())
    }

    /// The same under another policy.
    pub fn with_eviction(bytes: u64, max_object: usize, eviction: Eviction) -> Self {
        let index = Arc::new(GroupIndex::default());
        let counts = Arc::new(Counts::default());
        let on_eviction = OnEviction { index: Arc::clone(&index), counts: Arc::clone(&counts) };
        let objects = Objects::new(eviction, bytes, max_object, on_eviction);
        let half_a_shard = usize::try_from(objects.shard_capacity() / 2).unwrap_or(usize::MAX);
        Self {
            max_object: max_object.min(half_a_shard),
            objects,
            parts: (0..PARTS).map(|_| Part::default()).collect(),
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

    /// Whether anything was ever stored: cheaper to ask than whether something is there.
    pub fn is_used(&self) -> bool {
        self.counts.used.load(Ordering::Relaxed)
    }

    /// Objects that had to make room since the start.
    pub fn evicted(&self) -> u64 {
        self.counts.evicted.load(Ordering::Relaxed)
    }

    /// The moment, among all purges, at which a fetch begins; see [`Store::put`].
    pub fn stamp(&self) -> Stamp {
        self.purges.stamp()
    }

    /// Stores a response to `request`, unless one that was asked for later is there already and fresh: a long body may be
    /// overtaken by a newer one (RFC 9111 §4 prefers the most recent). Nothing is stored when a purge since `began` was about it: what was fetched then may
    /// be what the purge was to remove. Returns whether it is stored.
    pub fn put(&self, key: &Arc<Key>, request: &RequestHead, entry: Arc<Entry>, began: Stamp) -> bool {
        self.put_counted(key, request, entry, began, None)
    }

    /// The same, and when it has to make room that is counted by `evictions`.
    pub fn put_counted(
        &self,
        key: &Arc<Key>,
        request: &RequestHead,
        entry: Arc<Entry>,
        began: Stamp,
        evictions: Option<&Counter>,
    ) -> bool {
        if entry.body().len() > self.max_object {
            return false;
        }
        let mut entry = entry;
        let _writer = self.writer(key);
        let before = self.objects.peek(key);
        if before.as_deref().is_some_and(|before| is_outrun(&entry, request, before)) {
            return false;
        }
        if let (206, Some(before)) = (entry.status(), &before) {
            entry = combined(before, &entry, request, self.max_object);
        }
        if self.is_purged(key, &entry, began) {
            return false;
        }
        let object = Object::with(entry, request, before.as_deref());
        let object = Arc::new(match evictions {
            Some(evictions) => object.counted_by(evictions.clone()),
            None => object,
        });
        self.replace(key, before.as_deref(), &object);
        self.counts.used.store(true, Ordering::Relaxed);
        true
    }

    /// The same for a response whose request is not at hand: it replaces the variant that was selected alike.
    pub fn put_again(&self, key: &Arc<Key>, entry: Arc<Entry>, began: Stamp) -> bool {
        if entry.body().len() > self.max_object {
            return false;
        }
        let _writer = self.writer(key);
        if self.is_purged(key, &entry, began) {
            return false;
        }
        let before = self.objects.peek(key);
        let object = Arc::new(Object::with_alike(entry, before.as_deref()));
        self.replace(key, before.as_deref(), &object);
        true
    }

    /// Remembers that a URL's responses to `whose` requests are not stored, so that those do not wait for each other.
    pub fn put_uncacheable(&self, key: &Arc<Key>, whose: Whose, until: Moment) {
        let _writer = self.writer(key);
        let before = self.objects.peek(key);
        let object = Arc::new(Object::uncacheable(whose, until, before.as_deref()));
        self.replace(key, before.as_deref(), &object);
    }

    /// Whether a purge since `began` is about it. To be asked by the part's writer, before anybody can find the entry: a purge that is
    /// not in the log by then waits for this writer, and finds what it has brought.
    fn is_purged(&self, key: &Key, entry: &Entry, began: Stamp) -> bool {
        self.purges.matches_since(began, key, &entry.terms().groups)
    }

    /// Takes one variant out, if it is still there.
    pub fn drop_entry(&self, key: &Arc<Key>, entry: &Arc<Entry>) {
        let _writer = self.writer(key);
        let Some(before) = self.objects.peek(key) else { return };
        match before.without(entry) {
            Some(object) => self.replace(key, Some(&before), &Arc::new(object)),
            None => {
                self.index.remove(&before);
                self.objects.remove(key);
            }
        }
    }

    fn replace(&self, key: &Arc<Key>, before: Option<&Object>, object: &Arc<Object>) {
        // In the index first: what can be found by its URL can be found by its groups.
        self.index.add(key, object);
        if let Some(before) = before {
            before.is_replaced();
        }
        self.objects.insert(Arc::clone(key), Arc::clone(object));
        self.part(key.hashed()).writes.fetch_add(1, Ordering::Release);
        if let Some(before) = before {
            self.index.remove(before);
        }
    }

    /// How often something was stored under this key, or under others of its part: as long as that stays the same, what
    /// was not there is not there.
    pub fn writes(&self, hashed: u64) -> u64 {
        self.part(hashed).writes.load(Ordering::Acquire)
    }

    fn writer(&self, key: &Key) -> MutexGuard<'_, ()> {
        self.part(key.hashed()).writer.lock()
    }

    fn part(&self, hashed: u64) -> &Part {
        // The remainder is always inside; the first one stands for what cannot happen.
        self.parts.get(hashed as usize % PARTS).unwrap_or(&self.parts[0])
    }
}

/// Whether what answers `request` already was asked for later than `entry`, and is fresh where that has come.
fn is_outrun(entry: &Entry, request: &RequestHead, before: &Object) -> bool {
    let times = entry.terms().times;
    before.find(request).is_some_and(|other| {
        other.terms().times.requested > times.requested && other.fresh_for(other.terms().times.received) > 0
    })
}

#[cfg(test)]
mod tests;
