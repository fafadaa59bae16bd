//! What is inside the payloads.
//!
//! | kind | `aux` | payload |
//! |---|---|---|
//! | REQ | remaining budget in 100 µs | `u16` head length, head, 25 bytes of trace context and `u64` body length (each with its flag), first body bytes |
//! | RES | 0 | `u16` head length, head, `u64` body length (with its flag), first body bytes |
//! | ERR | failure code | the failure as the mesh encodes it |
//! | DATA | 0 | body bytes |
//! | WINDOW | credit in bytes | none |
//! | CANCEL | reason | none |
//! | PING, PONG | counter | 8 bytes of the pinging side's clock |
//! | GOAWAY | code | `u32` last accepted stream, reason |

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{Flags, Frame, Header, Kind, MAX_CONTROL_PAYLOAD, ProtocolError};
use crate::stream_id::StreamId;
use crate::text::printable;
use crate::trace::{TRACE_LEN, TraceContext};

/// Longest reason that travels in a GOAWAY, in bytes. Longer ones are cut: they are for a log line.
pub const MAX_REASON: usize = 1024;
const _: () = assert!(4 + MAX_REASON <= MAX_CONTROL_PAYLOAD);

/// The payload of a REQ or RES.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The encoded head.
    pub head: Bytes,
    /// The trace, if the flag was set and the ids are not zero.
    pub trace: Option<TraceContext>,
    /// Length of the whole body, where the sender knows it although the body does not end here.
    pub length: Option<u64>,
    /// The first body bytes; the whole body when the END flag is set.
    pub body: Bytes,
}

impl Opening {
    /// Reads the payload of a REQ or RES.
    ///
    /// # Errors
    /// [`ProtocolError::Truncated`] when the payload is shorter than its layout says.
    pub fn parse(frame: Frame) -> Result<Self, ProtocolError> {
        let kind = frame.header.kind;
        let mut payload = frame.payload;
        let cut = |field| ProtocolError::Truncated { kind, field };
        let head_len = payload.try_get_u16_le().map_err(|_| cut("head length"))?;
        let head = take(&mut payload, usize::from(head_len)).ok_or(cut("head"))?;
        let trace = if frame.header.flags.contains(Flags::TRACE) {
            let bytes = take(&mut payload, TRACE_LEN).ok_or(cut("trace context"))?;
            bytes.first_chunk().and_then(TraceContext::from_bytes)
        } else {
            None
        };
        let length = if frame.header.flags.contains(Flags::LENGTH) {
            Some(payload.try_get_u64_le().map_err(|_| cut("body length"))?)
        } else {
            None
        };
        Ok(Self { head, trace, length, body: payload })
    }

    /// Writes the header and the payload in front of the body bytes, of which `body_len` will follow.
    ///
    /// `false` and nothing written when the head is too long to travel.
    pub fn put_prefix(out: &mut BytesMut, header: Header, prefix: &Prefix<'_>, body_len: usize) -> bool {
        let Ok(head_len) = u16::try_from(prefix.head.len()) else {
            return false;
        };
        let trace_len = prefix.trace.map_or(0, |_| TRACE_LEN);
        let length_len = prefix.length.map_or(0, |_| size_of::<u64>());
        let flags =
            header.flags.with_if(Flags::TRACE, prefix.trace.is_some()).with_if(Flags::LENGTH, prefix.length.is_some());
        let payload_len = 2 + prefix.head.len() + trace_len + length_len + body_len;
        out.put_slice(&header.with_flags(flags).encode(payload_len));
        out.put_u16_le(head_len);
        out.put_slice(prefix.head);
        if let Some(trace) = prefix.trace {
            out.put_slice(&trace.to_bytes());
        }
        if let Some(length) = prefix.length {
            out.put_u64_le(length);
        }
        true
    }
}

/// What an opening carries in front of its body bytes.
#[derive(Clone, Copy, Debug)]
pub struct Prefix<'a> {
    /// The encoded head, at most [`crate::frame::MAX_HEAD`] bytes.
    pub head: &'a [u8],
    /// The trace; of a REQ only.
    pub trace: Option<&'a TraceContext>,
    /// Length of the whole body, when it is known and the body does not end in this frame.
    pub length: Option<u64>,
}

/// The payload of a GOAWAY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goaway {
    /// The last stream that was accepted, as its raw id; zero when none was.
    pub last_stream: u32,
    /// Why, for the log. Not for clients.
    pub text: String,
}

impl Goaway {
    /// Reads the payload of a GOAWAY. What is not UTF-8, and what would end a line of the log, is replaced.
    ///
    /// # Errors
    /// [`ProtocolError::Truncated`] when the stream is missing.
    pub fn parse(frame: Frame) -> Result<Self, ProtocolError> {
        let kind = frame.header.kind;
        let mut payload = frame.payload;
        let cut = |_| ProtocolError::Truncated { kind, field: "last stream" };
        let last_stream = payload.try_get_u32_le().map_err(cut)?;
        let text = payload.get(..MAX_REASON).unwrap_or(&payload);
        Ok(Self { last_stream, text: printable(&String::from_utf8_lossy(text)) })
    }

