//! Taking answers out of every tier.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{BadHead, Contract};

use super::{Uid, Url};
use crate::envelope;

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

impl Contract for Purge {
    type Reply = Purged;

    const ID: u16 = 35;
    const VERSION: u16 = 1;
    const NAME: &'static str = "purge";

    fn encode_head(&self, out: &mut BytesMut) {
        envelope::put(self, &[], out);
    }

    fn into_body(self) -> Body {
        Body::Empty
    }

    fn decode(head: Bytes, _: Body) -> Result<Self, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        envelope::read(meta).ok_or(bad("not a purge"))
    }

    fn encode_reply_head(reply: &Purged, out: &mut BytesMut) {
        envelope::put(reply, &[], out);
    }

    fn reply_into_body(_: Purged) -> Body {
        Body::Empty
    }

    fn decode_reply(head: Bytes, _: Body) -> Result<Purged, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        envelope::read(meta).ok_or(bad("not a reply to a purge"))
    }
}

fn bad(why: &'static str) -> BadHead {
    BadHead { contract: Purge::NAME, why }
}
