//! A response as the gateway gives it: what a worker replied, or one of its own.

use std::borrow::Cow;

use bytes::Bytes;
use troupe_mesh::body::Body;
use troupe_wire::head::ResponseHead;

use crate::metrics::Cause;

/// A response before it is written.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: AnswerHead,
    pub(crate) body: Body,
    /// Why the request failed, where it did.
    pub(crate) cause: Option<Cause>,
    /// The connection closes behind it.
    pub(crate) close: bool,
}

/// Its header fields.
#[derive(Debug)]
pub(crate) enum AnswerHead {
    /// A worker's.
    Reply(ResponseHead),
    /// The gateway's own.
    Own { content_type: Option<&'static str>, allow: Option<Cow<'static, str>>, retry_after: Option<u64> },
}

impl Answer {
    /// An answer of the gateway's own.
    pub(crate) fn own(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            head: AnswerHead::Own { content_type: Some(content_type), allow: None, retry_after: None },
            body: Body::full(body.into()),
            cause: None,
            close: false,
        }
    }

    /// An answer without a body that says which methods there are.
    pub(crate) fn options(allow: Cow<'static, str>) -> Self {
        Self {
            status: 204,
            head: AnswerHead::Own { content_type: None, allow: Some(allow), retry_after: None },
            body: Body::Empty,
            cause: None,
            close: false,
        }
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

    pub(crate) fn closing(mut self, close: bool) -> Self {
        self.close |= close;
        self
    }
}
