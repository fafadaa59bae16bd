use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::freshness::Times;
use crate::heads::{get, response};
use crate::policy::Policy;
use crate::range::{Wanted, wanted};
use crate::storing::{Refusal, judge, judge_part};
use crate::time::Moment;

const WHOLE: &[u8] = b"0123456789";
const NOW: Moment = Moment::from_secs(784_111_777);
const TIMES: Times = Times { requested: NOW, received: NOW };

fn part(first: usize, last: usize, tag: &str) -> Arc<Entry> {
    let range = format!("bytes {first}-{last}/{}", WHOLE.len());
    let fields =
        [("Cache-Control", "max-age=60"), ("ETag", tag), ("Content-Range", &range), ("Content-Type", "text/plain")];
    let head = response(206, &fields);
    let terms = judge_part(&get("/", &[]), &head, TIMES, &Policy::new()).unwrap();
    Arc::new(Entry::new(terms, &head, Bytes::copy_from_slice(&WHOLE[first..=last])))
}

fn with(entries: &[Arc<Entry>], max: usize) -> Arc<Entry> {
    let request = get("/", &[]);
    let mut object = Object::with(Arc::clone(&entries[0]), &request, None);
    let mut last = Arc::clone(&entries[0]);
    for entry in &entries[1..] {
        last = combined(&object, entry, &request, max);
        object = Object::with(Arc::clone(&last), &request, Some(&object));
    }
    last
}

fn asked(entry: &Entry, range: &str) -> Wanted {
    wanted(&get("/", &[("Range", range)]), entry)
}

/// RFC 9110 §14.4: one span of a known length, and nothing else.
#[test]
fn spans_are_read() {
    let span = |value: &str| Span::of(&response(206, &[("Content-Range", value)]));
    assert_eq!(span("bytes 2-4/10"), Some(Span { part: Part { first: 2, last: 4 }, total: 10 }));
    for wrong in [
        "bytes 2-4/*",
        "bytes */10",
        "bytes 4-2/10",
        "bytes 2-10/10",
        "items 2-4/10",
        "bytes 2-4",
        "2-4/10",
        "bytes +2-4/10",
        "",
    ] {
        assert_eq!(span(wrong), None, "{wrong}");
    }
    let two = response(206, &[("Content-Range", "bytes 0-1/9"), ("Content-Range", "bytes 2-3/9")]);
    assert_eq!(Span::of(&two), None);
}

/// RFC 9111 §3.3: a part is stored as a part; without a strong tag nothing could be made of it.
#[test]
fn what_may_be_stored_as_a_part() {
    let fields = |tag: &'static str, range: &'static str| {
        let head = response(206, &[("Cache-Control", "max-age=60"), ("ETag", tag), ("Content-Range", range)]);
        judge_part(&get("/", &[]), &head, TIMES, &Policy::new()).err()
    };
    assert_eq!(fields("\"a\"", "bytes 0-1/10"), None);
    assert_eq!(fields("W/\"a\"", "bytes 0-1/10"), Some(Refusal::Status));
    assert_eq!(fields("\"a\"", "bytes 0-1/*"), Some(Refusal::Status));
    let head = response(206, &[("Cache-Control", "no-store"), ("ETag", "\"a\""), ("Content-Range", "bytes 0-1/10")]);
    assert_eq!(judge_part(&get("/", &[]), &head, TIMES, &Policy::new()).err(), Some(Refusal::NoStore));
    assert_eq!(
        judge(&get("/", &[]), &head, TIMES, &Policy::new()).err(),
        Some(Refusal::Status),
        "it is never the whole"
    );
}

/// RFC 9111 §3.3: the same range, one inside of it, an open end and a suffix that it holds; and nothing else, the whole least.
#[test]
fn a_part_answers_what_it_holds() {
    let held = part(4, 9, "\"a\"");
    for (range, bytes, says) in [
        ("bytes=4-9", &b"456789"[..], "bytes 4-9/10"),
        ("bytes=5-6", b"56", "bytes 5-6/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-2", b"89", "bytes 8-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
    ] {
        let Wanted::One(part) = asked(&held, range) else { panic!("{range}: {:?}", asked(&held, range)) };
        assert_eq!((&*held.part(part), part.content_range(held.total()).as_str()), (bytes, says), "{range}");
    }
    for range in ["bytes=3-5", "bytes=0-", "bytes=-7", "bytes=4-5,7-8", "items=1-2", "bytes=20-"] {
        assert_eq!(asked(&held, range), Wanted::Missing, "{range}");
    }
    assert_eq!(wanted(&get("/", &[]), &held), Wanted::Missing, "an incomplete body is never the whole");
    let other = get("/", &[("Range", "bytes=5-6"), ("If-Range", "\"b\"")]);
    assert_eq!(wanted(&other, &held), Wanted::Missing);
}

/// RFC 9111 §3.4, RFC 9110 §15.3.7.3: parts that touch or overlap are joined, in any order, and are the whole when nothing is
/// missing.
#[test]
fn parts_are_joined() {
    let joined = with(&[part(0, 3, "\"a\""), part(2, 6, "\"a\"")], 100);
    assert_eq!((joined.status(), &**joined.body()), (206, &b"0123456"[..]));
    assert_eq!(joined.head().field("content-range"), Some(&b"bytes 0-6/10"[..]));
    let whole = with(&[part(7, 9, "\"a\""), part(0, 3, "\"a\""), part(4, 6, "\"a\"")], 100);
    assert_eq!(whole.status(), 206, "a gap came in between: only the last two are joined");
    let whole = with(&[part(4, 6, "\"a\""), part(7, 9, "\"a\""), part(0, 3, "\"a\"")], 100);
    assert_eq!((whole.status(), &**whole.body(), whole.head().has_range()), (200, WHOLE, false));
    let again = with(&[part(4, 9, "\"a\""), part(0, 3, "\"a\""), part(0, 1, "\"a\"")], 100);
    assert_eq!(again.status(), 200, "a part of what is there takes nothing away");
}

/// RFC 9110 §15.3.7.3: never under another validator or a weak one; never beyond what may be stored.
#[test]
fn parts_of_different_responses_stay_apart() {
    assert_eq!(&**with(&[part(0, 3, "\"a\""), part(4, 9, "\"b\"")], 100).body(), b"456789");
    assert_eq!(&**with(&[part(0, 3, "\"a\""), part(4, 9, "\"a\"")], 9).body(), b"456789");
}

trait HasRange {
    fn has_range(&self) -> bool;
}

impl HasRange for ResponseHead {
    fn has_range(&self) -> bool {
        self.field("content-range").is_some()
    }
}

proptest! {
    /// Whatever parts come in whatever order: what is held is what the origin has there.
    #[test]
    fn what_is_held_is_true(parts in proptest::collection::vec((0usize..10, 0usize..10), 1..8)) {
        let entries: Vec<_> = parts.iter().map(|(one, two)| part(*one.min(two), *one.max(two), "\"a\"")).collect();
        let held = with(&entries, 100);
        match held.span() {
            Some(span) => prop_assert_eq!(&**held.body(), &WHOLE[span.part.first..=span.part.last]),
            None => prop_assert_eq!((held.status(), &**held.body()), (200, WHOLE)),
        }
    }
}
