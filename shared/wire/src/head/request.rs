//! The head of a request.

use bytes::Bytes;
use memchr::memchr;

use super::{MAX_FIELDS, MAX_RAW, MalformedHead, Table, is_token};

pub(super) const TAG: u8 = 1;
pub(super) const SLOTS: usize = 7;
const FIXED: usize = 6 + SLOTS * 2;

/// HTTP version of the client's request, as `$_SERVER['SERVER_PROTOCOL']` and the access log show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// The protocol name of RFC 9110 §2.5.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Version::Http10 => 10,
            Version::Http11 => 11,
            Version::Http2 => 20,
        }
    }
}

/// How the client reached the front door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS, here or at a trusted proxy in front.
    Https,
}

impl Scheme {
    /// The scheme of RFC 9110 §4.2.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// A checked request head. Cloning it costs a reference count.
#[derive(Clone)]
pub struct RequestHead {
    bytes: Bytes,
    fields: u16,
}

/// The parts of a request head beside its fields, each as its method in [`RequestHead`] tells.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "each is named after a method that says what it is")]
pub struct RawParts<'a> {
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub authority: &'a [u8],
    pub remote_addr: &'a [u8],
    pub remote_port: &'a [u8],
    pub local_addr: &'a [u8],
    pub local_port: &'a [u8],
}

/// What a slot may hold.
fn checked(slot: &[u8]) -> Result<(), MalformedHead> {
    if !slot.iter().all(|byte| (0x21..0x7f).contains(byte) || *byte >= 0x80) {
        return Err(MalformedHead("a control character outside the fields"));
    }
    std::str::from_utf8(slot).map(drop).map_err(|_| MalformedHead("text that is not UTF-8"))
}

fn text(checked: &[u8]) -> &str {
    std::str::from_utf8(checked).unwrap_or_default()
}

impl RequestHead {
    /// Takes a head from a peer. Everything is checked here, so that the readers below cannot fail.
    ///
    /// # Errors
    /// When the block is cut short, too large, or holds what no HTTP parser would have let through.
    pub fn decode(bytes: Bytes) -> Result<Self, MalformedHead> {
        let Some(fixed) = bytes.get(..FIXED) else {
            return Err(MalformedHead("cut short"));
        };
        if fixed[0] != TAG {
            return Err(MalformedHead("not a request head"));
        }
        if !matches!(fixed[1], 10 | 11 | 20) || fixed[2] > 1 {
            return Err(MalformedHead("unknown version or scheme"));
        }
        let fields = u16::from_le_bytes([fixed[4], fixed[5]]);
        if usize::from(fields) > MAX_FIELDS {
            return Err(MalformedHead("too many fields"));
        }
        let raw_at = FIXED + usize::from(fields) * 4;
        if bytes.len() < raw_at || bytes.len() - raw_at > MAX_RAW {
            return Err(MalformedHead("cut short or too large"));
        }
        let head = Self { bytes, fields };
        let mut before = 0;
        for slot in 0..SLOTS {
            let end = head.slot_end(slot);
            if end < before {
                return Err(MalformedHead("slot offsets out of order"));
            }
            before = end;
        }
        let Some(slots) = head.raw().get(..before) else {
            return Err(MalformedHead("slot offsets out of order"));
        };
        // Without an early end, so that it is done many bytes at a time; nearly every head passes.
        if !slots.iter().fold(true, |good, byte| good & (0x21..0x7f).contains(byte)) {
            (0..SLOTS).try_for_each(|slot| checked(head.raw_slot(slot)))?;
        }
        let method = head.raw_slot(0);
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(MalformedHead("the method is not a token"));
        }
        head.table().validate()?;
        Ok(head)
    }

    pub(super) fn from_built(bytes: Bytes, fields: u16) -> Self {
        Self { bytes, fields }
    }

    /// The head as it travels.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The method, as the client wrote it.
    pub fn method(&self) -> &str {
        self.slot(0)
    }

    /// Path and query in origin form, RFC 9112 §3.2.1.
    pub fn target(&self) -> &str {
        self.slot(1)
    }

    /// The part of the target before `?`.
    pub fn path(&self) -> &str {
        let target = self.raw_slot(1);
        text(memchr(b'?', target).and_then(|end| target.get(..end)).unwrap_or(target))
    }

    /// The part of the target behind the first `?`, empty when there is none.
    pub fn query(&self) -> &str {
        let target = self.raw_slot(1);
        text(memchr(b'?', target).and_then(|end| target.get(end + 1..)).unwrap_or_default())
    }

    /// Host and port the client asked for, from `Host` or `:authority`; empty for an HTTP/1.0 client that named none.
    pub fn authority(&self) -> &str {
        self.slot(2)
    }

    /// The client's IP address, as text.
    pub fn remote_addr(&self) -> &str {
        self.slot(3)
    }

    /// The client's port, as text.
    pub fn remote_port(&self) -> &str {
        self.slot(4)
    }

    /// The IP address the request came in by, as text.
    pub fn local_addr(&self) -> &str {
        self.slot(5)
    }

    /// The port the request came in by, as text.
    pub fn local_port(&self) -> &str {
        self.slot(6)
    }

    /// The HTTP version the client spoke.
    pub fn version(&self) -> Version {
        match self.bytes.get(1) {
            Some(10) => Version::Http10,
            Some(20) => Version::Http2,
            _ => Version::Http11,
        }
    }

    /// The scheme the client used.
    pub fn scheme(&self) -> Scheme {
        match self.bytes.get(2) {
            Some(1) => Scheme::Https,
            _ => Scheme::Http,
        }
    }

    /// All parts beside the fields as the bytes they are: cheaper where no text is needed.
    pub fn raw_parts(&self) -> RawParts<'_> {
        RawParts {
            method: self.raw_slot(0),
            target: self.raw_slot(1),
            authority: self.raw_slot(2),
            remote_addr: self.raw_slot(3),
            remote_port: self.raw_slot(4),
            local_addr: self.raw_slot(5),
            local_port: self.raw_slot(6),
        }
    }

    /// The header fields in the order in which they came; names in lower case.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + '_ {
        self.table().texts()
    }

    /// As [`RequestHead::fields`], with the names as the ASCII bytes they are: cheaper where no text is needed.
    pub fn raw_fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        self.table().iter()
    }

    /// The first value of the field `name` (in lower case).
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.raw_fields().find(|(candidate, _)| *candidate == name.as_bytes()).map(|(_, value)| value)
    }

    fn raw(&self) -> &[u8] {
        self.bytes.get(FIXED + usize::from(self.fields) * 4..).unwrap_or_default()
    }

    fn slot_end(&self, slot: usize) -> usize {
        Table::end(self.bytes.get(6..FIXED).unwrap_or_default(), slot)
    }

    fn slot(&self, slot: usize) -> &str {
        text(self.raw_slot(slot))
    }

    fn raw_slot(&self, slot: usize) -> &[u8] {
        let start = if slot == 0 { 0 } else { self.slot_end(slot - 1) };
        self.raw().get(start..self.slot_end(slot)).unwrap_or_default()
    }

    fn table(&self) -> Table<'_> {
        Table {
            ends: self.bytes.get(FIXED..FIXED + usize::from(self.fields) * 4).unwrap_or_default(),
            raw: self.raw(),
            start: self.slot_end(SLOTS - 1),
        }
    }
}

impl std::fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({} fields)", self.method(), self.target(), self.fields)
    }
}
