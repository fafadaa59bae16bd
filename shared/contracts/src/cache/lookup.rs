//! Looking up what is stored for a request.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{BadHead, Contract};
use troupe_wire::head::RequestHead;

use super::{Born, Leased, Uid, Url};
use crate::envelope;

/// Asks for the answer to a request.
#[derive(Debug)]
pub struct Lookup {
    /// What it is found by.
    pub url: Url,
    /// What is asked for.
    pub want: Want,
    /// The request: what variants are told apart by.
    pub head: RequestHead,
    /// The gateway that asks, and has the lease if it is granted.
    pub source: Uid,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// What is stored, and the right to fetch it where nothing fresh is.
    Answer,
    /// The right to fetch it, whatever is stored; with what is stored, to validate it.
    Refresh,
    /// What is stored. It will not be fetched.
    Stored,
}

/// What is stored.
#[derive(Debug)]
pub struct Looked {
    /// The answer that fits, fresh or stale.
    pub found: Option<Stored>,
    /// Who is to fetch it.
    pub leased: Leased,
    /// A moment before the look-up, for what is fetched after it.
    pub born: Born,
}

/// A stored answer.
#[derive(Debug)]
pub struct Stored {
    /// How old it is, in milliseconds.
    pub age_ms: u64,
    /// It was made stale.
    pub stale: bool,
    /// Head and terms, in the cache's own encoding.
    pub record: Bytes,
    /// The body.
    pub body: Body,
}

#[derive(Serialize, Deserialize)]
struct CallMeta {
    url: Url,
    want: Want,
    source: Uid,
}

#[derive(Serialize, Deserialize)]
struct ReplyMeta {
    found: Option<(u64, bool)>,
    leased: Leased,
    born: Born,
}

impl Contract for Lookup {
    type Reply = Looked;

    const ID: u16 = 32;
    const VERSION: u16 = 3;
    const NAME: &'static str = "lookup";

    fn encode_head(&self, out: &mut BytesMut) {
        let meta = CallMeta { url: self.url.clone(), want: self.want, source: self.source };
        envelope::put(&meta, self.head.as_bytes(), out);
    }

    fn into_body(self) -> Body {
        Body::Empty
    }

    fn decode(head: Bytes, _: Body) -> Result<Self, BadHead> {
        let (meta, raw) = envelope::split(&head).ok_or(bad("cut short"))?;
        let CallMeta { url, want, source } = envelope::read(meta).ok_or(bad("not a look-up"))?;
        let head = RequestHead::decode(raw).map_err(|malformed| bad(malformed.0))?;
        Ok(Self { url, want, head, source })
    }

    fn encode_reply_head(reply: &Looked, out: &mut BytesMut) {
        let found = reply.found.as_ref();
        let record = found.map(|stored| &*stored.record).unwrap_or_default();
        let found = found.map(|stored| (stored.age_ms, stored.stale));
        envelope::put(&ReplyMeta { found, leased: reply.leased, born: reply.born }, record, out);
    }

    fn reply_into_body(reply: Looked) -> Body {
        reply.found.map(|stored| stored.body).unwrap_or_default()
    }

    fn decode_reply(head: Bytes, body: Body) -> Result<Looked, BadHead> {
        let (meta, record) = envelope::split(&head).ok_or(bad("cut short"))?;
        let ReplyMeta { found, leased, born } = envelope::read(meta).ok_or(bad("not a reply to a look-up"))?;
        let found = found.map(|(age_ms, stale)| Stored { age_ms, stale, record, body });
        Ok(Looked { found, leased, born })
    }
}

fn bad(why: &'static str) -> BadHead {
    BadHead { contract: Lookup::NAME, why }
}
