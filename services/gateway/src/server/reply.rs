//! Answers in actix's terms: the head copied field by field, the body with back-pressure.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_http::body::{BodySize, MessageBody};
use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_http::{ConnectionType, Response, StatusCode};
use bytes::Bytes;
use troupe_mesh::body::Body;

use super::conn::Conn;
use super::intake::Pump;
use super::thread::Thread;
use crate::answer::{Answer, AnswerHead};
use crate::request::REQUEST_ID;

const X_REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID);

/// The body of a response.
pub(super) enum ReplyBody {
    /// Nothing to send; the size that the head announces all the same is that of the answer to a GET.
    Bodiless(BodySize),
    /// A body at hand.
    Full(Bytes),
    /// A body on its way.
    Stream(Box<Streaming>),
}

/// A response body that is still being made.
pub(super) struct Streaming {
    body: Body,
    size: BodySize,
    /// The rest of the request's body, when the worker answered before it was complete.
    pump: Option<Pump>,
    conn: Rc<Conn>,
    thread: Rc<Thread>,
    /// Nothing but the connection's end marks the body's end.
    unframed: bool,
    complete: bool,
    on_end: Option<Box<dyn FnOnce(u64, bool)>>,
    sent: u64,
}

/// A stream that ended before it was complete; actix then drops the connection.
#[derive(Debug, thiserror::Error)]
#[error("the response body broke off")]
pub(super) struct BrokenOff;

/// How an answer is to be written.
pub(super) struct Writing {
    pub(super) id: Bytes,
    pub(super) head_only: bool,
    pub(super) http_10: bool,
    pub(super) close: bool,
    pub(super) pump: Option<Pump>,
}

/// Turns an answer into actix's response. `on_end` runs when a streamed body is over, with the bytes sent and whether
/// it was complete.
pub(super) fn write(
    answer: Answer,
    writing: Writing,
    thread: &Rc<Thread>,
    conn: &Rc<Conn>,
    on_end: impl FnOnce(u64, bool) + 'static,
) -> Response<ReplyBody> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let bodiless = matches!(answer.status, 204 | 304);
    let mut response = Response::with_body(status, ReplyBody::Bodiless(BodySize::None));
    let length = fields(&answer.head, response.headers_mut());
    if let Ok(id) = HeaderValue::from_maybe_shared(writing.id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    if answer.close || writing.close {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    let size = match &answer.body {
        Body::Empty if writing.head_only => length.map_or(BodySize::Sized(0), BodySize::Sized),
        Body::Empty => BodySize::Sized(0),
        Body::Full(bytes) => BodySize::Sized(bytes.len() as u64),
        Body::Stream(_) => answer.body.len().or(length).map_or(BodySize::Stream, BodySize::Sized),
    };
    let body = match answer.body {
        _ if bodiless => {
            on_end(0, true);
            ReplyBody::Bodiless(BodySize::None)
        }
        body if writing.head_only => {
            drop(body);
            on_end(0, true);
            ReplyBody::Bodiless(size)
        }
        Body::Empty => {
            on_end(0, true);
            ReplyBody::Bodiless(size)
        }
        Body::Full(bytes) => {
            on_end(bytes.len() as u64, true);
            ReplyBody::Full(bytes)
        }
        body @ Body::Stream(_) => {
            conn.wait_until(Instant::now() + thread.timeouts.stream_idle);
            ReplyBody::Stream(Box::new(Streaming {
                body,
                size,
                pump: writing.pump,
                conn: Rc::clone(conn),
                thread: Rc::clone(thread),
                unframed: writing.http_10 && size == BodySize::Stream,
                complete: false,
                on_end: Some(Box::new(on_end)),
                sent: 0,
            }))
        }
    };
    if matches!(size, BodySize::Stream) && writing.http_10 {
        response.head_mut().set_connection_type(ConnectionType::Close);
        response.head_mut().no_chunking(true);
    }
    response.set_body(body)
}

/// Copies the fields; returns the length a worker announced.
fn fields(head: &AnswerHead, headers: &mut HeaderMap) -> Option<u64> {
    match head {
        AnswerHead::Reply(head) => {
            headers.reserve(head.len() + 1);
            let mut length = None;
            for (name, value) in head.shared_fields() {
                if is_framing(name) {
                    if name.eq_ignore_ascii_case("content-length") {
                        length = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                    }
                    continue;
                }
                if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_maybe_shared(value)) {
                    headers.append(name, value);
                }
            }
            length
        }
        AnswerHead::Own { content_type, allow, retry_after } => {
            if let Some(content_type) = content_type {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            }
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            if let Some(Ok(allow)) = allow.as_deref().map(HeaderValue::from_str) {
                headers.insert(header::ALLOW, allow);
            }
            if let Some(seconds) = retry_after {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            None
        }
    }
}

/// Fields that are the server's to write, and the request id, which is the gateway's.
fn is_framing(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 => is("te"),
        7 => is("trailer") || is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        12 => is(REQUEST_ID),
        14 => is("content-length"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        _ => false,
    }
}

impl MessageBody for ReplyBody {
    type Error = BrokenOff;

    fn size(&self) -> BodySize {
        match self {
            Self::Bodiless(size) => *size,
            Self::Full(bytes) => BodySize::Sized(bytes.len() as u64),
            Self::Stream(stream) => stream.size,
        }
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        match self.get_mut() {
            Self::Bodiless(_) => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Stream(stream) => stream.poll_next(context),
        }
    }
}

impl Streaming {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if let Some(pump) = &mut self.pump {
            match pump.poll(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.pump = None,
                Poll::Ready(Err(_)) => return self.break_off(),
            }
        }
        match self.body.poll_next(context) {
            Poll::Ready(Some(Ok(piece))) => {
                self.sent += piece.len() as u64;
                self.conn.wait_until(Instant::now() + self.thread.timeouts.stream_idle);
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Some(Err(_))) => self.break_off(),
            Poll::Ready(None) => {
                self.complete = true;
                if self.thread.front.is_draining() {
                    // The head promised keep-alive before the drain began; the gate closes the idle connection.
                    context.waker().wake_by_ref();
                }
                Poll::Ready(None)
            }
            Poll::Pending if self.conn.take_overdue() => self.break_off(),
            Poll::Pending => Poll::Pending,
        }
    }

    fn break_off(&mut self) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if self.unframed {
            self.conn.set_reset();
        }
        Poll::Ready(Some(Err(BrokenOff)))
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            on_end(self.sent, self.complete);
        }
    }
}
