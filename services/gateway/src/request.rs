//! A request as everything behind the HTTP server sees it: the head as it travels, and what was learned on the way in.

mod forwarded;
mod id;
mod trace;

use std::time::Instant;

use bytes::Bytes;
use bytestring::ByteString;
use ipnet::IpNet;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use troupe_wire::head::{FieldTooLarge, RequestHead, RequestHeadBuilder, RequestParts, Scheme, Version};
use troupe_wire::trace::TraceContext;

use crate::path;
use forwarded::Forwarded;
use id::RequestIds;
pub(crate) use trace::{Sampling, Trace};

/// The field that carries the request id, in both directions.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// A request that is to be answered.
#[derive(Debug)]
pub(crate) struct Request {
    /// The head as it travels. A HEAD request is a GET here; its path is in normal form.
    pub(crate) head: RequestHead,
    /// The request id, a part of the head's bytes.
    pub(crate) id: Bytes,
    /// When the head was complete.
    pub(crate) received: Instant,
    /// What the client really asked for.
    pub(crate) method: Method,
    /// How the body is framed.
    pub(crate) body: BodyFrame,
    /// The trace it belongs to.
    pub(crate) trace: Trace,
    /// Whether the client would rather read HTML than JSON.
    pub(crate) prefers_html: bool,
    /// Whether the client asks, in the form of RFC 6455 §4.1, to go on with WebSocket.
    pub(crate) websocket: bool,
}

/// A request that is refused before it is one.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The status to answer.
    pub(crate) status: u16,
    /// What the client is told.
    pub(crate) why: &'static str,
    /// Whether the connection has to be closed.
    pub(crate) close: bool,
    /// How the body behind it is framed.
    pub(crate) body: BodyFrame,
    /// The request id of the answer.
    pub(crate) id: Bytes,
    /// The trace that it would have been: nothing of its head is believed.
    pub(crate) trace: Trace,
    /// When it was refused.
    pub(crate) received: Instant,
    /// The client's address.
    pub(crate) remote: IpAddr,
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    Request(Request),
    Refused(Refused),
}

/// The method, as far as the gateway has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Other,
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFrame {
    None,
    Length(u64),
    Chunked,
}

/// A head that the server in front has taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawHead<'a> {
    pub(crate) method: &'a [u8],
    /// Origin, absolute or asterisk form.
    pub(crate) target: &'a [u8],
    pub(crate) version: Version,
    pub(crate) authority: &'a [u8],
    /// The field lines, each ended by CRLF.
    pub(crate) fields: &'a [u8],
    pub(crate) body: BodyFrame,
    /// `Connection` names further fields.
    pub(crate) nominates: bool,
}

/// Both ends of a connection, as texts that every head of it carries.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) remote: SocketAddr,
    remote_addr: Box<str>,
    remote_port: Box<str>,
    local_addr: Box<str>,
    local_port: Box<str>,
}

/// Makes requests of heads; one per thread.
#[derive(Debug)]
pub(crate) struct Reception {
    builder: RefCell<RequestHeadBuilder>,
    ids: RequestIds,
    trusted: Vec<IpNet>,
    sampling: Sampling,
}

impl Ends {
    pub(crate) fn new(remote: SocketAddr, local: SocketAddr) -> Self {
        Self {
            remote,
            remote_addr: remote.ip().to_canonical().to_string().into(),
            remote_port: remote.port().to_string().into(),
            local_addr: local.ip().to_canonical().to_string().into(),
            local_port: local.port().to_string().into(),
        }
    }
}

impl Reception {
    pub(crate) fn new(trusted: Vec<IpNet>, sampling: Sampling) -> Self {
        let (builder, ids) = (RefCell::default(), RequestIds::default());
        Self { builder, ids, trusted, sampling }
    }

    /// Makes a request of a head, or says why there is none. The framing is sound either way: the connection lives on.
    pub(crate) fn receive(&self, raw: &RawHead<'_>, ends: &Ends) -> Incoming {
        match self.request(raw, ends) {
            Ok(request) => Incoming::Request(request),
            Err((status, why)) => {
                Incoming::Refused(Refused { body: raw.body, ..self.refuse(status, why, false, ends) })
            }
        }
    }

    /// A refusal with a request id of its own.
    pub(crate) fn refuse(&self, status: u16, why: &'static str, close: bool, ends: &Ends) -> Refused {
        let id = Bytes::copy_from_slice(&self.ids.make());
        let trace = self.trace(None);
        let (received, remote) = (Instant::now(), ends.remote.ip());
        Refused { status, why, close, body: BodyFrame::None, id, trace, received, remote }
    }

