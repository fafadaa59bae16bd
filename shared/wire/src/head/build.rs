//! Builders of heads. A builder keeps its buffers, so a thread that owns one builds each head with a single allocation.

use bytes::Bytes;

use super::request::{self, RequestHead, Scheme, Version};
use super::response::{self, ResponseHead};
use super::{MAX_FIELDS, MAX_RAW, are_tokens, are_values};

/// A field that does not fit the head: too many fields, too many bytes, or bytes that may not stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldTooLarge {
    /// More than [`MAX_FIELDS`] fields or [`MAX_RAW`] bytes.
    #[error("the head exceeds {MAX_FIELDS} fields or {MAX_RAW} bytes")]
    Limit,
    /// A name that is not a token, or a value with a control character (RFC 9110 §5.5).
    #[error("a header field holds a byte that may not stand there")]
    Byte,
}

/// The parts of a request head that are not header fields.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// HTTP version.
    pub version: Version,
    /// Scheme.
    pub scheme: Scheme,
    /// Method, a token.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Host and port asked for.
    pub authority: &'a str,
    /// The client's address.
    pub remote_addr: &'a str,
    /// The client's port.
    pub remote_port: &'a str,
    /// The address the request came in by.
    pub local_addr: &'a str,
    /// The port the request came in by.
    pub local_port: &'a str,
}

/// Fields collected so far.
#[derive(Debug, Default)]
struct Fields {
    ends: Vec<u16>,
    raw: Vec<u8>,
}

impl Fields {
    fn clear(&mut self) {
        self.ends.clear();
        self.raw.clear();
    }

    fn push(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldTooLarge> {
        if self.ends.len() / 2 >= MAX_FIELDS || self.raw.len() + name.len() + value.len() > MAX_RAW {
            return Err(FieldTooLarge::Limit);
        }
        if name.is_empty() || !are_tokens(name) || !are_values(value) {
            return Err(FieldTooLarge::Byte);
        }
        self.raw.extend_from_slice(name);
        self.ends.push(self.raw.len() as u16);
        self.raw.extend_from_slice(value);
        self.ends.push(self.raw.len() as u16);
        Ok(())
    }

    fn put(&self, offset: usize, out: &mut Vec<u8>) {
        for end in &self.ends {
            out.extend_from_slice(&(end + offset as u16).to_le_bytes());
        }
    }
}

/// Builds request heads, one after the other.
#[derive(Debug, Default)]
pub struct RequestHeadBuilder {
    fields: Fields,
}

impl RequestHeadBuilder {
    /// Starts a new head; fields of one not finished are forgotten.
    pub fn start(&mut self) {
        self.fields.clear();
    }

    /// Adds a header field; `name` in lower case.
    ///
    /// # Errors
    /// When the head would exceed its limits or the field holds what may not stand in a head.
    pub fn field(&mut self, name: impl AsRef<[u8]>, value: &[u8]) -> Result<(), FieldTooLarge> {
        self.fields.push(name.as_ref(), value)
    }

    /// Ends the head.
    ///
    /// # Errors
    /// When the head with its parts exceeds [`MAX_RAW`].
    pub fn finish(&mut self, parts: &RequestParts<'_>) -> Result<RequestHead, FieldTooLarge> {
        let slots: [&str; request::SLOTS] = [
            parts.method,
            parts.target,
            parts.authority,
            parts.remote_addr,
            parts.remote_port,
            parts.local_addr,
            parts.local_port,
        ];
        let slot_bytes: usize = slots.iter().map(|slot| slot.len()).sum();
        if slot_bytes + self.fields.raw.len() > MAX_RAW {
            return Err(FieldTooLarge::Limit);
        }
        let count = (self.fields.ends.len() / 2) as u16;
        let mut out =
            Vec::with_capacity(6 + slots.len() * 2 + self.fields.ends.len() * 2 + slot_bytes + self.fields.raw.len());
        let https = u8::from(parts.scheme == Scheme::Https);
        out.extend_from_slice(&[request::TAG, parts.version.code(), https, 0]);
        out.extend_from_slice(&count.to_le_bytes());
        let mut end = 0;
        for slot in slots {
            end += slot.len();
            out.extend_from_slice(&(end as u16).to_le_bytes());
        }
        self.fields.put(slot_bytes, &mut out);
        for slot in slots {
            out.extend_from_slice(slot.as_bytes());
        }
        out.extend_from_slice(&self.fields.raw);
        self.fields.clear();
        Ok(RequestHead::from_built(out.into(), count))
    }
}

/// Builds response heads, one after the other.
#[derive(Debug, Default)]
pub struct ResponseHeadBuilder {
    fields: Fields,
}

impl ResponseHeadBuilder {
    /// Starts a new head; fields of one not finished are forgotten.
    pub fn start(&mut self) {
        self.fields.clear();
    }

