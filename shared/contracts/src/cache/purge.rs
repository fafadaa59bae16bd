//! Taking answers out of every tier.

use serde::{Deserialize, Serialize};

use super::{Uid, Url};
use crate::bodiless::bodiless;

/// Asks to take answers out. It is answered when no gateway gives them any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// Which.
    pub target: Target,
    /// They are made stale instead: validated before their next use, and good for errors.
    pub soft: bool,
    /// The gateway that has done so already.
    pub source: Option<Uid>,
}

/// What is taken out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// Nothing: the beginning of a history.
    Nothing,
    /// One URL, all variants.
    Url(Url),
    /// Every URL of its origin whose path and query begin like this.
    Prefix(Url),
    /// Every URL of a host.
    Host(String),
    /// Every member of a group; with a URL, within its origin.
    Group(String, Option<Url>),
    /// Everything.
    All,
}

/// What was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// URLs, in each gateway's memory by itself.
    pub urls: u64,
    /// Stored answers, all variants counted, in each gateway's memory by itself.
    pub responses: u64,
    /// Gateways of this service's that have confirmed.
    pub confirmed: u32,
    /// Gateways that did not, and have nothing fresh any more.
    pub lapsed: u32,
}

bodiless!(Purge => Purged, id: 35, version: 1, name: "purge");
