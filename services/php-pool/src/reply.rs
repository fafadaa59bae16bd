//! From PHP's header lines to the head of a response.

use std::rc::Rc;

use memchr::memchr;
use troupe_wire::head::{FieldTooLarge, ResponseHead};

use crate::local::Local;

/// Headers that speak of the connection, which is not PHP's: Troupe sets its own.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What PHP said about its body's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyLength {
    /// The body is at hand: another length than its own would be a lie.
    Whole(usize),
    /// The body is to come and must be as long as PHP says, or there is none because the request was a HEAD.
    Open,
}

/// Reads `lines` ("Name: value\n" each) into a head; gives the length PHP announced, if it may stand.
pub(crate) fn head(local: &Rc<Local>, lines: &[u8], status: u16, length: BodyLength) -> (ResponseHead, Option<u64>) {
    let mut builder = local.heads.borrow_mut();
    builder.start();
    let mut announced = None;
    let mut rest = lines;
    while let Some(end) = memchr(b'\n', rest) {
        let (line, behind) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
        rest = behind;
        let Some((name, value)) = split(line) else {
            refused(local, line, "no colon");
            continue;
        };
        if is_hop_by_hop(name) {
            continue;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let said = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            let stands = match length {
                BodyLength::Whole(len) => said == Some(len as u64),
                BodyLength::Open => said.is_some() && announced.is_none(),
            };
            if !stands {
                continue;
            }
            announced = said;
        }
        match builder.field(name, value) {
            Ok(()) => {}
            Err(FieldTooLarge::Byte) => refused(local, line, "a byte that may not stand in a header"),
            Err(FieldTooLarge::Limit) => refused(local, line, "too many headers, or too long ones"),
        }
    }
    (builder.finish(status), announced)
}

fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr(b':', line)?;
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    Some((name.trim_ascii_end(), value.trim_ascii()))
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes()))
}

fn refused(local: &Rc<Local>, line: &[u8], why: &str) {
    let header: String = String::from_utf8_lossy(line).chars().take(80).collect();
    tracing::warn!(pool = %local.pool.name, ?header, why, "dropped a header that PHP set");
}