    /// Adds a header field.
    ///
    /// # Errors
    /// When the head would exceed its limits or the field holds what may not stand in a head.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), FieldTooLarge> {
        self.fields.push(name, value)
    }

    /// Ends the head. A `status` outside 100 to 999 becomes 500: PHP may ask for anything.
    pub fn finish(&mut self, status: u16) -> ResponseHead {
        let (out, count) = self.written(status, 0);
        ResponseHead::from_built(out.into(), count)
    }

    /// The same, and a copy of `body` in the same piece of memory: for what is kept, and let go, together.
    pub fn finish_with(&mut self, status: u16, body: &[u8]) -> (ResponseHead, Bytes) {
        let (mut out, count) = self.written(status, body.len());
        let end = out.len();
        out.extend_from_slice(body);
        let whole = Bytes::from(out);
        (ResponseHead::from_built(whole.slice(..end), count), whole.slice(end..))
    }

    fn written(&mut self, status: u16, more: usize) -> (Vec<u8>, u16) {
        let status = if (100..1000).contains(&status) { status } else { 500 };
        let count = (self.fields.ends.len() / 2) as u16;
        let mut out = Vec::with_capacity(6 + self.fields.ends.len() * 2 + self.fields.raw.len() + more);
        out.extend_from_slice(&[response::TAG, 0]);
        out.extend_from_slice(&status.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        self.fields.put(0, &mut out);
        out.extend_from_slice(&self.fields.raw);
        self.fields.clear();
        (out, count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::MalformedHead;
    use super::*;

    const PARTS: RequestParts<'static> = RequestParts {
        version: Version::Http11,
        scheme: Scheme::Http,
        method: "GET",
        target: "/a/b?c=d?e",
        authority: "example.test:8080",
        remote_addr: "192.0.2.1",
        remote_port: "4711",
        local_addr: "127.0.0.1",
        local_port: "8080",
    };

    #[test]
    fn each_part_of_a_request_is_checked_for_itself() {
        let parts = RequestParts { target: "/caf\u{e9}", ..PARTS };
        let good = RequestHeadBuilder::default().finish(&parts).unwrap().as_bytes().to_vec();
        assert_eq!(RequestHead::decode(good.clone().into()).unwrap().path(), "/caf\u{e9}");
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            RequestHead::decode(bytes.into()).unwrap_err()
        };
        // The target ends inside of its last character, whose rest begins the authority: together they are UTF-8.
        assert_eq!(refused(&|bytes| bytes[8] -= 1), MalformedHead("text that is not UTF-8"));
        let method_at = good.windows(3).position(|bytes| bytes == b"GET").unwrap();
        assert_eq!(
            refused(&|bytes| bytes[method_at + 4] = 0x7f),
            MalformedHead("a control character outside the fields")
        );
        assert_eq!(refused(&|bytes| bytes[method_at] = b'('), MalformedHead("the method is not a token"));
        assert_eq!(refused(&|bytes| bytes[6] = 0), MalformedHead("the method is not a token"));
        assert_eq!(refused(&|bytes| bytes[8] = 1), MalformedHead("slot offsets out of order"));
        assert_eq!(refused(&|bytes| bytes.truncate(method_at + 9)), MalformedHead("slot offsets out of order"));
    }

    #[test]
    fn a_body_stands_behind_its_head() {
        let mut builder = ResponseHeadBuilder::default();
        builder.field(b"etag", b"\"1\"").unwrap();
        let (head, body) = builder.finish_with(203, b"body");
        assert_eq!((head.status(), head.field("etag"), &body[..]), (203, Some(&b"\"1\""[..]), &b"body"[..]));
        builder.start();
        builder.field(b"etag", b"\"1\"").unwrap();
        assert_eq!(head.as_bytes(), builder.finish(203).as_bytes());
    }

    #[test]
    fn a_request_head_reads_back_what_was_built() {
        let mut builder = RequestHeadBuilder::default();
        builder.field("accept", b"*/*").unwrap();
        builder.field("x-empty", b"").unwrap();
        let head = RequestHead::decode(builder.finish(&PARTS).unwrap().as_bytes().clone()).unwrap();
        assert_eq!((head.method(), head.path(), head.query()), ("GET", "/a/b", "c=d?e"));
        assert_eq!(
            (head.authority(), head.remote_addr(), head.remote_port()),
            ("example.test:8080", "192.0.2.1", "4711")
        );
        assert_eq!((head.local_addr(), head.local_port()), ("127.0.0.1", "8080"));
        let fields: Vec<_> = head.fields().collect();
        assert_eq!(fields, [("accept", &b"*/*"[..]), ("x-empty", &b""[..])]);
        assert_eq!(head.field("x-empty"), Some(&b""[..]));
        assert_eq!(head.field("host"), None);
    }

    #[test]
    fn a_field_that_could_split_the_head_is_refused() {
        let mut builder = ResponseHeadBuilder::default();
        assert_eq!(builder.field(b"x", b"a\r\nSet-Cookie: b"), Err(FieldTooLarge::Byte));
        assert_eq!(builder.field(b"x y", b"a"), Err(FieldTooLarge::Byte));
        assert_eq!(builder.field(b"", b"a"), Err(FieldTooLarge::Byte));
    }

    #[test]
    fn limits_hold() {
        let mut builder = RequestHeadBuilder::default();
        for _ in 0..MAX_FIELDS {
            builder.field("a", b"").unwrap();
        }
        assert_eq!(builder.field("a", b""), Err(FieldTooLarge::Limit));
        builder.start();
        assert_eq!(builder.field("a", &vec![b'x'; MAX_RAW]), Err(FieldTooLarge::Limit));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(head) = RequestHead::decode(bytes.clone().into()) {
                let _ = (head.target().len(), head.fields().count());
            }
            if let Ok(head) = ResponseHead::decode(bytes.into()) {
                prop_assert!(head.status() >= 100 && head.fields().all(|(name, _)| !name.is_empty()));
            }
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0usize..200, to in any::<u8>()) {
            let mut builder = RequestHeadBuilder::default();
            builder.field("accept-language", b"de").unwrap();
            let mut bytes = builder.finish(&PARTS).unwrap().as_bytes().to_vec();
            if let Some(byte) = bytes.get_mut(at) { *byte = to; }
            match RequestHead::decode(bytes.into()) {
                Ok(head) => { let _ = (head.path().len(), head.fields().count(), head.local_port().len()); }
                Err(MalformedHead(why)) => prop_assert!(!why.is_empty()),
            }
        }

        #[test]
        fn response_heads_round_trip(
            status in 100u16..1000,
            fields in proptest::collection::vec(("[A-Za-z][A-Za-z0-9-]{0,20}", "[ -~]{0,40}"), 0..20),
        ) {
            let mut builder = ResponseHeadBuilder::default();
            for (name, value) in &fields {
                builder.field(name.as_bytes(), value.as_bytes()).unwrap();
            }
            let head = ResponseHead::decode(builder.finish(status).as_bytes().clone()).unwrap();
            prop_assert_eq!(head.status(), status);
            let read: Vec<_> = head.fields().map(|(n, v)| (n.to_owned(), String::from_utf8_lossy(v).into_owned())).collect();
            prop_assert_eq!(read, fields);
        }
    }
}
