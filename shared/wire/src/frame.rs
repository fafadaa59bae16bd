//! One frame: a 16-byte little-endian header and its payload.
//!
//! ```text
//! len u32 | kind u8 | flags u8 | contract u16 | stream u32 | aux u32 | payload
//! ```
//!
//! `len` counts the payload only. What `aux` and the payload mean depends on the kind; the layouts are in
//! [`crate::payload`]. A frame is checked against its kind's bounds before any memory is reserved for it.

use bytes::Bytes;

use crate::stream_id::StreamId;
use crate::trace::TRACE_LEN;

/// Bytes of a frame header.
pub const HEADER_LEN: usize = 16;

/// Most body bytes in one REQ, RES or DATA. Small enough that a stream never holds the link for long (at 1 Gbit/s a
/// piece takes 0.3 ms), large enough that most pages fit into one.
pub const MAX_BODY_PIECE: usize = 32 * 1024;

/// Longest payload of a frame without a head.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// Longest head: what its `u16` length can say.
pub const MAX_HEAD: usize = u16::MAX as usize;

/// Longest payload of a REQ or RES: length, head, trace context, body length and the first
/// body bytes.
pub const MAX_OPENING_PAYLOAD: usize = 2 + MAX_HEAD + TRACE_LEN + 8 + MAX_BODY_PIECE;

/// Longest payload of a frame that only steers: a reason has to fit, a body must not.
pub const MAX_CONTROL_PAYLOAD: usize = 4 * 1024;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Opens a call: budget in `aux`, head, trace context, first body bytes.
    Req = 1,
    /// Opens the reply: head and first body bytes.
    Res = 2,
    /// Ends a call with a failure: its code in `aux`, the failure as payload.
    Err = 3,
    /// A piece of a body.
    Data = 4,
    /// Credit in `aux`, for one stream or (stream 0) for the link.
    Window = 5,
    /// The caller has gone: nothing more is wanted of this call.
    Cancel = 6,
    /// Asks whether the peer lives: a counter in `aux`, the sender's clock as payload.
    Ping = 7,
    /// Answers a PING with its own counter and payload.
    Pong = 8,
    /// No new calls on this link: code in `aux`, last stream and a reason as payload.
    Goaway = 9,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Req,
            2 => Self::Res,
            3 => Self::Err,
            4 => Self::Data,
            5 => Self::Window,
            6 => Self::Cancel,
            7 => Self::Ping,
            8 => Self::Pong,
            9 => Self::Goaway,
            _ => return None,
        })
    }

    /// Longest payload that a frame of this kind may announce.
    pub const fn max_payload(self) -> usize {
        match self {
            Self::Req | Self::Res => MAX_OPENING_PAYLOAD,
            Self::Data => MAX_BODY_PIECE,
            Self::Err | Self::Goaway => MAX_CONTROL_PAYLOAD,
            Self::Ping | Self::Pong => 8,
            Self::Window | Self::Cancel => 0,
        }
    }

    /// Whether the frame steers the link and may overtake bodies.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Window | Self::Cancel | Self::Ping | Self::Pong | Self::Goaway)
    }
}

/// The flag byte. Flags that are not known are ignored, except in [`Flags::OPTIONAL`]'s sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The body ends with this frame (REQ, RES, DATA).
    pub const END: Self = Self(0x01);
    /// A trace context follows the head (REQ).
    pub const TRACE: Self = Self(0x02);
    /// The length of the whole body follows the head (REQ, RES).
    pub const LENGTH: Self = Self(0x04);
    /// A receiver that does not know the kind may skip the frame; without it an unknown kind ends the link.
    pub const OPTIONAL: Self = Self(0x80);

    /// The flags as they came.
    pub const fn from_raw(raw: u8) -> Self {
        Self(raw)
    }

    /// The flags as they travel.
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags and `other`, if `condition` holds.
    #[must_use]
    pub const fn with_if(self, other: Self, condition: bool) -> Self {
        if condition { Self(self.0 | other.0) } else { self }
    }
}

/// A frame header without its length, which follows from the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is for.
    pub kind: Kind,
    /// Its flags.
    pub flags: Flags,
    /// The contract of a REQ; zero elsewhere.
    pub contract: u16,
    /// The call, or the link.
    pub stream: StreamId,
    /// By kind: budget, failure code, credit, counter.
    pub aux: u32,
}

impl Header {
    /// A header of `kind` for `stream` with everything else zero.
    pub const fn new(kind: Kind, stream: StreamId) -> Self {
        Self { kind, flags: Flags::NONE, contract: 0, stream, aux: 0 }
    }

    /// The same with `aux`.
    #[must_use]
    pub const fn with_aux(mut self, aux: u32) -> Self {
        self.aux = aux;
        self
    }

    /// The same with `flags`.
    #[must_use]
    pub const fn with_flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    /// The same for `contract`.
    #[must_use]
    pub const fn with_contract(mut self, contract: u16) -> Self {
        self.contract = contract;
        self
    }