    fn trace(&self, parent: Option<TraceContext>) -> Trace {
        Trace::new(parent, self.ids.random(), self.sampling)
    }

    fn request(&self, raw: &RawHead<'_>, ends: &Ends) -> Result<Request, (u16, &'static str)> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| (400, "the request line is not ASCII"));
        let target = origin_form(text(raw.target)?);
        let (path, query) = match target.find('?') {
            Some(at) => target.split_at(at),
            None => (target, ""),
        };
        // RFC 9110 §4.2.3: of `http`, no path is `/`.
        let path = if path.is_empty() { "/" } else { path };
        let normal = if path == "*" { path.into() } else { path::normalise(path).map_err(|bad| (400, bad.0))? };
        let rebuilt;
        let target = match &normal {
            std::borrow::Cow::Borrowed(_) if path.len() + query.len() == target.len() => target,
            _ => {
                rebuilt = [&*normal, query].concat();
                &rebuilt
            }
        };
        let method = text(raw.method)?;
        let builder = &mut *self.builder.borrow_mut();
        builder.start();
        let mut seen = Seen::default();
        let forwarded = Forwarded::new(&self.trusted, ends.remote.ip());
        take_fields(raw, builder, &mut seen, forwarded.trusted()).map_err(too_large)?;
        let parent = seen.parent.flatten();
        // What vendors say of a trace is for those who know which one is meant.
        for state in seen.states.iter().filter(|_| parent.is_some()) {
            builder.field("tracestate", state).map_err(too_large)?;
        }
        let made;
        let id: &[u8] = match seen.id {
            Some(id) => id,
            None => {
                made = self.ids.make();
                &made
            }
        };
        builder.field(REQUEST_ID, id).map_err(too_large)?;
        let client = forwarded.resolve(&seen);
        let parts = RequestParts {
            version: raw.version,
            scheme: client.scheme.unwrap_or(Scheme::Http),
            method: if method == "HEAD" { "GET" } else { method },
            target,
            authority: text(client.host.unwrap_or(raw.authority))?,
            remote_addr: client.remote.as_deref().unwrap_or(&ends.remote_addr),
            remote_port: if client.remote.is_some() { "0" } else { &ends.remote_port },
            local_addr: &ends.local_addr,
            local_port: &ends.local_port,
        };
        let head = builder.finish(&parts).map_err(too_large)?;
        let id = head.field(REQUEST_ID).map(|id| head.as_bytes().slice_ref(id)).unwrap_or_default();
        Ok(Request {
            id,
            received: Instant::now(),
            method: Method::of(method),
            body: raw.body,
            trace: self.trace(parent),
            prefers_html: seen.prefers_html,
            // RFC 9110 §7.8: HTTP/1.0 has no upgrade, and one that `Connection` does not name is for somebody else.
            websocket: seen.websocket
                && seen.upgrade
                && method == "GET"
                && raw.version == Version::Http11
                && raw.body == BodyFrame::None,
            head,
        })
    }
}

impl Request {
    /// A part of the head's bytes as text of its own, without copying.
    pub(crate) fn part(&self, text: &str) -> ByteString {
        // `text` is a part of the head; `slice_ref` would panic on any other.
        let bytes = self.head.as_bytes();
        let inside = bytes.as_ptr_range().contains(&text.as_ptr()) && !text.is_empty();
        if inside {
            ByteString::try_from(bytes.slice_ref(text.as_bytes())).unwrap_or_default()
        } else {
            ByteString::from(text)
        }
    }

    /// RFC 9110 §9.2.2.
    pub(crate) fn is_idempotent(&self) -> bool {
        match self.method {
            Method::Get | Method::Head | Method::Put | Method::Delete | Method::Options => true,
            Method::Post | Method::Patch => false,
            Method::Other => self.head.method() == "TRACE",
        }
    }
}

impl Method {
    /// All of them, in their order.
    pub(crate) const ALL: [Self; 8] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options, Self::Other];

    /// The name in metrics: a client cannot make up new ones.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "_other",
        }
    }

    fn of(method: &str) -> Self {
        match method {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }

    /// The name the client wrote; `head` is where the rarer ones stand.
    pub(crate) fn as_str(self, head: &RequestHead) -> &str {
        match self {
            Self::Head => "HEAD",
            _ => head.method(),
        }
    }
}

/// What is learned while the fields are copied.
#[derive(Debug, Default)]
struct Seen<'a> {
    id: Option<&'a [u8]>,
    /// What `traceparent` says; `Some(None)`: nothing that holds, or two things.
    parent: Option<Option<TraceContext>>,
    /// The values of `tracestate`.
    states: Vec<&'a [u8]>,
    prefers_html: bool,
    /// `Upgrade` names WebSocket.
    websocket: bool,
    /// `Connection` names `Upgrade`.
    upgrade: bool,
    forwarded_for: Vec<&'a [u8]>,
    forwarded_proto: Option<&'a [u8]>,
    forwarded_host: Option<&'a [u8]>,
}

