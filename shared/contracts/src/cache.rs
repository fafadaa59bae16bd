//! The second tier of the cache: what gateways ask the cache service.
//!
//! | contract | what for |
//! |---|---|
//! | [`Lookup`](lookup::Lookup) | what is stored for a request, and who is to fetch it where nothing is |
//! | [`Store`](store::Store) | keep an answer |
//! | [`Lease`](lease::Lease) | wait for whoever fetches, or give the right to fetch back |
//! | [`Purge`](purge::Purge) | take answers out of every tier |
//! | [`Watch`](watch::Watch) | hear what was taken out, and prove that one does |
//!
//! What a stored answer's record says is the cache's own encoding; here it is bytes. Its body travels beside it.

pub mod lease;
pub mod lookup;
pub mod purge;
pub mod store;
pub mod watch;

use serde::{Deserialize, Serialize};

/// A start of a process, as links know it.
pub type Uid = [u8; 16];

/// What an answer is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Url {
    /// The scheme is https; else it is http.
    pub https: bool,
    /// Host and port in lower case, without the scheme's own port.
    pub host: String,
    /// Normalised path and query.
    pub target: String,
}

/// A moment among all purges: what is fetched after it is younger than every purge up to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Born {
    /// The history that the number belongs to. One that was lost is followed by another.
    pub generation: u64,
    /// The number of the last purge.
    pub seq: u64,
}

/// The name of a lease: what is to be fetched.
pub type LeaseName = [u8; 16];

/// Who is to fetch what is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Leased {
    /// Nobody asked.
    No,
    /// The caller.
    Granted {
        /// What is to be fetched.
        name: LeaseName,
        /// Of two holders the later has the higher one.
        token: u64,
    },
    /// Another.
    Held {
        /// What it fetches.
        name: LeaseName,
    },
    /// Everyone for himself: answers of this are not stored.
    Apart,
    /// Whoever fetched is through: look again.
    Over,
}

#[cfg(test)]
mod tests;