    /// Writes a whole GOAWAY.
    pub fn put(out: &mut BytesMut, code: u32, last_stream: u32, text: &str) {
        let text = cut_at_char(text, MAX_REASON);
        let header = Header::new(Kind::Goaway, StreamId::LINK).with_aux(code);
        out.put_slice(&header.encode(4 + text.len()));
        out.put_u32_le(last_stream);
        out.put_slice(text.as_bytes());
    }
}

/// Writes a whole frame that has no payload.
pub fn put_empty(out: &mut BytesMut, header: Header) {
    out.put_slice(&header.encode(0));
}

/// Writes a PING or PONG.
pub fn put_ping(out: &mut BytesMut, kind: Kind, counter: u32, clock: u64) {
    out.put_slice(&Header::new(kind, StreamId::LINK).with_aux(counter).encode(8));
    out.put_u64_le(clock);
}

/// The clock in a PING or PONG.
///
/// # Errors
/// [`ProtocolError::Truncated`] when it is shorter than eight bytes.
pub fn ping_clock(frame: &Frame) -> Result<u64, ProtocolError> {
    let bytes =
        frame.payload.first_chunk().ok_or(ProtocolError::Truncated { kind: frame.header.kind, field: "clock" })?;
    Ok(u64::from_le_bytes(*bytes))
}

fn take(payload: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= payload.len()).then(|| payload.split_to(length))
}

/// The longest prefix of at most `bound` bytes that ends between two characters.
pub(crate) fn cut_at_char(text: &str, bound: usize) -> &str {
    let mut end = bound.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoder::FrameDecoder;
    use crate::frame::MAX_HEAD;
    use crate::stream_id::Generation;
    use proptest::prelude::*;

    fn stream() -> StreamId {
        StreamId::new(1, Generation::FIRST).expect("index in range")
    }

    fn only_frame(mut wire: BytesMut) -> Frame {
        let frame = FrameDecoder::new().decode(&mut wire).expect("valid").expect("complete");
        assert!(wire.is_empty());
        frame
    }

    proptest! {
        #[test]
        fn openings_round_trip(
            head: Vec<u8>,
            body: Vec<u8>,
            trace_id in 1u128..,
            span_id in 1u64..,
            traced: bool,
            length: Option<u64>,
        ) {
            let trace = traced.then(|| TraceContext {
                trace_id: trace_id.to_be_bytes(),
                span_id: span_id.to_be_bytes(),
                flags: 1,
            });
            let mut wire = BytesMut::new();
            let header = Header::new(Kind::Req, stream());
            let prefix = Prefix { head: &head, trace: trace.as_ref(), length };
            prop_assert!(Opening::put_prefix(&mut wire, header, &prefix, body.len()));
            wire.put_slice(&body);
            let opening = Opening::parse(only_frame(wire)).expect("valid");
            prop_assert_eq!(&opening.head[..], &head[..]);
            prop_assert_eq!(&opening.body[..], &body[..]);
            prop_assert_eq!(opening.trace, trace);
            prop_assert_eq!(opening.length, length);
        }

        #[test]
        fn any_payload_is_survived(payload: Vec<u8>, flags: u8) {
            for kind in [Kind::Req, Kind::Res, Kind::Err, Kind::Goaway, Kind::Ping] {
                let header = Header::new(kind, stream()).with_flags(Flags::from_raw(flags));
                let frame = Frame { header, payload: Bytes::from(payload.clone()) };
                let _ = Opening::parse(frame.clone());
                let _ = Goaway::parse(frame.clone());
                let _ = ping_clock(&frame);
            }
        }

        #[test]
        fn reasons_round_trip_and_are_cut(last_stream: u32, text in "\\PC{0,400}") {
            let mut wire = BytesMut::new();
            Goaway::put(&mut wire, 1, last_stream, &text);
            let reason = Goaway::parse(only_frame(wire)).expect("valid");
            prop_assert_eq!(reason.last_stream, last_stream);
            prop_assert!(text.starts_with(&reason.text));
            prop_assert!(reason.text.len() + 4 > text.len().min(MAX_REASON));
        }
    }

    #[test]
    fn a_reason_writes_no_line_of_its_own() {
        let mut wire = BytesMut::new();
        Goaway::put(&mut wire, 1, 0, "bye\n2026-11-27 ERROR \u{1b}[31mmade up");
        let reason = Goaway::parse(only_frame(wire)).expect("valid");
        assert_eq!(reason.text, "bye?2026-11-27 ERROR ?[31mmade up");
    }

    #[test]
    fn a_head_beyond_its_length_field_is_not_written() {
        let mut wire = BytesMut::new();
        let head = vec![0; MAX_HEAD + 1];
        let header = Header::new(Kind::Req, stream());
        let prefix = Prefix { head: &head, trace: None, length: None };
        assert!(!Opening::put_prefix(&mut wire, header, &prefix, 0));
        assert!(wire.is_empty());
    }

    #[test]
    fn a_head_longer_than_its_frame_is_truncated() {
        let header = Header::new(Kind::Res, stream());
        let payload = Bytes::from_static(&[10, 0, 1, 2]);
        let parsed = Opening::parse(Frame { header, payload });
        assert_eq!(parsed, Err(ProtocolError::Truncated { kind: Kind::Res, field: "head" }));
    }
}
