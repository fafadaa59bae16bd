//! Parts that the origin gives (206): kept, joined, and never given for the whole.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use troupe_contracts::invoke::{Invoke, Reply};
use troupe_mesh::body::{self, Body};
use troupe_mesh::contract::Envelope;

use super::{FRESH, cached, on, status};
use crate::support::*;

const TAG: (&str, &str) = ("ETag", "\"v1\"");

/// An origin that answers ranges, of a body that is too large for the store (1 MiB) under `/large`.
fn origin(envelope: &Envelope<Invoke>, streams: bool) -> Reply {
    let head = &envelope.call.head;
    let whole = bytes(if envelope.call.function == "large" { 3 << 20 } else { 26_000 });
    let range =
        head.field("range").and_then(|range| std::str::from_utf8(range).ok()?.strip_prefix("bytes=")?.split_once('-'));
    let (part, says) = match range.map(|(first, last)| (first.parse::<usize>(), last.parse::<usize>())) {
        Some((Ok(first), Ok(last))) => {
            (whole.slice(first..=last), Some(format!("bytes {first}-{last}/{}", whole.len())))
        }
        _ => (whole, None),
    };
    let body = if streams { streamed(part) } else { Body::full(part) };
    match &says {
        Some(says) => reply(206, &[FRESH, TAG, ("Content-Range", says)], body),
        None => reply(200, &[FRESH, TAG], body),
    }
}

fn streamed(whole: Bytes) -> Body {
    let (mut writer, reader) = body::channel(Some(whole.len() as u64));
    actix_rt::spawn(async move {
        for piece in whole.chunks(10_000) {
            if writer.write(Bytes::copy_from_slice(piece)).await.is_err() {
                return;
            }
        }
        writer.finish();
    });
    Body::Stream(reader)
}

fn ask(client: &mut Client, target: &str, range: &str) -> Response {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\nRange: bytes={range}\r\n\r\n")).response(false)
}

/// RFC 9111 §3.3 and §3.4: what is too large as a whole is kept in the parts that are asked for.
#[test]
fn parts_of_what_is_too_large_are_kept_and_joined() {
    for streams in [false, true] {
        let (running, calls) = cached(on(), move |envelope, _| async move { Ok(origin(&envelope, streams)) });
        let mut client = Client::connect(&running);
        let whole = bytes(3 << 20);
        // The first one is not known to be too large: all of it is fetched, and passed on as it comes.
        let first = client.get("/large");
        assert!(first.body == whole);
        let part = ask(&mut client, "/large", "1000-100999");
        assert_eq!(
            (part.status, part.field("content-range")),
            (206, Some("bytes 1000-100999/3145728")),
            "{}",
            part.head
        );
        assert!(part.body == whole[1000..101_000]);
        while !status(&ask(&mut client, "/large", "2000-2999")).contains("hit") {
            assert!(calls.count() < 100, "a part is never stored");
        }
        let before = calls.count();
        let inner = ask(&mut client, "/large", "2000-2999");
        assert_eq!((inner.status, inner.field("content-range")), (206, Some("bytes 2000-2999/3145728")));
        assert!(inner.body == whole[2000..3000] && status(&inner).starts_with("troupe-l1; hit"), "{}", inner.head);
        assert_eq!(calls.count(), before);

        let beyond = ask(&mut client, "/large", "101000-101999");
        assert!(beyond.body == whole[101_000..102_000] && status(&beyond).contains("fwd=partial"), "{}", beyond.head);
        while !status(&ask(&mut client, "/large", "100500-101500")).contains("hit") {
            assert!(calls.count() < 200, "parts that touch are never joined");
        }
        let across = ask(&mut client, "/large", "100500-101500");
        assert!(across.body == whole[100_500..=101_500]);
        // And the whole is the whole.
        let all = client.get("/large");
        assert_eq!((all.status, all.body.len()), (200, 3 << 20));
        assert!(status(&all).contains("fwd=partial"), "{}", all.head);
    }
}

/// Parts without a gap are the whole, which then needs no origin any more.
#[test]
fn all_parts_together_are_the_whole() {
    let (running, calls) = cached(on(), |envelope, _| async move {
        let asks_for_a_part = envelope.call.head.field("x-part").is_some();
        let mut envelope = envelope;
        if asks_for_a_part {
            // An origin that sends a part of its own accord, as some do for what they know to be a player.
            envelope.call.head = with_range(&envelope.call.head);
        }
        Ok(origin(&envelope, false))
    });
    let mut client = Client::connect(&running);
    let mut part = |range: &str| {
        client
            .send(format!("GET /a HTTP/1.1\r\nHost: a.example\r\nRange: bytes={range}\r\nX-Part: {range}\r\n\r\n"))
            .response(false)
    };
    for range in ["0-9999", "10000-19999", "20000-25999"] {
        assert_eq!(part(range).status, 206);
    }
    assert_eq!(calls.count(), 3);
    let whole = client.get("/a");
    assert!(
        whole.status == 200 && whole.body == bytes(26_000) && status(&whole).starts_with("troupe-l1; hit"),
        "{}",
        whole.head
    );
    assert_eq!((whole.field("content-range"), calls.count()), (None, 3));
}

