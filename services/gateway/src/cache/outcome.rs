//! How a request of a cached route ended.

use std::sync::Arc;

use troupe_cache::cache_status::{CacheStatus, Forward};
use troupe_cache::entry::Entry;
use troupe_cache::key::Key;
use troupe_contracts::invoke::Reply;
use troupe_mesh::failure::Failure;

use super::{Follower, Spent};

/// What a request of a cached route is answered with, and what is said about it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) response: Response,
    pub(crate) status: CacheStatus,
    /// What is said about the second tier, where it was asked.
    pub(crate) second: Option<CacheStatus>,
    pub(crate) result: CacheResult,
    /// Seconds for which a network in front keeps it, if it is stored.
    pub(crate) cdn_ttl: Option<u64>,
    /// What the answer is found by, where that is known.
    pub(crate) key: Option<Arc<Key>>,
    /// Where the time went.
    pub(crate) spent: Spent,
}

/// What a request is answered with.
#[derive(Debug)]
pub(crate) enum Response {
    /// What is stored, or is on its way into the store.
    Stored(Arc<Entry>, Option<Follower>),
    /// A reply that is not stored.
    Reply(Reply),
    /// A call that failed.
    Failed(Failure),
    /// Nothing is stored, and the client wants nothing else (RFC 9111 §5.2.1.7).
    Absent,
}

/// What the cache did for a request, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheResult {
    /// Answered from the store.
    Hit,
    /// Fetched, and stored or not.
    Miss,
    /// Not for the cache: method, request, or a URL whose responses are not stored.
    Pass,
    /// Answered with a stale response.
    Stale,
    /// Validated: what was stored is still good.
    Revalidated,
    /// Answered by what another request fetched.
    Collapsed,
    /// Answered from the second tier.
    Shared,
    /// The same, with a stale response.
    SharedStale,
}

impl CacheResult {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 8] = [
        Self::Hit,
        Self::Miss,
        Self::Pass,
        Self::Stale,
        Self::Revalidated,
        Self::Collapsed,
        Self::Shared,
        Self::SharedStale,
    ];

    /// The name in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hit | Self::Shared => "hit",
            Self::Miss => "miss",
            Self::Pass => "pass",
            Self::Stale | Self::SharedStale => "stale",
            Self::Revalidated => "revalidated",
            Self::Collapsed => "collapsed",
        }
    }

    /// The tier that it is counted for.
    pub(crate) fn tier(self) -> &'static str {
        match self {
            Self::Shared | Self::SharedStale => "l2",
            Self::Hit | Self::Miss | Self::Pass | Self::Stale | Self::Revalidated | Self::Collapsed => "l1",
        }
    }
}

impl Outcome {
    /// How the call failed.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match &self.response {
            Response::Failed(failure) => Some(failure),
            Response::Stored(..) | Response::Reply(_) | Response::Absent => None,
        }
    }

    /// Out of the store.
    pub(crate) fn hit(entry: Arc<Entry>, stale: bool) -> Self {
        let result = if stale { CacheResult::Stale } else { CacheResult::Hit };
        let status = CacheStatus { hit: true, ..CacheStatus::default() };
        Self::of(Response::Stored(entry, None), status, result)
    }

    fn of(response: Response, status: CacheStatus, result: CacheResult) -> Self {
        Self { response, status, second: None, result, cdn_ttl: None, key: None, spent: Spent::default() }
    }

    /// Out of the second tier.
    pub(super) fn shared(entry: Arc<Entry>, forward: Forward, stale: bool) -> Self {
        let status = CacheStatus { forward: Some(forward), stored: true, ..CacheStatus::default() };
        let second = Some(CacheStatus { hit: true, ..CacheStatus::default() });
        let result = if stale { CacheResult::SharedStale } else { CacheResult::Shared };
        Self::of(Response::Stored(entry, None), status, result).after_second(second)
    }

    /// What the second tier said before.
    pub(super) fn after_second(mut self, second: Option<CacheStatus>) -> Self {
        self.second = second;
        self
    }

    /// By what another request fetched.
    pub(super) fn collapsed(response: Response, forward: Forward) -> Self {
        let status = CacheStatus { forward: Some(forward), collapsed: true, ..CacheStatus::default() };
        Self::of(response, status, CacheResult::Collapsed)
    }

    /// Passed on because of `forward`.
    pub(super) fn forwarded(response: Response, forward: Forward, result: CacheResult) -> Self {
        let status = CacheStatus { forward: Some(forward), ..CacheStatus::default() };
        Self::of(response, status, result)
    }

    /// With what is stored, because the origin failed. It was asked, so this is no hit (RFC 9211 §2.1).
    pub(super) fn stood_in(entry: Arc<Entry>, forward: Forward) -> Self {
        Self::forwarded(Response::Stored(entry, None), forward, CacheResult::Stale).because("origin-failed")
    }

    pub(super) fn stored(mut self, stored: bool) -> Self {
        self.status.stored = stored;
        self
    }

    pub(super) fn after_status(mut self, status: u16) -> Self {
        self.status.forward_status = Some(status);
        self
    }

    pub(super) fn because(mut self, detail: &'static str) -> Self {
        self.status.detail = Some(detail);
        self
    }
}
