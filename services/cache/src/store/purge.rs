//! Purges: what they are about, what they find, and what fetches of before them may not store after them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Store;
use crate::key::Key;
use crate::time::Moment;

/// Purges that are remembered for fetches under way. A fetch from before the oldest of them is not stored.
const REMEMBERED: usize = 1024;

/// What a purge is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// One URL, all variants.
    Url(Key),
    /// Every URL whose path and query begin like this key's, on its host.
    Prefix(Key),
    /// Every URL of a host, in lower case, whatever the scheme.
    Host(Box<str>),
    /// Every member of a group; with a key, within its origin only (RFC 9875 §2).
    Group(Box<str>, Option<Key>),
    /// Everything.
    All,
}

/// What a purge found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// URLs.
    pub urls: usize,
    /// Stored responses, all variants counted.
    pub responses: usize,
    /// URLs that were looked at to find them: what the purge has cost.
    pub looked: usize,
}

/// A moment among purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

impl Stamp {
    /// The moment as a number, to be told elsewhere.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The moment with this number, of the same store.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }
}

#[derive(Debug, Default)]
pub(super) struct PurgeLog {
    /// The number of the next purge, and the last ones.
    log: Mutex<(u64, VecDeque<Selector>)>,
    /// The same number, for whoever only wants to know whether it changed.
    next: std::sync::atomic::AtomicU64,
}

impl Selector {
    /// Whether it is about a response under `key` that belongs to `groups`.
    pub fn matches(&self, key: &Key, groups: &[Box<str>]) -> bool {
        match self {
            Self::Url(url) => url == key,
            Self::Prefix(prefix) => prefix.same_origin(key) && key.target().starts_with(prefix.target()),
            Self::Host(host) => **host == *key.host(),
            Self::Group(group, origin) => {
                groups.contains(group) && origin.as_ref().is_none_or(|origin| origin.same_origin(key))
            }
            Self::All => true,
        }
    }
}

impl PurgeLog {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp(self.next.load(std::sync::atomic::Ordering::Acquire))
    }

    fn add(&self, selector: Selector) {
        let mut log = self.log.lock();
        if log.1.len() >= REMEMBERED {
            log.1.pop_front();
        }
        log.1.push_back(selector);
        log.0 += 1;
        self.next.store(log.0, std::sync::atomic::Ordering::Release);
    }

    pub(super) fn matches_since(&self, began: Stamp, key: &Key, groups: &[Box<str>]) -> bool {
        if self.stamp() == began {
            return false;
        }
        let log = self.log.lock();
        let missed = usize::try_from(log.0.saturating_sub(began.0)).unwrap_or(usize::MAX);
        missed > log.1.len() || log.1.iter().rev().take(missed).any(|selector| selector.matches(key, groups))
    }
}

impl Store {
    /// Removes what `selector` is about; `soft` only makes it stale, so that it can be validated and stand in for errors.
    /// What is being fetched meanwhile is not stored. When this returns, nothing of it is answered any more.
    pub fn purge(&self, selector: &Selector, soft: bool, now: Moment) -> Purged {
        // First in the log, then out of the store: whoever stores from here on sees it there, and whoever looked before has been
        // waited for, so that what it brought is found.
        self.purges.add(selector.clone());
        self.await_writers(selector);
        let mut purged = Purged::default();
        let keys: Vec<Arc<Key>> = match selector {
            Selector::Url(key) => vec![Arc::new(key.clone())],
            Selector::Group(group, _) => self.index.members(group),
            Selector::Prefix(_) | Selector::Host(_) | Selector::All => {
                purged.looked = self.objects.len();
                self.objects.keys(|key| selector.matches(key, &[]))
            }
        };
        purged.looked += keys.len();
        for key in keys {
            let responses = self.purge_one(&key, selector, soft, now);
            purged.responses += responses;
            purged.urls += usize::from(responses > 0);
        }
        purged
    }

    /// Waits until whoever is writing something that `selector` may be about is done.
    fn await_writers(&self, selector: &Selector) {
        match selector {
            Selector::Url(key) => drop(self.writer(key)),
            _ => self.parts.iter().for_each(|part| drop(part.writer.lock())),
        }
    }

    fn purge_one(&self, key: &Arc<Key>, selector: &Selector, soft: bool, now: Moment) -> usize {
        let Some(object) = self.objects.peek(key) else { return 0 };
        let chosen: Vec<_> =
            object.variants().iter().filter(|entry| selector.matches(key, &entry.terms().groups)).cloned().collect();
        for entry in &chosen {
            if soft {
                entry.make_stale(now);
            } else {
                self.drop_entry(key, entry);
            }
        }
        chosen.len()
    }
}
