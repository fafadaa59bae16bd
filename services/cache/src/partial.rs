//! Partial contents (RFC 9111 §3.3 and §3.4, RFC 9110 §15.3.7): one part of a response is stored as it came, a second part that
//! touches it is joined to it where both are of the very same response, and what has no gaps any more is the response.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use troupe_wire::head::{RequestHead, ResponseHead, ResponseHeadBuilder};

use crate::entry::Entry;
use crate::object::Object;
use crate::range::Part;
use crate::validators::EntityTag;

/// Which part of a response a 206 holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first and the last byte.
    pub part: Part,
    /// Bytes of the whole response.
    pub total: usize,
}

impl Span {
    /// The span that a 206 announces; `None` when it announces none, several (`multipart/byteranges`), or one of a response
    /// whose length is not known.
    pub fn of(head: &ResponseHead) -> Option<Self> {
        let mut values = head.fields().filter(|(name, _)| name.eq_ignore_ascii_case("content-range"));
        let (value, None) = (values.next()?.1, values.next()) else { return None };
        let text = std::str::from_utf8(value).ok()?.trim();
        let (unit, rest) = text.split_once(' ')?;
        let (range, total) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, total) = (number(first)?, number(last)?, number(total)?);
        (unit.eq_ignore_ascii_case("bytes") && first <= last && last < total)
            .then_some(Self { part: Part { first, last }, total })
    }

    /// Bytes of the part.
    pub fn len(&self) -> usize {
        self.part.last - self.part.first + 1
    }

    /// Whether it holds nothing, which no span does.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether it holds all of `part`.
    pub fn holds(&self, part: Part) -> bool {
        self.part.first <= part.first && part.last <= self.part.last
    }
}

/// `entry`, which is a part, joined with what is stored of the same response: a larger part, or the whole of it. A stored whole of
/// the same response stays. Otherwise, or where it would have more than `max` bytes, it is `entry` itself.
pub fn combined(stored: &Object, entry: &Arc<Entry>, request: &RequestHead, max: usize) -> Arc<Entry> {
    let Some(before) = stored.find(request) else { return Arc::clone(entry) };
    if before.status() == 200 && is_same(before, entry) {
        return Arc::clone(before);
    }
    join(before, entry, max).map_or_else(|| Arc::clone(entry), Arc::new)
}

/// Two parts as one; `None` unless they are of the same response and have no gap between them.
fn join(before: &Entry, entry: &Entry, max: usize) -> Option<Entry> {
    let (one, two) = (before.span()?, entry.span()?);
    let touch = one.part.first <= two.part.last + 1 && two.part.first <= one.part.last + 1;
    if !touch || one.total != two.total || !is_same(before, entry) {
        return None;
    }
    let span = Part { first: one.part.first.min(two.part.first), last: one.part.last.max(two.part.last) };
    let len = span.last - span.first + 1;
    if len > max {
        return None;
    }
    let mut body = BytesMut::zeroed(len);
    // The newer bytes over the older ones; they are the same, or their origin does not keep its tags' promise.
    for (held, bytes) in [(one, before.body()), (two, entry.body())] {
        let from = held.part.first - span.first;
        body.get_mut(from..from + bytes.len())?.copy_from_slice(bytes);
    }
    let head = head(entry.head(), span, one.total);
    Some(Entry::new(entry.terms().clone(), &head, body.freeze()))
}

/// Whether both are of one response: under one strong validator (RFC 9110 §15.3.7.3), and nothing less.
fn is_same(one: &Entry, other: &Entry) -> bool {
    match (one.tag(), other.tag()) {
        (Some(one), Some(other)) => one.strong_eq(&other),
        _ => false,
    }
}

/// The head of the newer part (RFC 9111 §3.4), for what both are together.
fn head(newer: &ResponseHead, span: Part, total: usize) -> ResponseHead {
    let mut builder = ResponseHeadBuilder::default();
    for (name, value) in newer.fields().filter(|(name, _)| !name.eq_ignore_ascii_case("content-range")) {
        // It came in one head, so it fits another.
        let _ = builder.field(name.as_bytes(), value);
    }
    if span.last - span.first + 1 == total {
        return builder.finish(200);
    }
    let _ = builder.field(b"content-range", span.content_range(total).as_bytes());
    builder.finish(206)
}

/// Whether a 206 may be stored as a part: it has one span, and a strong tag by which others can be joined to it.
pub(crate) fn is_part(head: &ResponseHead) -> bool {
    head.status() == 206 && Span::of(head).is_some() && EntityTag::of(head).is_some_and(|tag| !tag.weak)
}

/// The bytes of `part` out of what `held` holds.
pub(crate) fn bytes(body: &Bytes, held: Span, part: Part) -> Bytes {
    match (part.first.checked_sub(held.part.first), part.last.checked_sub(held.part.first)) {
        (Some(first), Some(last)) => Part { first, last }.of(body),
        _ => Bytes::new(),
    }
}

fn number(digits: &str) -> Option<usize> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