fn too_large(error: FieldTooLarge) -> (u16, &'static str) {
    match error {
        FieldTooLarge::Limit => (431, "the request head is too large"),
        FieldTooLarge::Byte => (400, "a header field holds a byte that may not stand there"),
    }
}

/// `http://host/path?query` means `/path?query` on that host.
fn origin_form(target: &str) -> &str {
    if target.starts_with('/') || target == "*" {
        return target;
    }
    let rest = target.split_once("://").map_or("", |(_, rest)| rest);
    rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or_default()
}

fn take_fields<'a>(
    raw: &RawHead<'a>,
    builder: &mut RequestHeadBuilder,
    seen: &mut Seen<'a>,
    trusted: bool,
) -> Result<(), FieldTooLarge> {
    let mut lower = [0; 128];
    let mut rest = raw.fields;
    while let Some(end) = memchr::memchr(b'\r', rest) {
        let (line, tail) = rest.split_at(end);
        rest = tail.get(2..).unwrap_or_default();
        let Some(colon) = memchr::memchr(b':', line) else { break };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        let Some(place) = lower.get_mut(..name.len()) else { continue };
        place.copy_from_slice(name);
        place.make_ascii_lowercase();
        let name: &[u8] = place;
        if !keep(name, value, seen, trusted) || (raw.nominates && is_nominated(raw.fields, name)) {
            continue;
        }
        match name {
            b"tracestate" => seen.states.push(value),
            _ => builder.field(name, value)?,
        }
    }
    Ok(())
}

/// Notes what the gateway has to know and says whether the field goes on inward.
fn keep<'a>(name: &[u8], value: &'a [u8], seen: &mut Seen<'a>, trusted: bool) -> bool {
    match name {
        // RFC 9110 §7.6.1: for this hop alone. `proxy` would become HTTP_PROXY, which clients obey.
        b"connection" => {
            seen.upgrade |= lists(value, b"upgrade");
            false
        }
        b"keep-alive"
        | b"proxy-connection"
        | b"proxy-authorization"
        | b"proxy-authenticate"
        | b"proxy"
        | b"te"
        | b"trailer"
        | b"transfer-encoding"
        | b"expect" => false,
        b"upgrade" => {
            seen.websocket |= lists(value, b"websocket");
            false
        }
        // Travels as the head's authority.
        b"host" => false,
        name if name == REQUEST_ID.as_bytes() => {
            if seen.id.is_none() && id::is_sane(value) {
                seen.id = Some(value);
            }
            false
        }
        // Travels beside the head, with the gateway's span in it.
        b"traceparent" => {
            let parent = if seen.parent.is_none() { TraceContext::parse_traceparent(value) } else { None };
            seen.parent = Some(parent);
            false
        }
        b"accept" => {
            seen.prefers_html |= prefers_html(value);
            true
        }
        b"forwarded" | b"x-real-ip" => false,
        b"x-forwarded-for" => {
            if trusted {
                seen.forwarded_for.push(value);
            }
            trusted
        }
        b"x-forwarded-proto" => {
            seen.forwarded_proto = Some(value);
            trusted
        }
        b"x-forwarded-host" => {
            seen.forwarded_host = Some(value);
            trusted
        }
        // In CGI variables `_` and `-` are the same: `x_forwarded_for` would pass for the field that was removed.
        _ => !name.starts_with(b"x-forwarded-") && !name.contains(&b'_'),
    }
}

/// Whether a `Connection` field names `name`. What the gateway itself relies on cannot be taken away by a client.
fn is_nominated(fields: &[u8], name: &[u8]) -> bool {
    if matches!(name, b"content-length" | b"content-type" | b"authorization" | b"cookie" | b"accept")
        || name.starts_with(b"x-forwarded-")
    {
        return false;
    }
    fields.split(|&byte| byte == b'\n').any(|line| {
        let Some((field, value)) = line.split_at_checked(11) else { return false };
        field.eq_ignore_ascii_case(b"connection:") && lists(value, name)
    })
}

/// Whether a list of tokens has this one.
fn lists(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(token))
}

/// A browser's `Accept` names HTML before anything JSON.
fn prefers_html(accept: &[u8]) -> bool {
    let html = memchr::memmem::find(accept, b"text/html");
    let json = memchr::memmem::find(accept, b"json");
    match (html, json) {
        (Some(html), Some(json)) => html < json,
        (html, None) => html.is_some(),
        (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests;
