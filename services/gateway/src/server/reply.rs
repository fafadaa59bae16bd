//! Answers in actix's terms: the head copied field by field, the body with back-pressure.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_http::body::{BodySize, MessageBody};
use actix_http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_http::{ConnectionType, Response, StatusCode};
use bytes::Bytes;
use troupe_cache::conditions::belongs_to_304;
use troupe_mesh::body::Body;
use troupe_wire::head::ResponseHead;

use super::conn::Conn;
use super::intake::{BodyFault, Pump};
use super::thread::Thread;
use crate::answer::{Answer, AnswerHead, Payload};
use crate::cache::{Sent, Shape};
use crate::metrics::{Fault, Ticket};
use crate::request::REQUEST_ID;
use troupe_cache::targeted::OWN as OWN_CONTROL;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// RFC 9211.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const X_REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID);

/// The body of a response. When it is dropped, all of it is in actix's hands, or nobody wants it any more.
pub(super) struct ReplyBody {
    kind: Kind,
    ending: Ending,
}

enum Kind {
    /// Nothing to send; the size that the head announces all the same is that of the answer to a GET.
    Bodiless(BodySize),
    /// A body at hand.
    Full(Bytes),
    /// A body on its way.
    Stream(Box<Streaming>),
}

/// A response body that is still being made.
struct Streaming {
    body: Payload,
    size: BodySize,
    /// The rest of the request's body, when the worker answered before it was complete.
    pump: Option<Pump>,
    thread: Rc<Thread>,
    /// Nothing but the connection's end marks the body's end.
    unframed: bool,
    /// It breaks off, which was counted.
    broken: bool,
}

/// What has to be done when an answer is over.
pub(super) struct Ending {
    conn: Rc<Conn>,
    ticket: Option<Ticket>,
    status: u16,
    sent: u64,
    complete: bool,
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
    pub(super) ticket: Option<Ticket>,
}

