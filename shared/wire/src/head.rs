//! HTTP heads as they travel: one block of bytes with an offset table in front.
//!
//! A head is built once, where the HTTP parser hands it over, and from there on only moved: the balancer passes it from
//! link to link without reading it, and every name and value is a slice of the one block. That is why it is not a
//! hash map and never goes through serde.
//!
//! ```text
//! request:  tag=1 u8 | version u8 | scheme u8 | 0 u8 | fields u16 | 7 slot ends u16 | (name end, value end) u16 … | raw
//! response: tag=2 u8 | 0 u8 | status u16 | fields u16 |                               (name end, value end) u16 … | raw
//! ```
//!
//! All integers are little endian; an end is an offset into `raw`, where each part begins where the one before ends.

mod build;
mod request;
mod response;

pub use build::{FieldTooLarge, RequestHeadBuilder, RequestParts, ResponseHeadBuilder};
pub use request::{RawParts, RequestHead, Scheme, Version};
pub use response::ResponseHead;

/// Longest `raw` part of a head, in bytes. Offsets are 16 bits wide and a head has to fit one frame with its envelope.
pub const MAX_RAW: usize = 60 * 1024;
/// Most header fields of one head: what the HTTP server in front accepts, with room for the fields the gateway adds.
pub const MAX_FIELDS: usize = 128;

/// Why a block of bytes is not a head. Such a head fails its call alone; the link it came by stays up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decode http head: {0}")]
pub struct MalformedHead(pub &'static str);

/// The (name end, value end) table of a head and the raw bytes behind it.
#[derive(Clone, Copy)]
struct Table<'a> {
    ends: &'a [u8],
    raw: &'a [u8],
    start: usize,
}

impl<'a> Table<'a> {
    fn end(ends: &[u8], index: usize) -> usize {
        match ends.get(index * 2..index * 2 + 2) {
            Some(two) => usize::from(u16::from_le_bytes([two[0], two[1]])),
            None => 0,
        }
    }

    fn len(&self) -> usize {
        self.ends.len() / 4
    }

    fn field(&self, index: usize) -> (&'a [u8], &'a [u8]) {
        let start = if index == 0 { self.start } else { Self::end(self.ends, index * 2 - 1) };
        let middle = Self::end(self.ends, index * 2);
        let end = Self::end(self.ends, index * 2 + 1);
        let name = self.raw.get(start..middle).unwrap_or_default();
        let value = self.raw.get(middle..end).unwrap_or_default();
        (name, value)
    }

    fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + 'a {
        (0..self.len()).map(move |index| self.field(index))
    }

    fn texts(self) -> impl Iterator<Item = (&'a str, &'a [u8])> + 'a {
        self.iter().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// Checks what a peer sent: ends that only grow and stay inside `raw`, names that are tokens, values without
    /// control characters that could end a line.
    fn validate(&self) -> Result<(), MalformedHead> {
        let mut before = self.start;
        for index in 0..self.len() {
            let middle = Self::end(self.ends, index * 2);
            let end = Self::end(self.ends, index * 2 + 1);
            if before > middle || middle > end || end > self.raw.len() {
                return Err(MalformedHead("field offsets out of order"));
            }
            let name = self.raw.get(before..middle).unwrap_or_default();
            let value = self.raw.get(middle..end).unwrap_or_default();
            if name.is_empty() || !are_tokens(name) {
                return Err(MalformedHead("a field name is not a token"));
            }
            if !are_values(value) {
                return Err(MalformedHead("a field value holds a control character"));
            }
            before = end;
        }
        if before != self.raw.len() {
            return Err(MalformedHead("bytes behind the last field"));
        }
        Ok(())
    }
}

/// RFC 9110 §5.6.2, `tchar`.
pub fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Token characters, looked up: each byte of each field name passes here, more than once.
const TOKEN: [bool; 256] = alphanumerics_and(b"!#$%&'*+-.^_`|~");

/// A table of the ASCII letters, digits and `marks`, by byte: one look-up instead of a search per byte.
pub const fn alphanumerics_and(marks: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut index = 0;
    while index < 256 {
        table[index] = (index as u8).is_ascii_alphanumeric();
        index += 1;
    }
    let mut index = 0;
    while index < marks.len() {
        table[marks[index] as usize] = true;
        index += 1;
    }
    table
}

fn are_tokens(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| is_token(byte))
}

/// Without an early end, so that it is done many bytes at a time.
fn are_values(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |good, &byte| good & is_value(byte))
}

/// RFC 9110 §5.5, `field-value`: visible bytes, space, tab and obs-text.
pub fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}
