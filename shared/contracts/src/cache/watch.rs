//! Watching: a gateway hears of every purge, and the service learns what it has heard.
//!
//! Both bodies of the call are streams of short messages, `length u16 | postcard`. The gateway sends a [`Tell`] four times a
//! second; the service answers each with [`Told::Beat`], behind every purge that it knows of by then. A gateway whose beat
//! was answered may give what it has stored for a second *from the moment it sent the beat*: by its own clock, and never
//! longer than the service takes it to, whatever the way between them does.

use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{BadHead, Contract};

use super::Uid;
use super::purge::Target;
use crate::envelope;

/// Longest message: the longest URL, and some more.
pub const MAX_MESSAGE: usize = u16::MAX as usize;

/// Begins to watch.
#[derive(Debug)]
pub struct Watch {
    /// Who watches.
    pub about: Watcher,
    /// A stream of [`Tell`].
    pub signals: Body,
}

/// Who watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watcher {
    /// The gateway.
    pub uid: Uid,
    /// Its name, for people.
    pub name: String,
    /// The last purge that it has heard of.
    pub since: Option<Position>,
}

/// A place in a history of purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The history.
    pub generation: u64,
    /// The number of the purge; later ones have higher numbers.
    pub seq: u64,
    /// Drawn for this purge: two histories that agree in it agree in all that was before.
    pub nonce: u64,
}

/// The beginning of what the service tells.
#[derive(Debug)]
pub struct Watching {
    /// Where what follows begins. Another place than the watcher named: it has missed something, and nothing that it
    /// stored before is fresh.
    pub from: Position,
    /// A stream of [`Told`].
    pub news: Body,
}

/// What the service tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Everything up to here was told before; the beat with this number is answered.
    Beat(u32),
    /// Something was taken out.
    Gone(Invalidation),
    /// The service cannot tell any more what is taken out: until the next beat nothing is fresh.
    Unsure,
    /// Something was missed: nothing that was stored before is fresh, and what follows begins here.
    Anew(Position),
}

/// A purge, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidation {
    /// Its place.
    pub at: Position,
    /// What is taken out.
    pub target: Target,
    /// It is made stale instead.
    pub soft: bool,
    /// The gateway that has done so already.
    pub source: Option<Uid>,
}

/// What a gateway tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tell {
    /// It lives, and has done what it heard of.
    Beat {
        /// The beat's number.
        number: u32,
        /// The history that `applied` belongs to.
        generation: u64,
        /// The last purge that was done.
        applied: u64,
    },
    /// It has done a purge.
    Applied {
        /// The history.
        generation: u64,
        /// Which.
        seq: u64,
        /// URLs that were found.
        urls: u64,
        /// Answers that were found.
        responses: u64,
    },
}

impl Contract for Watch {
    type Reply = Watching;

    const ID: u16 = 36;
    const VERSION: u16 = 1;
    const NAME: &'static str = "watch";

    fn encode_head(&self, out: &mut BytesMut) {
        envelope::put(&self.about, &[], out);
    }

    fn into_body(self) -> Body {
        self.signals
    }

    fn decode(head: Bytes, signals: Body) -> Result<Self, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        Ok(Self { about: envelope::read(meta).ok_or(bad("not a watcher"))?, signals })
    }

    fn encode_reply_head(reply: &Watching, out: &mut BytesMut) {
        envelope::put(&reply.from, &[], out);
    }

    fn reply_into_body(reply: Watching) -> Body {
        reply.news
    }

    fn decode_reply(head: Bytes, news: Body) -> Result<Watching, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        Ok(Watching { from: envelope::read(meta).ok_or(bad("not a reply to a watcher"))?, news })
    }
}

fn bad(why: &'static str) -> BadHead {
    BadHead { contract: Watch::NAME, why }
}

/// Appends a message to what is sent next; false when it is too long for one, and nothing was appended.
pub fn put<T: Serialize>(message: &T, out: &mut BytesMut) -> bool {
    let Ok(bytes) = postcard::to_allocvec(message) else { return false };
    let Ok(len) = u16::try_from(bytes.len()) else { return false };
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&bytes);
    true
}

/// Puts messages together from the pieces of a stream.
#[derive(Debug, Default)]
pub struct Messages {
    buffer: BytesMut,
}

/// A stream whose messages cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message of a watch cannot be read")]
pub struct BadMessage;

impl Messages {
    /// Adds a piece. What is there is to be taken before the next one is added, so that it holds one message and one piece
    /// at most.
    pub fn add(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// Takes the next message that is there whole.
    ///
    /// # Errors
    /// When it is none.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, BadMessage> {
        let Some(len) = self.buffer.get(..2).and_then(|len| <[u8; 2]>::try_from(len).ok()) else { return Ok(None) };
        let len = usize::from(u16::from_le_bytes(len));
        if self.buffer.len() < 2 + len {
            return Ok(None);
        }
        let message = self.buffer.split_to(2 + len);
        message.get(2..).and_then(envelope::read).map(Some).ok_or(BadMessage)
    }
}
