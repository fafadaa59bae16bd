//! What the front answers by itself, without a worker and without the store.

use std::borrow::Cow;

use super::Front;
use crate::answer::Answer;
use crate::request::{Method, Request};

/// What a gateway takes, whatever its routes do.
pub(super) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

impl Front {
    pub(super) fn health(&self, request: &Request) -> Answer {
        match request.method {
            Method::Get | Method::Head if self.is_draining() => {
                Answer::own(503, "text/plain; charset=utf-8", "draining\n")
            }
            Method::Get | Method::Head => Answer::own(200, "text/plain; charset=utf-8", "ok\n"),
            Method::Options => Answer::options(Cow::Borrowed("GET, HEAD, OPTIONS")),
            _ => self.problem(request, 405, "the health page is only read").with_allow("GET, HEAD, OPTIONS".to_owned()),
        }
    }

    /// The answer to what must not be forwarded any further (RFC 9110 §7.6.2). TRACE is refused rather than echoed: what would come
    /// back has fields that proxies in front have added, which are not for clients to see.
    pub(super) fn last_hop(&self, request: &Request) -> Option<Answer> {
        let trace = request.head.method() == "TRACE";
        let bounded = trace || request.method == Method::Options;
        if !bounded || !request.head.field("max-forwards").is_some_and(is_zero) {
            return None;
        }
        Some(match trace {
            true => self.problem(request, 405, "the gateway echoes no request").with_allow(METHODS.to_owned()),
            false => Answer::options(Cow::Borrowed(METHODS)),
        })
    }
}

fn is_zero(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|&digit| digit == b'0')
}
