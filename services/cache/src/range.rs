//! Parts of complete responses (RFC 9110 §14, RFC 9111 §3.3): which parts a request asks for, and how several travel in
//! one body.

use bytes::{BufMut, Bytes, BytesMut};
use troupe_wire::head::RequestHead;

use crate::entry::Entry;
use crate::fields::{Head, members};
use crate::validators::EntityTag;

/// Most parts that are answered one by one (RFC 9110 §14.2 warns of requests made of many). Beyond, the whole is sent.
const MAX_PARTS: usize = 16;

/// The first and the last byte of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Offset of the first byte.
    pub first: usize,
    /// Offset of the last byte.
    pub last: usize,
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The whole response: no range, none that is understood, or one that does not apply any more.
    Whole,
    /// One part: 206 with `Content-Range`.
    One(Part),
    /// Several parts: 206 with `multipart/byteranges`.
    Several(Vec<Part>),
    /// None of the parts is there: 416.
    Nothing,
    /// The entry is a part, and does not hold what is asked for.
    Missing,
}

impl Part {
    /// The bytes of the part.
    pub fn of(self, body: &Bytes) -> Bytes {
        if self.first <= self.last && self.last < body.len() {
            body.slice(self.first..=self.last)
        } else {
            Bytes::new()
        }
    }

    /// The value of `Content-Range` (RFC 9110 §14.4).
    pub fn content_range(self, total: usize) -> String {
        format!("bytes {}-{}/{total}", self.first, self.last)
    }
}

/// Which parts of `entry` the request asks for. A complete 200 has parts, and a 206 those that are inside of it.
pub fn wanted(request: &RequestHead, entry: &Entry) -> Wanted {
    if entry.status() == 206 {
        return inside(request, entry);
    }
    let mut values = request.values("range");
    let (Some(range), None) = (values.next(), values.next()) else { return Wanted::Whole };
    if entry.status() != 200 || !applies(request, entry) {
        return Wanted::Whole;
    }
    parse(range, entry.body().len())
}

/// The same of an entry that is a part itself.
fn inside(request: &RequestHead, entry: &Entry) -> Wanted {
    let mut values = request.values("range");
    match (entry.span(), values.next(), values.next()) {
        (Some(span), Some(range), None) if applies(request, entry) => match parse(range, span.total) {
            Wanted::One(part) if span.holds(part) => Wanted::One(part),
            _ => Wanted::Missing,
        },
        _ => Wanted::Missing,
    }
}

/// `If-Range` (RFC 9110 §13.1.5): the strong tag, or the very date, of the response that the client has a part of.
fn applies(request: &RequestHead, entry: &Entry) -> bool {
    let mut values = request.values("if-range");
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => match EntityTag::parse(value) {
            Some(theirs) => entry.tag().is_some_and(|ours| ours.strong_eq(&theirs)),
            // A date is a strong validator only if the response was made later than that second (RFC 9110 §8.8.2.2).
            None => entry.last_modified().is_some_and(|(text, modified)| {
                let made = entry.head().field("date").and_then(crate::time::http_date).unwrap_or(0);
                text == value && made > modified
            }),
        },
        (Some(_), Some(_)) => false,
    }
}

/// Reads `Range` for a body of `len` bytes.
fn parse(range: &[u8], len: usize) -> Wanted {
    let Some(set) = range.trim_ascii().split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))
    else {
        return Wanted::Whole;
    };
    let (mut parts, mut any) = (Vec::new(), false);
    for member in members(set.1) {
        let Some(part) = part(member, len) else { return Wanted::Whole };
        any = true;
        if let Some(part) = part {
            parts.push(part);
        }
        if parts.len() > MAX_PARTS {
            return Wanted::Whole;
        }
    }
    // Parts that overlap are more bytes than the whole at the client's word; it gets the whole.
    let mut sorted = parts.clone();
    sorted.sort_unstable_by_key(|part| part.first);
    let overlap = sorted.iter().zip(sorted.iter().skip(1)).any(|(one, next)| next.first <= one.last);
    match (any, parts.as_slice()) {
        (false, _) => Wanted::Whole,
        (true, []) => Wanted::Nothing,
        (true, [one]) => Wanted::One(*one),
        (true, _) if overlap => Wanted::Whole,
        (true, _) => Wanted::Several(parts),
    }
}

/// One part: `None` when it is malformed, `Some(None)` when nothing of it is there (RFC 9110 §14.1.1).
fn part(member: &[u8], len: usize) -> Option<Option<Part>> {
    let dash = member.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (number(member.get(..dash)?)?, number(member.get(dash + 1..)?)?);
    Some(match (first, last) {
        (None, None) => return None,
        (None, Some(suffix)) => {
            (suffix > 0 && len > 0).then(|| Part { first: len.saturating_sub(suffix), last: len.saturating_sub(1) })
        }
        (Some(first), Some(last)) if last < first => return None,
        (Some(first), last) => {
            let end = len.saturating_sub(1);
            (first < len).then(|| Part { first, last: last.unwrap_or(end).min(end) })
        }
    })
}

/// Digits; `Some(None)` where there are none; more than fits is as much as fits.
fn number(digits: &[u8]) -> Option<Option<usize>> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().fold(0usize, |sum, digit| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
    Some((!digits.is_empty()).then_some(value))
}

