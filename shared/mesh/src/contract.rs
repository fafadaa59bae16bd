//! What a message between services is.

use bytes::{Bytes, BytesMut};
use troupe_wire::trace::TraceContext;

use crate::body::Body;
use crate::deadline::Deadline;
use crate::failure::Failure;

/// A typed message between services and its codec. The message is the same whatever carries it: a function call, a
/// mailbox, or a link; only a link encodes it.
pub trait Contract: Sized + Send + 'static {
    /// What the callee answers.
    type Reply: Send + 'static;

    /// Number of the contract on the wire; never reused for another.
    const ID: u16;
    /// Raised when the encoding changes; both ends of a link must agree.
    const VERSION: u16;
    /// Name in logs and metrics.
    const NAME: &'static str;

    /// Appends the head: everything but the body.
    fn encode_head(&self, out: &mut BytesMut);
    /// The call's body, once the head is encoded.
    fn into_body(self) -> Body;
    /// Puts a call together from what a peer sent.
    ///
    /// # Errors
    /// When `head` is not what [`Contract::encode_head`] writes: the call fails, the link stays up.
    fn decode(head: Bytes, body: Body) -> Result<Self, BadHead>;

    /// Appends the reply's head.
    fn encode_reply_head(reply: &Self::Reply, out: &mut BytesMut);
    /// The reply's body, once its head is encoded.
    fn reply_into_body(reply: Self::Reply) -> Body;
    /// Puts a reply together from what a peer sent.
    ///
    /// # Errors
    /// As for [`Contract::decode`].
    fn decode_reply(head: Bytes, body: Body) -> Result<Self::Reply, BadHead>;
}

/// A head that does not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decode {contract} head: {why}")]
pub struct BadHead {
    /// The contract's name.
    pub contract: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
}

/// A call on its way: the message, how long it may take, and the trace it belongs to.
#[derive(Debug)]
pub struct Envelope<C> {
    /// The message.
    pub call: C,
    /// When the first byte of the reply is due.
    pub deadline: Deadline,
    /// The trace the call belongs to.
    pub trace: Option<TraceContext>,
}

impl<C> Envelope<C> {
    /// A call without a trace.
    pub fn new(call: C, deadline: Deadline) -> Self {
        Self { call, deadline, trace: None }
    }
}

impl<C: Contract> actix::Message for Envelope<C> {
    type Result = Result<C::Reply, Failure>;
}
