//! Sequences of valid frames in any chunking, and honest pairs of windows in any order of events.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::{BufMut, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use troupe_wire::credit::{LINK_WINDOW, LinkReceive, STREAM_WINDOW, STREAM_WINDOW_MAX, SendCredit, StreamReceive};
use troupe_wire::decoder::FrameDecoder;
use troupe_wire::frame::{Flags, Frame, Header, Kind};
use troupe_wire::payload::{Opening, Prefix};
use troupe_wire::stream_id::{Generation, StreamId};
use troupe_wire::trace::TraceContext;

#[derive(Arbitrary, Debug)]
struct Input {
    frames: Vec<Sent>,
    cuts: Vec<u16>,
    credit: Vec<CreditStep>,
}

#[derive(Arbitrary, Debug)]
enum Sent {
    Opening {
        reply: bool,
        index: u32,
        contract: u16,
        aux: u32,
        head: Vec<u8>,
        trace: Option<[u8; 25]>,
        length: Option<u64>,
        body: Vec<u8>,
    },
    Data {
        index: u32,
        end: bool,
        body: Vec<u8>,
    },
    Window {
        index: Option<u32>,
        bytes: u32,
    },
    Cancel {
        index: u32,
    },
    Ping {
        pong: bool,
        counter: u32,
        clock: [u8; 8],
    },
    Unknown {
        kind: u8,
        payload: Vec<u8>,
    },
}

#[derive(Arbitrary, Debug)]
struct CreditStep {
    send: u32,
    consume: u32,
    spare: bool,
    pause: u16,
}

fuzz_target!(|input: Input| {
    frames(&input.frames, &input.cuts);
    credit(&input.credit);
});

fn stream(index: u32) -> StreamId {
    StreamId::new(index % (1 << 20), Generation::FIRST).expect("index in range")
}

fn frames(sent: &[Sent], cuts: &[u16]) {
    let mut wire = BytesMut::new();
    let mut expected = Vec::new();
    for one in sent {
        encode(one, &mut wire, &mut expected);
    }
    let mut cuts = cuts.iter().cycle();
    let mut decoder = FrameDecoder::new();
    let mut buffer = BytesMut::new();
    let mut expected = expected.into_iter();
    while !wire.is_empty() {
        let cut = cuts.next().map_or(usize::MAX, |cut| usize::from(*cut) + 1).min(wire.len());
        buffer.extend_from_slice(&wire.split_to(cut));
        while let Some(frame) = decoder.decode(&mut buffer).expect("valid frames") {
            let (header, opening) = expected.next().expect("no more frames than were sent");
            assert_eq!(frame.header, header);
            if let Some(opening) = opening {
                assert_eq!(Opening::parse(frame), Ok(opening));
            }
        }
    }
    assert!(expected.next().is_none() && decoder.is_between_frames(buffer.len()));
}

fn encode(sent: &Sent, wire: &mut BytesMut, expected: &mut Vec<(Header, Option<Opening>)>) {
    match sent {
        Sent::Opening { reply, index, contract, aux, head, trace, length, body } => {
            let kind = if *reply { Kind::Res } else { Kind::Req };
            let header = Header::new(kind, stream(*index)).with_contract(*contract).with_aux(*aux);
            let trace = trace.as_ref().and_then(TraceContext::from_bytes);
            let prefix = Prefix { head, trace: trace.as_ref(), length: *length };
            if body.len() > troupe_wire::frame::MAX_BODY_PIECE
                || !Opening::put_prefix(wire, header, &prefix, body.len())
            {
                return;
            }
            wire.put_slice(body);
            let flags = Flags::NONE.with_if(Flags::TRACE, trace.is_some()).with_if(Flags::LENGTH, length.is_some());
            let opening = Opening {
                head: Bytes::copy_from_slice(head),
                trace,
                length: *length,
                body: Bytes::copy_from_slice(body),
            };
            expected.push((header.with_flags(flags), Some(opening)));
        }
        Sent::Data { index, end, body } => {
            let body = &body[..body.len().min(Kind::Data.max_payload())];
            let flags = Flags::NONE.with_if(Flags::END, *end);
            put(Header::new(Kind::Data, stream(*index)).with_flags(flags), body, wire, expected);
        }
        Sent::Window { index, bytes } => {
            let stream = index.map_or(StreamId::LINK, stream);
            put(Header::new(Kind::Window, stream).with_aux((*bytes).max(1)), &[], wire, expected);
        }
        Sent::Cancel { index } => put(Header::new(Kind::Cancel, stream(*index)), &[], wire, expected),
        Sent::Ping { pong, counter, clock } => {
            let kind = if *pong { Kind::Pong } else { Kind::Ping };
            put(Header::new(kind, StreamId::LINK).with_aux(*counter), clock, wire, expected);
        }
        Sent::Unknown { kind, payload } => {
            let payload = &payload[..payload.len().min(troupe_wire::frame::MAX_PAYLOAD)];
            let mut header = Header::new(Kind::Req, stream(0)).with_flags(Flags::OPTIONAL).encode(payload.len());
            header[4] = (*kind).max(10);
            wire.put_slice(&header);
            wire.put_slice(payload);
        }
    }
}

fn put(header: Header, payload: &[u8], wire: &mut BytesMut, expected: &mut Vec<(Header, Option<Opening>)>) {
    wire.put_slice(&header.encode(payload.len()));
    wire.put_slice(payload);
    expected.push((Frame { header, payload: Bytes::new() }.header, None));
}

fn credit(steps: &[CreditStep]) {
    let (mut stream_send, mut stream_receive) = (SendCredit::new(STREAM_WINDOW), StreamReceive::new(STREAM_WINDOW));
    let (mut link_send, mut link_receive) = (SendCredit::new(LINK_WINDOW), LinkReceive::new(LINK_WINDOW));
    let mut held = 0u32;
    let mut now = Duration::ZERO;
    for step in steps {
        let send = step.send.min(stream_send.available()).min(link_send.available());
        stream_send.spend(send);
        link_send.spend(send);
        stream_receive.received(stream(0), send).expect("within credit");
        link_receive.received(send).expect("within credit");
        held += send;
        let consume = step.consume.min(held);
        held -= consume;
        stream_receive.consumed(consume);
        link_receive.consumed(u64::from(consume));
        now += Duration::from_micros(u64::from(step.pause));
        if let Some(growth) = stream_receive.wants_growth(now, Duration::from_micros(500)).filter(|_| step.spare) {
            stream_receive.widen(growth);
        }
        if let Some(grant) = stream_receive.take_grant(now) {
            stream_send.grant(stream(0), grant).expect("honest");
        }
        if let Some(grant) = link_receive.take_grant(step.spare) {
            link_send.grant(StreamId::LINK, grant).expect("honest");
        }
        assert!(held + stream_send.available() <= stream_receive.window());
        assert!(stream_receive.window() <= STREAM_WINDOW_MAX && link_send.available() <= LINK_WINDOW);
    }
}
