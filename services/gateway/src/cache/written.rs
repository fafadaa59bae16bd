//! The head of a hit as HTTP/1.1 has it (RFC 9112). Most of it is the same for every client and written once per entry;
//! what is not stands behind it: the cache's own word, the age, and the request's id.

use actix_http::StatusCode;
use bytes::{BufMut as _, Bytes, BytesMut};
use troupe_cache::entry::{Entry, WRITTEN};
use troupe_cache::time::Moment;

use super::serve::{NAME, said_to_cdn};
use crate::request::REQUEST_ID;

/// Writes the head of the answer that is all of `entry`, with everything that [`super::Sent`] says of a hit.
pub(crate) fn write_hit(entry: &Entry, id: &[u8], now: Moment, cdn_ttl: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(entry.written(beginning));
    if let Some(ttl) = cdn_ttl {
        for (name, value) in said_to_cdn(entry, ttl, now) {
            put_all(out, &[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    put_all(out, &[b"cache-status: ", NAME.as_bytes(), b"; hit; ttl="]);
    put_number(out, u64::try_from(entry.fresh_for(now)).unwrap_or(0) / 1000);
    out.extend_from_slice(b"\r\nage: ");
    put_number(out, entry.age(now) / 1000);
    put_all(out, &[b"\r\n", REQUEST_ID.as_bytes(), b": ", id, b"\r\n\r\n"]);
}

/// The status line, the length and the stored fields.
fn beginning(entry: &Entry) -> Bytes {
    let head = entry.head();
    let mut out = BytesMut::with_capacity(head.as_bytes().len() + WRITTEN);
    let reason = StatusCode::from_u16(head.status()).ok().and_then(|status| status.canonical_reason());
    out.put_slice(format!("HTTP/1.1 {} {}\r\n", head.status(), reason.unwrap_or_default()).as_bytes());
    out.put_slice(format!("content-length: {}\r\n", entry.body().len()).as_bytes());
    for (name, value) in head.fields() {
        out.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
    out.freeze()
}

fn put_all(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        if let Some(place) = digits.get_mut(at) {
            *place = b'0' + (number % 10) as u8;
        }
        number /= 10;
        if number == 0 || at == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 4_711, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(String::from_utf8(out).ok(), Some(number.to_string()));
        }
    }
}
