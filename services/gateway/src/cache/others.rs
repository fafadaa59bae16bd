//! What a fetch comes to for others: those who wait for it, and those who come for a while.

use std::sync::Arc;
use std::time::Duration;

use troupe_cache::entry::Entry;
use troupe_cache::freshness::Times;
use troupe_cache::object::Whose;
use troupe_cache::storing::Refusal;

use super::fetch::{Fetch, Parts};
use super::flight::{Leader, Settled};
use super::lookup::Lack;

/// For how long requests do not wait for each other after a response that could not be stored. The next one that can be
/// ends it at once.
pub(super) const APART: Duration = Duration::from_secs(60);

impl Fetch {
    /// Gives those who wait what was fetched, if it may answer them.
    pub(super) fn share(&self, leader: Option<Leader<'_>>, lack: &Lack, entry: &Arc<Entry>) {
        if is_shared(entry) {
            if let Some(grant) = lack.grant.take() {
                grant.keep(&self.0.miss.key, entry);
            }
            settle(leader, Settled::Stored(Arc::clone(entry)));
        } else {
            self.keep_apart(leader, lack, Refusal::NoFreshness, entry.terms().times);
        }
    }

    /// Lets those who wait fetch for themselves, and those who come as well for a while.
    pub(super) fn keep_apart(&self, leader: Option<Leader<'_>>, lack: &Lack, refusal: Refusal, times: Times) {
        let Parts { cache, miss, .. } = &*self.0;
        let until = times.received.after(APART);
        match refusal {
            Refusal::RequestNoStore | Refusal::Method => {}
            _ if miss.asked.personal => cache.store.put_uncacheable(&miss.key, Whose::Personal, until),
            _ => {
                cache.store.put_uncacheable(&miss.key, Whose::All, until);
                if let Some(grant) = lack.grant.take() {
                    grant.apart();
                }
            }
        }
        settle(leader, Settled::Apart);
    }

    /// Whether what could not be stored says nothing about what others are answered: the request forbids it, or is somebody's.
    pub(super) fn is_own_doing(&self, refusal: Refusal) -> bool {
        self.0.miss.asked.personal || matches!(refusal, Refusal::RequestNoStore | Refusal::Method)
    }
}

/// Whether a response answers those who asked while it was fetched: one that must be validated before each use does not
/// (RFC 9111 §5.2.2.4).
pub(super) fn is_shared(entry: &Entry) -> bool {
    !entry.terms().no_cache && entry.terms().lifetime > entry.terms().initial_age
}

pub(super) fn settle(leader: Option<Leader<'_>>, settled: Settled) {
    if let Some(leader) = leader {
        leader.settle(settled);
    }
}
