//! Whatever bytes an upstream server answers: nothing panics, nothing is read twice, and how the bytes were cut on their
//! way changes nothing.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use troupe_balancer::upstream::body::{BodyDecoder, Step};
use troupe_balancer::upstream::head::{self, Framing, HeadScan, MAX_HEAD};
use troupe_balancer::upstream::lie::Lie;
use troupe_wire::head::ResponseHeadBuilder;

fuzz_target!(|data: &[u8]| {
    let Some((&selector, rest)) = data.split_first() else {
        return;
    };
    let cut = usize::from(selector >> 1) + 1;
    let head_only = selector & 1 == 1;
    let whole = find(rest, rest.len().max(1));
    assert_eq!(find(rest, cut), whole);
    let Ok(Some(len)) = whole else {
        return;
    };
    assert!(len <= MAX_HEAD);
    let (first, body) = rest.split_at(len);
    let Ok(head) = head::read(first, head_only, &mut ResponseHeadBuilder::default()) else {
        return;
    };
    assert_eq!(head.head.status(), head::status(first).expect("a head that was read"));
    assert!(head.head.field("transfer-encoding").is_none() && head.head.field("connection").is_none());
    let (at_once, end) = decode(head.framing, body, body.len().max(1));
    let (in_pieces, other_end) = decode(head.framing, body, cut);
    match (end, other_end) {
        (Ok(one), Ok(other)) => assert!(one == other && at_once == in_pieces),
        (one, other) => assert!(one.is_err() && other.is_err(), "{one:?} and {other:?}"),
    }
});

fn find(input: &[u8], cut: usize) -> Result<Option<usize>, Lie> {
    let mut scan = HeadScan::default();
    let mut end = 0;
    while end < input.len() {
        end = (end + cut).min(input.len());
        if let Some(len) = scan.advance(&input[..end])? {
            return Ok(Some(len));
        }
    }
    Ok(None)
}

/// The body, and whether it is complete.
fn decode(framing: Framing, input: &[u8], cut: usize) -> (Vec<u8>, Result<bool, Lie>) {
    let (mut decoder, mut buffer, mut body) = (BodyDecoder::new(framing), BytesMut::new(), Vec::new());
    let mut pieces = input.chunks(cut);
    loop {
        match decoder.next(&mut buffer) {
            Ok(Step::Piece(piece)) => body.extend_from_slice(&piece),
            Ok(step) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return (body, Ok(step == Step::End)),
            },
            Err(lie) => return (body, Err(lie)),
        }
    }
}