fn with_range(head: &troupe_wire::head::RequestHead) -> troupe_wire::head::RequestHead {
    let mut builder = troupe_wire::head::RequestHeadBuilder::default();
    let part = head.field("x-part").unwrap_or_default();
    builder.field("range", &[b"bytes=", part].concat()).expect("a field");
    let parts = troupe_wire::head::RequestParts {
        version: head.version(),
        scheme: head.scheme(),
        method: head.method(),
        target: head.target(),
        authority: head.authority(),
        remote_addr: "127.0.0.1",
        remote_port: "1",
        local_addr: "127.0.0.1",
        local_port: "1",
    };
    builder.finish(&parts).expect("a head")
}

/// What is not stored anyway is asked for as the client asks for it.
#[test]
fn conditions_and_ranges_of_what_is_not_stored_reach_the_origin() {
    let (running, calls) = cached(on(), |envelope, _| async move {
        let head = &envelope.call.head;
        let text = ["range", "if-range", "if-none-match", "if-modified-since"].map(|name| head.field(name).is_some());
        if head.field("if-none-match").is_some() {
            return Ok(reply(304, &[TAG], Body::Empty));
        }
        Ok(reply(200, &[("Cache-Control", "no-store"), TAG], Body::full(format!("{text:?}").into())))
    });
    let mut client = Client::connect(&running);
    assert_eq!(ask(&mut client, "/a", "0-1").text(), "[false, false, false, false]", "nobody knows yet");
    assert_eq!(ask(&mut client, "/a", "0-1").text(), "[true, false, false, false]");
    let unmodified = client.send("GET /a HTTP/1.1\r\nHost: a.example\r\nIf-None-Match: \"v1\"\r\n\r\n").response(false);
    assert_eq!((unmodified.status, calls.0.load(Ordering::SeqCst)), (304, 3));
}

/// That a part of it was stored made the next one forget that it is too large.
#[test]
fn conditions_of_what_is_too_large_reach_the_origin_when_a_part_of_it_is_stored() {
    let (running, calls) = cached(on(), |envelope, _| async move {
        Ok(match envelope.call.head.field("if-none-match") {
            Some(_) => reply(304, &[TAG], Body::Empty),
            None => origin(&envelope, false),
        })
    });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/large").status, 200);
    assert_eq!(ask(&mut client, "/large", "0-999").status, 206);
    assert!(status(&ask(&mut client, "/large", "0-99")).starts_with("troupe-l1; hit"));
    for calls_before in [2, 3] {
        assert_eq!(calls.count(), calls_before);
        let conditional = "GET /large HTTP/1.1\r\nHost: a.example\r\nIf-None-Match: \"v1\"\r\n\r\n";
        let unmodified = client.send(conditional).response(false);
        assert_eq!((unmodified.status, unmodified.body.len()), (304, 0), "{}", unmodified.head);
        assert!(status(&unmodified).contains("fwd=partial"), "{}", unmodified.head);
    }
    assert!(status(&ask(&mut client, "/large", "0-99")).starts_with("troupe-l1; hit"), "the part is still there");
}

/// RFC 9110 §13.2.2, RFC 9111 §4.3.2: conditions come before `Range`, whether all of it is stored or a part that answers.
#[test]
fn a_condition_is_answered_by_a_part_that_answers() {
    let (running, calls) = cached(on(), |envelope, _| async move { Ok(origin(&envelope, false)) });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/large").status, 200);
    assert_eq!(ask(&mut client, "/large", "0-999").status, 206);
    let mut conditional = |tag: &str| {
        let fields = format!("Range: bytes=0-9\r\nIf-None-Match: {tag}");
        client.send(format!("GET /large HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n")).response(false)
    };
    let unmodified = conditional("\"v1\"");
    assert!(unmodified.status == 304 && status(&unmodified).starts_with("troupe-l1; hit"), "{}", unmodified.head);
    assert_eq!(unmodified.field("content-range"), None);
    assert_eq!(conditional("\"v0\"").body, bytes(10));
    assert_eq!(calls.count(), 2);
}

/// What one client's range brought about was kept for everybody: a URL could be made to answer 416 to all.
#[test]
fn a_range_that_is_not_there_is_told_to_nobody_else() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        Ok(match envelope.call.head.field("range") {
            Some(_) => reply(416, &[FRESH, ("Content-Range", "bytes */9")], Body::Empty),
            // Each of its requests goes to the origin as it is.
            None => reply(200, &[("Cache-Control", "no-store")], Body::full(format!("{n}").into())),
        })
    });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/a").text(), "1");
    let ranged = "GET /a HTTP/1.1\r\nHost: a.example\r\nRange: bytes=99999-\r\n\r\n";
    assert_eq!(client.send(ranged).response(false).status, 416);
    let after = client.get("/a");
    assert_eq!((after.status, after.text().as_str()), (200, "3"), "{}", after.head);
    assert_eq!(calls.count(), 3);
}
