//! Whatever bytes a peer sends: nothing panics, nothing is taken beyond its bound.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use troupe_wire::decoder::FrameDecoder;
use troupe_wire::handshake::{Handshake, Hello, Keys, NONCE_LEN, Role, Uid};
use troupe_wire::head::{RequestHead, ResponseHead};
use troupe_wire::payload::{Goaway, Opening, ping_clock};
use troupe_wire::trace::TraceContext;

fuzz_target!(|data: &[u8]| {
    let Some((selector, rest)) = data.split_first() else {
        return;
    };
    match selector % 4 {
        0 => frames(rest),
        1 => handshake(rest, Role::Callee),
        2 => handshake(rest, Role::Caller),
        _ => {
            if let Ok(head) = RequestHead::decode(Bytes::copy_from_slice(rest)) {
                let _ = (head.method(), head.path(), head.query(), head.authority());
                assert!(head.fields().all(|(name, _)| !name.is_empty()));
            }
            if let Ok(head) = ResponseHead::decode(Bytes::copy_from_slice(rest)) {
                assert_eq!(head.fields().count(), head.len());
            }
            let _ = TraceContext::parse_traceparent(rest);
        }
    }
});

fn frames(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    let mut decoder = FrameDecoder::new();
    while let Ok(Some(frame)) = decoder.decode(&mut buffer) {
        assert!(frame.payload.len() <= frame.header.kind.max_payload());
        let _ = Opening::parse(frame.clone());
        let _ = Goaway::parse(frame.clone());
        let _ = ping_clock(&frame);
    }
    assert!(decoder.missing(buffer.len()) <= troupe_wire::frame::MAX_OPENING_PAYLOAD);
}

fn handshake(bytes: &[u8], role: Role) {
    let mut output = BytesMut::new();
    let hello = Hello::new(Uid([1; 16]), "balancer", "one", [1; NONCE_LEN]);
    let mut side = Handshake::new(role, hello, Keys::none(), &mut output);
    let mut input = BytesMut::from(bytes);
    let outcome = side.advance(&mut input, &mut output);
    assert!(!matches!(outcome, Ok(Some(_))), "a proof was guessed");
    assert!(output.len() < 4096);
}
