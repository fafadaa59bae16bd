//! The right to fetch: waiting for whoever has it, and giving it back.

use serde::{Deserialize, Serialize};

use super::{LeaseName, Leased};
use crate::bodiless::bodiless;

/// Concerns one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Which.
    pub name: LeaseName,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// To wait until it is over, and to have it when its holder was lost.
    Await {
        /// For how long at most, in milliseconds.
        millis: u32,
    },
    /// To end it without an answer.
    Give {
        /// The holder's token.
        token: u64,
        /// Answers of this are not stored: for a while nobody is to wait for another.
        apart: bool,
    },
}

bodiless!(Lease => Leased, id: 34, version: 1, name: "lease");