    /// The 16 bytes, in front of `payload_len` bytes of payload (which the caller has kept within the kind's bound).
    pub fn encode(&self, payload_len: usize) -> [u8; HEADER_LEN] {
        debug_assert!(payload_len <= self.kind.max_payload());
        let length = u32::try_from(payload_len).unwrap_or(u32::MAX);
        let [l0, l1, l2, l3] = length.to_le_bytes();
        let [c0, c1] = self.contract.to_le_bytes();
        let [s0, s1, s2, s3] = self.stream.raw().to_le_bytes();
        let [a0, a1, a2, a3] = self.aux.to_le_bytes();
        let (kind, flags) = (self.kind as u8, self.flags.raw());
        [l0, l1, l2, l3, kind, flags, c0, c1, s0, s1, s2, s3, a0, a1, a2, a3]
    }
}

/// A received frame. A payload beyond [`crate::decoder::COPY_BELOW`] is a slice of the read buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The header.
    pub header: Header,
    /// The payload, within the kind's bound.
    pub payload: Bytes,
}

/// A header as it came, checked against the bounds of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// A frame of a known kind with this many payload bytes.
    Known(Header, usize),
    /// A frame to be skipped.
    Unknown(usize),
}

/// Reads a header and checks all that it alone can tell.
pub(crate) fn read_header(bytes: &[u8; HEADER_LEN]) -> Result<Announced, ProtocolError> {
    let [l0, l1, l2, l3, kind, flags, c0, c1, s0, s1, s2, s3, a0, a1, a2, a3] = *bytes;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let flags = Flags::from_raw(flags);
    let Some(known) = Kind::from_byte(kind) else {
        if !flags.contains(Flags::OPTIONAL) {
            return Err(ProtocolError::UnknownKind { kind });
        }
        return match bounded(length, MAX_PAYLOAD) {
            Some(length) => Ok(Announced::Unknown(length)),
            None => Err(ProtocolError::TooLong { kind, length }),
        };
    };
    let Some(payload_len) = bounded(length, known.max_payload()) else {
        return Err(ProtocolError::TooLong { kind, length });
    };
    let header = Header {
        kind: known,
        flags,
        contract: u16::from_le_bytes([c0, c1]),
        stream: StreamId::from_raw(u32::from_le_bytes([s0, s1, s2, s3])),
        aux: u32::from_le_bytes([a0, a1, a2, a3]),
    };
    check_header(&header)?;
    Ok(Announced::Known(header, payload_len))
}

fn bounded(length: u32, bound: usize) -> Option<usize> {
    usize::try_from(length).ok().filter(|length| *length <= bound)
}

fn check_header(header: &Header) -> Result<(), ProtocolError> {
    let stream_fits = match header.kind {
        Kind::Req | Kind::Res | Kind::Err | Kind::Data | Kind::Cancel => header.stream.is_call(),
        Kind::Window => header.stream.is_call() || header.stream.is_link(),
        Kind::Ping | Kind::Pong | Kind::Goaway => header.stream.is_link(),
    };
    if !stream_fits {
        return Err(ProtocolError::WrongStream { kind: header.kind, stream: header.stream });
    }
    if header.kind == Kind::Window && header.aux == 0 {
        return Err(ProtocolError::EmptyWindow);
    }
    Ok(())
}

/// Why the bytes of a link are not a sequence of frames. Ends the link, and only the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A kind that this version does not know and must not skip.
    #[error("frame of unknown kind {kind}, which the peer did not mark as optional")]
    UnknownKind {
        /// The kind byte.
        kind: u8,
    },
    /// A length beyond the bound of the kind. Nothing was reserved for it.
    #[error("frame of kind {kind} announces {length} bytes, more than its kind may have")]
    TooLong {
        /// The kind byte.
        kind: u8,
        /// The announced payload length.
        length: u32,
    },
    /// A kind that belongs to the link came for a call, or the reverse.
    #[error("{kind:?} frame for stream {stream}, which it cannot be about")]
    WrongStream {
        /// The kind.
        kind: Kind,
        /// The stream it named.
        stream: StreamId,
    },
    /// A grant of nothing.
    #[error("window frame that grants nothing")]
    EmptyWindow,
    /// A payload shorter than its own layout says.
    #[error("{kind:?} frame ends inside its {field}")]
    Truncated {
        /// The kind.
        kind: Kind,
        /// The part that is cut off.
        field: &'static str,
    },
    /// More body bytes than were granted.
    #[error("peer sent {excess} bytes more than it had credit for on stream {stream}")]
    CreditExceeded {
        /// The stream, or the link.
        stream: StreamId,
        /// The bytes beyond the credit.
        excess: u32,
    },
    /// More credit than a window can be.
    #[error("peer granted more credit than a window can hold on stream {stream}")]
    CreditOverflow {
        /// The stream, or the link.
        stream: StreamId,
    },
    /// A REQ for a stream whose call is not over, or beyond the announced number of calls.
    #[error("request for stream {stream}, which is in use or beyond the announced limit")]
    StreamInUse {
        /// The stream.
        stream: StreamId,
    },
    /// A frame that does not belong to where its call is: a second RES, DATA before RES.
    #[error("{kind:?} frame out of order on stream {stream}")]
    OutOfOrder {
        /// The kind.
        kind: Kind,
        /// The stream.
        stream: StreamId,
    },
    /// A frame that only the other side may send.
    #[error("{kind:?} frame from the wrong side of the link")]
    WrongDirection {
        /// The kind.
        kind: Kind,
    },
}
