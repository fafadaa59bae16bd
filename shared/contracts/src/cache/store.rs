//! Keeping an answer.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{BadHead, Contract};

use super::{Born, LeaseName, Uid, Url};
use crate::envelope;

/// Asks to keep an answer that the holder of a lease has fetched.
#[derive(Debug)]
pub struct Store {
    /// What is known of it beside its record.
    pub about: About,
    /// Head and terms, in the cache's own encoding.
    pub record: Bytes,
    /// The body.
    pub body: Body,
}

/// What is known of an answer beside its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// What it is found by.
    pub url: Url,
    /// A moment before it was fetched.
    pub born: Born,
    /// The lease under which it was fetched.
    pub lease: LeaseName,
    /// The lease's token.
    pub token: u64,
    /// How old it is, in milliseconds.
    pub age_ms: u64,
    /// For how long it is still fresh, in milliseconds.
    pub fresh_ms: u64,
    /// For how long it is of use, fresh or stale, in milliseconds.
    pub keep_ms: u64,
    /// The body's length.
    pub len: u64,
    /// The same for the same content: whether copies elsewhere are still good.
    pub digest: u64,
    /// The gateway, whose own memory has it already.
    pub source: Uid,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// It is stored.
    Stored,
    /// A purge since it was fetched was about it.
    Raced,
    /// Another holds the lease by now, or has stored a later answer.
    Fenced,
    /// There is no room, or it is too large.
    NoRoom,
}

impl Contract for Store {
    type Reply = Kept;

    const ID: u16 = 33;
    const VERSION: u16 = 1;
    const NAME: &'static str = "store";

    fn encode_head(&self, out: &mut BytesMut) {
        envelope::put(&self.about, &self.record, out);
    }

    fn into_body(self) -> Body {
        self.body
    }

    fn decode(head: Bytes, body: Body) -> Result<Self, BadHead> {
        let (meta, record) = envelope::split(&head).ok_or(bad("cut short"))?;
        Ok(Self { about: envelope::read(meta).ok_or(bad("not an answer to store"))?, record, body })
    }

    fn encode_reply_head(reply: &Kept, out: &mut BytesMut) {
        envelope::put(reply, &[], out);
    }

    fn reply_into_body(_: Kept) -> Body {
        Body::Empty
    }

    fn decode_reply(head: Bytes, _: Body) -> Result<Kept, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        envelope::read(meta).ok_or(bad("not a reply to a store"))
    }
}

fn bad(why: &'static str) -> BadHead {
    BadHead { contract: Store::NAME, why }
}