/// Turns an answer into actix's response.
pub(super) fn write(answer: Answer, writing: Writing, thread: &Rc<Thread>, conn: Rc<Conn>) -> Response<ReplyBody> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::with_body(status, ());
    let length = fields(&answer.head, response.headers_mut());
    if answer.upgrade {
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    if let Some(sent) = answer.sent {
        said(*sent, response.headers_mut());
    }
    if let Ok(id) = HeaderValue::from_maybe_shared(writing.id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    if thread.front.is_development()
        && let Some(ticket) = &writing.ticket
        && let Ok(timing) = HeaderValue::from_str(&server_timing(ticket))
    {
        response.headers_mut().insert(SERVER_TIMING, timing);
    }
    let size = match &answer.body {
        _ if matches!(answer.status, 204 | 304) => BodySize::None,
        // Who names no length may not know it: the answer to a GET need not be empty.
        Payload::Body(Body::Empty) if writing.head_only => length.map_or(BodySize::None, BodySize::Sized),
        Payload::Body(Body::Empty) => BodySize::Sized(0),
        Payload::Body(Body::Full(bytes)) => BodySize::Sized(bytes.len() as u64),
        body => body.len().or(length).map_or(BodySize::Stream, BodySize::Sized),
    };
    let unframed = writing.http_10 && size == BodySize::Stream;
    if unframed {
        response.head_mut().no_chunking(true);
    }
    if answer.close || writing.close || unframed {
        conn.set_closing();
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    let mut ending = Ending { conn, ticket: writing.ticket, status: answer.status, sent: 0, complete: true };
    let kind = match answer.body {
        _ if writing.head_only || size == BodySize::None => Kind::Bodiless(size),
        Payload::Body(Body::Empty) => Kind::Bodiless(size),
        Payload::Body(Body::Full(bytes)) => {
            ending.sent = bytes.len() as u64;
            Kind::Full(bytes)
        }
        body => {
            ending.complete = false;
            ending.conn.wait_until(Instant::now() + thread.timeouts().stream_idle);
            Kind::Stream(Box::new(Streaming {
                body,
                size,
                pump: writing.pump,
                thread: Rc::clone(thread),
                unframed,
                broken: false,
            }))
        }
    };
    response.set_body(ReplyBody { kind, ending })
}

/// The head that makes a tunnel of a connection (RFC 9110 §15.2.2); `head` is the server's.
pub(super) fn switching(head: &ResponseHead, id: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(head.as_bytes().len() + 128);
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n");
    let mut field = |name: &[u8], value: &[u8]| {
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    for (name, value) in head.shared_fields().filter(|(name, _)| !is_framing(name)) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(value)) {
            field(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    field(REQUEST_ID.as_bytes(), id);
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// Where the time went so far, for a browser's developer tools.
fn server_timing(ticket: &Ticket) -> String {
    let stages = ticket.stages(Instant::now()).into_iter().filter(|stage| stage.us > 0);
    let metrics: Vec<String> =
        stages.map(|stage| format!("{};dur={:.3}", stage.stage, f64::from(stage.us) / 1_000.0)).collect();
    metrics.join(", ")
}

/// Copies the fields; returns the length a worker announced.
fn fields(head: &AnswerHead, headers: &mut HeaderMap) -> Option<u64> {
    match head {
        AnswerHead::Reply(head) => copied(head, headers, |_| true),
        AnswerHead::Shaped(head, shape) => {
            let (name, value) = match shape {
                Shape::Unmodified => {
                    copied(head, headers, belongs_to_304);
                    return None;
                }
                Shape::Nothing(range) => {
                    copied(head, headers, belongs_to_304);
                    (header::CONTENT_RANGE, range)
                }
                Shape::Part(range) => {
                    copied(head, headers, |_| true);
                    (header::CONTENT_RANGE, range)
                }
                Shape::Parts(kind) => {
                    copied(head, headers, |name| !name.eq_ignore_ascii_case(b"content-type"));
                    (header::CONTENT_TYPE, kind)
                }
            };
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
            None
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

/// Copies a head's fields, those that `wanted` is true of; returns the length that it announces.
fn copied(head: &ResponseHead, headers: &mut HeaderMap, wanted: impl Fn(&[u8]) -> bool) -> Option<u64> {
    headers.reserve(head.len() + 3);
    let mut length = None;
    for (name, value) in head.shared_fields() {
        if is_framing(name) {
            if name.eq_ignore_ascii_case(b"content-length") {
                length = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
            }
            continue;
        }
        if !wanted(name) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_maybe_shared(value)) {
            headers.append(name, value);
        }
    }
    length
}

/// What the cache says: its member of `Cache-Status` behind those of caches further back, and the age.
fn said(sent: Sent, headers: &mut HeaderMap) {
    if let Ok(status) = HeaderValue::from_maybe_shared(Bytes::from(sent.status)) {
        headers.append(CACHE_STATUS, status);
    }
    for (name, value) in sent.cdn {
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    if let Some(age) = sent.age {
        headers.insert(header::AGE, HeaderValue::from(age));
    }
}

/// Fields that are the server's to write, and those that are the gateway's: the request id, and what speaks to its cache.
fn is_framing(name: &[u8]) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    match name.len() {
        2 => is("te"),
        7 => is("trailer") || is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        12 => is(REQUEST_ID),
        14 => is("content-length"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        20 => is(OWN_CONTROL),
        _ => false,
    }
}

impl MessageBody for ReplyBody {
    type Error = BrokenOff;

    fn size(&self) -> BodySize {
        match &self.kind {
            Kind::Bodiless(size) => *size,
            Kind::Full(bytes) => BodySize::Sized(bytes.len() as u64),
            Kind::Stream(stream) => stream.size,
        }
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        let this = self.get_mut();
        match &mut this.kind {
            Kind::Bodiless(_) => Poll::Ready(None),
            Kind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Kind::Stream(stream) => stream.poll_next(&mut this.ending, context),
        }
    }
}

impl Streaming {
    fn poll_next(&mut self, ending: &mut Ending, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if self.broken {
            return self.break_off(ending, None);
        }
        if let Some(pump) = &mut self.pump {
            match pump.poll(context) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.pump = None,
                Poll::Ready(Err(BodyFault::Stalled)) => return self.break_off(ending, Some(Fault::BodyTimeout)),
                // Counted where it was found.
                Poll::Ready(Err(_)) => return self.break_off(ending, None),
            }
        }
        match self.body.poll_next(context) {
            Poll::Ready(Some(Ok(piece))) => {
                ending.sent += piece.len() as u64;
                ending.conn.wait_until(Instant::now() + self.thread.timeouts().stream_idle);
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Some(Err(_))) => self.break_off(ending, Some(Fault::ReplyBroken)),
            Poll::Ready(None) => {
                ending.complete = true;
                if self.thread.front.is_draining() {
                    // The head promised keep-alive before the drain began; the gate closes the idle connection.
                    context.waker().wake_by_ref();
                }
                Poll::Ready(None)
            }
            Poll::Pending if ending.conn.take_overdue() => self.break_off(ending, Some(Fault::ReplyTimeout)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// What came before goes out first: with the end of a connection actix throws away what it has not written, however long
    /// ago it was given.
    fn break_off(&mut self, ending: &Ending, fault: Option<Fault>) -> Poll<Option<Result<Bytes, BrokenOff>>> {
        if let Some(fault) = fault {
            self.thread.metrics.connection_failed(fault);
        }
        if !std::mem::replace(&mut self.broken, true) {
            ending.conn.set_breaking(true);
        }
        if ending.conn.is_breaking() {
            return Poll::Pending;
        }
        if self.unframed {
            ending.conn.set_reset();
        }
        Poll::Ready(Some(Err(BrokenOff)))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let now = Instant::now();
        self.conn.finish(now);
        if let Some(ticket) = self.ticket.take() {
            ticket.end(self.status, (self.conn.take_received(), self.sent), self.complete, now);
        }
    }
}
