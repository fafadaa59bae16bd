use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::FrameDecoder;
use crate::frame::{Flags, Frame, Header, Kind, MAX_PAYLOAD, ProtocolError};
use crate::stream_id::{Generation, StreamId};

fn encode(frame: &Frame, out: &mut BytesMut) {
    out.put_slice(&frame.header.encode(frame.payload.len()));
    out.put_slice(&frame.payload);
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![
        Kind::Req,
        Kind::Res,
        Kind::Err,
        Kind::Data,
        Kind::Window,
        Kind::Cancel,
        Kind::Ping,
        Kind::Pong,
        Kind::Goaway,
    ])
}

prop_compose! {
    fn frames()(
        kind in kinds(),
        flags: u8,
        contract: u16,
        index in 0u32..1 << 20,
        aux in 1u32..,
        payload in prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..600), 1 => prop::collection::vec(any::<u8>(), 2000..5000)],
    ) -> Frame {
        let stream = match kind {
            Kind::Ping | Kind::Pong | Kind::Goaway => StreamId::LINK,
            _ => StreamId::new(index, Generation::FIRST).expect("index in range"),
        };
        let mut payload = payload;
        payload.truncate(kind.max_payload());
        let flags = Flags::from_raw(flags);
        Frame { header: Header { kind, flags, contract, stream, aux }, payload: Bytes::from(payload) }
    }
}

proptest! {
    #[test]
    fn any_frames_survive_any_chunking(
        sent in prop::collection::vec(frames(), 0..20),
        cuts in prop::collection::vec(1usize..700, 1..50),
    ) {
        let mut wire = BytesMut::new();
        for frame in &sent {
            encode(frame, &mut wire);
        }
        let mut decoder = FrameDecoder::new();
        let mut buffer = BytesMut::new();
        let mut received = Vec::new();
        let mut cuts = cuts.into_iter().cycle();
        while !wire.is_empty() {
            let cut = cuts.next().unwrap_or(1).min(wire.len());
            buffer.extend_from_slice(&wire.split_to(cut));
            while let Some(frame) = decoder.decode(&mut buffer).expect("frames are valid") {
                received.push(frame);
            }
        }
        prop_assert!(decoder.is_between_frames(buffer.len()));
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut decoder = FrameDecoder::new();
        while let Ok(Some(frame)) = decoder.decode(&mut buffer) {
            prop_assert!(frame.payload.len() <= frame.header.kind.max_payload());
        }
    }
}

fn stream() -> StreamId {
    StreamId::new(3, Generation::FIRST).expect("index in range")
}

#[test]
fn a_length_beyond_the_bound_is_refused_with_the_header_alone() {
    let mut buffer = BytesMut::new();
    let mut header = Header::new(Kind::Data, stream()).encode(0);
    header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    buffer.put_slice(&header);
    let capacity = buffer.capacity();
    let mut decoder = FrameDecoder::new();
    let refused = ProtocolError::TooLong { kind: 4, length: u32::MAX };
    assert_eq!(decoder.decode(&mut buffer), Err(refused));
    assert_eq!(decoder.decode(&mut buffer), Err(refused), "it stays failed");
    assert_eq!(decoder.missing(buffer.len()), 0);
    assert_eq!(buffer.capacity(), capacity);
}

#[test]
fn an_unknown_kind_is_skipped_only_when_optional() {
    let mut unknown = Header::new(Kind::Data, stream()).with_flags(Flags::OPTIONAL).encode(1000);
    unknown[4] = 200;
    let mut buffer = BytesMut::new();
    buffer.put_slice(&unknown);
    buffer.put_bytes(7, 1000);
    let ping = Frame { header: Header::new(Kind::Ping, StreamId::LINK), payload: Bytes::from_static(&[1; 8]) };
    encode(&ping, &mut buffer);
    assert_eq!(FrameDecoder::new().decode(&mut buffer), Ok(Some(ping)));

    unknown[5] = 0;
    let mut buffer = BytesMut::from(&unknown[..]);
    let refused = ProtocolError::UnknownKind { kind: 200 };
    assert_eq!(FrameDecoder::new().decode(&mut buffer), Err(refused));
}

#[test]
fn an_optional_frame_may_not_be_endless() {
    let mut unknown = Header::new(Kind::Data, stream()).with_flags(Flags::OPTIONAL).encode(0);
    unknown[4] = 200;
    unknown[..4].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_le_bytes());
    let mut buffer = BytesMut::from(&unknown[..]);
    assert!(FrameDecoder::new().decode(&mut buffer).is_err());
}

#[test]
fn frames_for_the_wrong_stream_are_refused() {
    for header in [
        Header::new(Kind::Req, StreamId::LINK),
        Header::new(Kind::Ping, stream()),
        Header::new(Kind::Window, stream()).with_aux(0),
        Header::new(Kind::Data, StreamId::from_raw(5)),
    ] {
        let mut buffer = BytesMut::from(&header.encode(0)[..]);
        assert!(FrameDecoder::new().decode(&mut buffer).is_err(), "{header:?}");
    }
}
