//! The right to fetch something for all gateways. Whatever becomes of the fetch, it ends: by the answer, by word that there
//! is none, or by the lease's time where the process dies.

use std::sync::Arc;

use troupe_cache::entry::Entry;
use troupe_cache::key::Key;
use troupe_contracts::cache::lease::{Ask, Lease};
use troupe_contracts::cache::lookup::Looked;
use troupe_contracts::cache::{Born, LeaseName, Leased};

use super::L2;

/// What a fetch is allowed by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Right {
    pub(super) name: LeaseName,
    pub(super) token: u64,
    /// A moment before the fetch, among all purges.
    pub(super) born: Born,
}

/// A right to fetch, given back when it is dropped.
#[derive(Debug)]
pub(in crate::cache) struct Grant {
    l2: L2,
    right: Option<Right>,
}

impl Grant {
    /// What a look-up granted.
    pub(super) fn of(l2: &L2, looked: &Looked) -> Option<Self> {
        let Leased::Granted { name, token } = looked.leased else { return None };
        Some(Self { l2: l2.clone(), right: Some(Right { name, token, born: looked.born }) })
    }

    /// Brings what was fetched to the second tier.
    pub(in crate::cache) fn keep(mut self, key: &Key, entry: &Arc<Entry>) {
        if let Some(right) = self.right
            && entry.body().len() <= self.l2.tier.max_object
            && self.l2.keep(right, key, entry)
        {
            self.right = None;
        }
    }

    /// What was fetched is not for others, and what others fetch will hardly be.
    pub(in crate::cache) fn apart(mut self) {
        self.end(true);
    }

    fn end(&mut self, apart: bool) {
        if let Some(Right { name, token, .. }) = self.right.take() {
            self.l2.tier.give(Lease { name, ask: Ask::Give { token, apart } });
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.end(false);
    }
}