/// The body of several parts (RFC 9110 §14.6). `boundary` must not occur in the body: random letters do.
pub fn multipart(parts: &[Part], body: &Bytes, content_type: Option<&[u8]>, boundary: &str) -> Bytes {
    let bytes: usize = parts.iter().map(|part| part.last - part.first + 1 + 256).sum();
    let mut out = BytesMut::with_capacity(bytes);
    for part in parts {
        out.put_slice(b"--");
        out.put_slice(boundary.as_bytes());
        if let Some(content_type) = content_type {
            out.put_slice(b"\r\nContent-Type: ");
            out.put_slice(content_type);
        }
        out.put_slice(b"\r\nContent-Range: ");
        out.put_slice(part.content_range(body.len()).as_bytes());
        out.put_slice(b"\r\n\r\n");
        out.put_slice(&part.of(body));
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"--");
    out.put_slice(boundary.as_bytes());
    out.put_slice(b"--\r\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::freshness::Times;
    use crate::heads::{get, response};
    use crate::policy::Policy;
    use crate::storing::judge;
    use crate::time::Moment;

    fn asked(status: u16, fields: &[(&str, &str)], asked: &[(&str, &str)]) -> Wanted {
        let now = Moment::from_secs(784_111_777);
        let mut all = vec![("Cache-Control", "max-age=60")];
        all.extend_from_slice(fields);
        let head = response(status, &all);
        let times = Times { requested: now, received: now };
        let terms = judge(&get("/", &[]), &head, times, &Policy::new()).unwrap();
        wanted(&get("/", asked), &Entry::new(terms, &head, Bytes::from_static(b"0123456789")))
    }

    fn range(value: &str) -> Wanted {
        asked(200, &[], &[("Range", value)])
    }

    fn one(first: usize, last: usize) -> Wanted {
        Wanted::One(Part { first, last })
    }

    /// RFC 9110 §14.1.2: closed, open, suffix, clipped.
    #[test]
    fn one_part() {
        assert_eq!((range("bytes=0-3"), range("BYTES= 2-2 ")), (one(0, 3), one(2, 2)));
        assert_eq!((range("bytes=7-"), range("bytes=-3")), (one(7, 9), one(7, 9)));
        assert_eq!((range("bytes=5-999"), range("bytes=-999")), (one(5, 9), one(0, 9)));
        assert_eq!(range("bytes=0-99999999999999999999999999"), one(0, 9));
    }

    /// RFC 9110 §14.1.2 and §15.5.17: nothing of it is there.
    #[test]
    fn no_part() {
        for value in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999999-"] {
            assert_eq!(range(value), Wanted::Nothing, "{value}");
        }
    }

    /// RFC 9110 §14.2: what is malformed or of an unknown unit is ignored.
    #[test]
    fn no_range() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=a-b",
            "bytes=3-1",
            "bytes=-",
            "bytes=1",
            "bytes=1-2,x",
            "items=0-1",
            "bytes=+1-2",
            "bytes:0-1",
        ] {
            assert_eq!(range(value), Wanted::Whole, "{value}");
        }
        assert_eq!(asked(404, &[], &[("Range", "bytes=0-1")]), Wanted::Whole);
    }

    /// RFC 9110 §14.2: several parts in the order asked for; too many or overlapping ones are the whole.
    #[test]
    fn several_parts() {
        let parts = vec![Part { first: 8, last: 9 }, Part { first: 0, last: 1 }];
        assert_eq!(range("bytes=8-,0-1,20-"), Wanted::Several(parts));
        assert_eq!((range("bytes=0-5,3-7"), range("bytes=0-1, 20-")), (Wanted::Whole, one(0, 1)));
        let many: Vec<String> = (0..100).map(|_| "0-0".to_owned()).collect();
        assert_eq!(range(&format!("bytes={}", many.join(","))), Wanted::Whole);
    }

    /// RFC 9110 §13.1.5: strong tags, exact dates.
    #[test]
    fn if_range() {
        let with = |fields: &[(&str, &str)], value| asked(200, fields, &[("Range", "bytes=0-1"), ("If-Range", value)]);
        assert_eq!(with(&[("ETag", "\"a\"")], "\"a\""), one(0, 1));
        assert_eq!(with(&[("ETag", "\"a\"")], "\"b\""), Wanted::Whole);
        assert_eq!(with(&[("ETag", "W/\"a\"")], "W/\"a\""), Wanted::Whole);
        let date = "Sun, 06 Nov 1994 08:00:00 GMT";
        assert_eq!(with(&[("Last-Modified", date)], date), one(0, 1));
        assert_eq!(with(&[("Last-Modified", date)], "Sun, 06 Nov 1994 09:00:00 GMT"), Wanted::Whole);
        assert_eq!(with(&[("Last-Modified", date), ("Date", date)], date), Wanted::Whole, "not a strong validator yet");
        assert_eq!(with(&[], date), Wanted::Whole);
    }

    /// RFC 9110 §14.6.
    #[test]
    fn several_parts_are_one_body() {
        let body = Bytes::from_static(b"0123456789");
        let parts = [Part { first: 0, last: 1 }, Part { first: 9, last: 9 }];
        let made = multipart(&parts, &body, Some(b"text/plain"), "XX");
        let expected = "--XX\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
                        --XX\r\nContent-Type: text/plain\r\nContent-Range: bytes 9-9/10\r\n\r\n9\r\n--XX--\r\n";
        assert_eq!(String::from_utf8_lossy(&made), expected);
    }

    proptest! {
        #[test]
        fn any_range_is_inside_the_body(set in "[0-9, -]{0,40}", len in 0usize..50) {
            let inside = |part: Part| part.first <= part.last && part.last < len;
            let inside = match parse(format!("bytes={set}").as_bytes(), len) {
                Wanted::One(part) => inside(part),
                Wanted::Several(parts) => parts.into_iter().all(inside),
                Wanted::Whole | Wanted::Nothing | Wanted::Missing => true,
            };
            prop_assert!(inside);
        }
    }
}
