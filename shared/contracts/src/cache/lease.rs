//! The right to fetch: waiting for whoever has it, and giving it back.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{BadHead, Contract};

use super::{LeaseName, Leased};
use crate::envelope;

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

impl Contract for Lease {
    type Reply = Leased;

    const ID: u16 = 34;
    const VERSION: u16 = 1;
    const NAME: &'static str = "lease";

    fn encode_head(&self, out: &mut BytesMut) {
        envelope::put(self, &[], out);
    }

    fn into_body(self) -> Body {
        Body::Empty
    }

    fn decode(head: Bytes, _: Body) -> Result<Self, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        envelope::read(meta).ok_or(bad("nothing about a lease"))
    }

    fn encode_reply_head(reply: &Leased, out: &mut BytesMut) {
        envelope::put(reply, &[], out);
    }

    fn reply_into_body(_: Leased) -> Body {
        Body::Empty
    }

    fn decode_reply(head: Bytes, _: Body) -> Result<Leased, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        envelope::read(meta).ok_or(bad("not a reply about a lease"))
    }
}

fn bad(why: &'static str) -> BadHead {
    BadHead { contract: Lease::NAME, why }
}
