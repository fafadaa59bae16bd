//! A response as the gateway gives it: what a worker replied, or one of its own.

use std::borrow::Cow;
use std::task::{Context, Poll};

use bytes::Bytes;
use troupe_mesh::body::{Body, BodyBroken};
use troupe_wire::head::ResponseHead;

use crate::cache::{Follower, Sent, Shape};
use crate::metrics::Cause;

/// A response before it is written.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: AnswerHead,
    pub(crate) body: Payload,
    /// Why the request failed, where it did.
    pub(crate) cause: Option<Cause>,
    /// The connection closes behind it.
    pub(crate) close: bool,
    /// A 426 to a handshake: it names the protocol, which is for each hop to say (RFC 9110 §15.5.22).
    pub(crate) upgrade: bool,
    /// What the cache has to say, on its routes.
    pub(crate) sent: Option<Box<Sent>>,
}

/// Its body.
#[derive(Debug)]
pub(crate) enum Payload {
    /// A worker's, one of the gateway's own, or a stored one.
    Body(Body),
    /// One on its way into the store.
    Follow(Follower),
}

/// Its header fields.
#[derive(Debug)]
pub(crate) enum AnswerHead {
    /// A worker's.
    Reply(ResponseHead),
    /// A stored one, for an answer that is not the whole stored response.
    Shaped(ResponseHead, Shape),
    /// The gateway's own.
    Own { content_type: Option<&'static str>, allow: Option<Cow<'static, str>>, retry_after: Option<u64> },
}

impl Payload {
    /// Length in bytes, when it is known.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::Body(body) => body.len(),
            Self::Follow(follower) => follower.len(),
        }
    }

    /// The next piece; `None` at the end.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>> {
        match self {
            Self::Body(body) => body.poll_next(context),
            Self::Follow(follower) => follower.poll_next(context),
        }
    }
}

impl Answer {
    /// An answer with a head that is not the gateway's own.
    pub(crate) fn new(status: u16, head: AnswerHead, body: Payload) -> Self {
        Self { status, head, body, cause: None, close: false, upgrade: false, sent: None }
    }

    /// An answer of the gateway's own.
    pub(crate) fn own(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let head = AnswerHead::Own { content_type: Some(content_type), allow: None, retry_after: None };
        Self::new(status, head, Payload::Body(Body::full(body.into())))
    }

    /// An answer without a body that says which methods there are.
    pub(crate) fn options(allow: Cow<'static, str>) -> Self {
        let head = AnswerHead::Own { content_type: None, allow: Some(allow), retry_after: None };
        Self::new(204, head, Payload::Body(Body::Empty))
    }

    pub(crate) fn with_allow(mut self, methods: String) -> Self {
        if let AnswerHead::Own { allow, .. } = &mut self.head {
            *allow = Some(Cow::Owned(methods));
        }
        self
    }

    pub(crate) fn with_retry_after(mut self, seconds: Option<u64>) -> Self {
        if let AnswerHead::Own { retry_after, .. } = &mut self.head {
            *retry_after = seconds;
        }
        self
    }

    pub(crate) fn because(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }

    pub(crate) fn with_sent(mut self, sent: Box<Sent>) -> Self {
        self.sent = Some(sent);
        self
    }

    pub(crate) fn closing(mut self, close: bool) -> Self {
        self.close |= close;
        self
    }
}
