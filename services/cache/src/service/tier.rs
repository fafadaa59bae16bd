//! What is asked of the second tier, whichever store it has.

use std::sync::Arc;

use bytes::Bytes;
use troupe_contracts::cache::Leased;
use troupe_contracts::cache::lease::Lease;
use troupe_contracts::cache::lookup::{Looked, Lookup};
use troupe_contracts::cache::purge::{Purge, Purged};
use troupe_contracts::cache::store::{About, Kept};
use troupe_mesh::failure::Failure;

use super::embedded::Embedded;
use super::hub::Hub;
use super::redis::InRedis;

/// A thread's way to the store.
#[derive(Debug, Clone)]
pub(crate) enum Tier {
    /// In this process's memory.
    Embedded(Arc<Embedded>),
    /// In Redis.
    Redis(InRedis),
}

impl Tier {
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        match self {
            Self::Embedded(store) => store.hub(),
            Self::Redis(store) => store.hub(),
        }
    }

    /// Bytes held, and URLs known, where that is known here.
    pub(crate) fn figures(&self) -> Option<(u64, usize)> {
        match self {
            Self::Embedded(store) => Some(store.figures()),
            Self::Redis(_) => None,
        }
    }

    /// URLs that had to make room since the start, where that is known here.
    pub(crate) fn evicted(&self) -> Option<u64> {
        match self {
            Self::Embedded(store) => Some(store.evicted()),
            Self::Redis(_) => None,
        }
    }

    pub(crate) async fn look_up(&self, call: Lookup) -> Result<Looked, Failure> {
        match self {
            Self::Embedded(store) => Ok(store.look_up(&call)),
            Self::Redis(store) => store.look_up(call).await,
        }
    }

    pub(crate) async fn store(&self, about: About, record: Bytes, body: Bytes) -> Result<Kept, Failure> {
        match self {
            Self::Embedded(store) => Ok(store.store(&about, &record, body).await),
            Self::Redis(store) => store.store(about, record, body).await,
        }
    }

    pub(crate) async fn lease(&self, call: Lease) -> Result<Leased, Failure> {
        match self {
            Self::Embedded(store) => Ok(store.lease(call).await),
            Self::Redis(store) => store.lease(call).await,
        }
    }

    pub(crate) async fn purge(&self, call: Purge) -> Result<Purged, Failure> {
        match self {
            Self::Embedded(store) => store.purge(call).await,
            Self::Redis(store) => store.purge(call).await,
        }
    }
}
