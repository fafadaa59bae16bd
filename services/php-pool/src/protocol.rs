//! The frames between a pool and its PHP processes, sans-io. Both directions are little endian.

/// Bytes of a header on its way to PHP.
pub(crate) const CALL_HEADER: usize = 32;
/// Bytes of a header on its way from PHP.
pub(crate) const REPLY_HEADER: usize = 16;
/// The longest frame that may stand in a pipe behind a running call: the kernel writes so much at once or not at all, and keeps
/// it apart from other frames (PIPE_BUF, pipe(7)).
pub(crate) const PACKET: usize = 4096;
/// Longest payload of a frame from PHP. The runtime sends longer bodies in pieces, so more is a broken process.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;

/// Flag of a call: its meta part is the rich form, with the parts of a form or a spooled body.
pub(crate) const FORM: u8 = 1;
/// Flag of a call: its body follows in frames of its own.
pub(crate) const STREAM: u8 = 2;
/// Flag of a call: the process ends after it.
pub(crate) const LAST: u8 = 4;
/// Flag of a call: the client may read details of an error.
pub(crate) const DEVELOPMENT: u8 = 8;
/// Flag of a call: its meta part is plain, the values and then their names, instead of PHP's `serialize()` format.
pub(crate) const PLAIN: u8 = 16;
/// Flags of a call: before it starts, the process writes a mark to its standard output, or its standard error.
pub(crate) const MARK_STDOUT: u8 = 32;
pub(crate) const MARK_STDERR: u8 = 64;
/// Flag of a body piece: it is the last.
pub(crate) const LAST_PIECE: u8 = 1;
/// Flag of the frames that end a call: the process ends after it, so nothing else in its pipe was or will be started.
pub(crate) const RECYCLE: u8 = 1;
/// Flag of the start of a reply in pieces: its function asked for no stream, it is only long, or finished early.
pub(crate) const FINITE: u8 = 2;

/// What a frame to PHP is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToPhp {
    Call = 1,
    Body = 2,
    Stop = 3,
}

/// The header of a frame to PHP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallHeader {
    pub(crate) kind: ToPhp,
    pub(crate) flags: u8,
    pub(crate) function: u16,
    pub(crate) meta_len: u32,
    pub(crate) body_len: u32,
    /// On CLOCK_MONOTONIC, which is PHP's `hrtime()`; 0 is none.
    pub(crate) deadline_ns: u64,
    pub(crate) id: u64,
}

impl CallHeader {
    /// The end of a process that has nothing to do.
    pub(crate) const STOP: Self =
        Self { kind: ToPhp::Stop, flags: 0, function: 0, meta_len: 0, body_len: 0, deadline_ns: 0, id: 0 };

    pub(crate) fn encode(&self) -> [u8; CALL_HEADER] {
        let mut out = [0; CALL_HEADER];
        out[0..4].copy_from_slice(&(self.meta_len + self.body_len).to_le_bytes());
        out[4] = self.kind as u8;
        out[5] = self.flags;
        out[6..8].copy_from_slice(&self.function.to_le_bytes());
        out[8..12].copy_from_slice(&self.meta_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.body_len.to_le_bytes());
        out[16..24].copy_from_slice(&self.deadline_ns.to_le_bytes());
        out[24..32].copy_from_slice(&self.id.to_le_bytes());
        out
    }
}

/// The number of the call that a frame from [`CallHeader::encode`] on begins.
pub(crate) fn call_number(frame: &[u8]) -> Option<u64> {
    frame.get(24..32)?.try_into().ok().map(u64::from_le_bytes)
}

/// What a frame from PHP is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromPhp {
    /// The process takes calls.
    Ready,
    /// A whole reply.
    Reply,
    /// The start of a streamed reply.
    Head,
    /// A piece of one.
    Data,
    /// Its end.
    End,
    /// The call's deadline had passed before it started.
    Expired,
    /// The call failed.
    Error,
    /// The reply is complete; the call goes on.
    Done,
}

/// The header of a frame from PHP, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FromPhp,
    pub(crate) recycle: bool,
    /// A reply in pieces that is no stream.
    pub(crate) finite: bool,
    pub(crate) status: u16,
    /// Bytes of the payload that are the head of a reply.
    pub(crate) head_len: usize,
    /// Bytes of the payload.
    pub(crate) len: usize,
    /// How long the call ran.
    pub(crate) micros: u32,
}

/// Why bytes from PHP are no frame; the process is not to be trusted with another call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadFrame(pub(crate) &'static str);

impl FrameHeader {
    /// Reads a header; `None` while it is incomplete.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, BadFrame> {
        Self::decode_within(bytes, MAX_PAYLOAD)
    }

    /// As [`FrameHeader::decode`], of a frame whose payload may have up to `longest` bytes.
    pub(crate) fn decode_within(bytes: &[u8], longest: usize) -> Result<Option<Self>, BadFrame> {
        let Some(bytes) = bytes.first_chunk::<REPLY_HEADER>() else {
            return Ok(None);
        };
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let kind = match bytes[4] {
            1 => FromPhp::Ready,
            2 => FromPhp::Reply,
            3 => FromPhp::Head,
            4 => FromPhp::Data,
            5 => FromPhp::End,
            6 => FromPhp::Expired,
            7 => FromPhp::Error,
            8 => FromPhp::Done,
            _ => return Err(BadFrame("a frame of an unknown kind")),
        };
        let (len, head_len) = (word(0) as usize, word(8) as usize);
        if len > longest {
            return Err(BadFrame("a frame that is too long"));
        }
        if head_len > len {
            return Err(BadFrame("a head longer than its frame"));
        }
        let status = u16::from_le_bytes([bytes[6], bytes[7]]);
        let (recycle, finite) = (bytes[5] & RECYCLE != 0, bytes[5] & FINITE != 0);
        Ok(Some(Self { kind, recycle, finite, status, head_len, len, micros: word(12) }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_header_is_laid_out_as_php_unpacks_it() {
        let header = CallHeader {
            kind: ToPhp::Call,
            flags: LAST,
            function: 0x0102,
            meta_len: 5,
            body_len: 7,
            deadline_ns: 0x1122_3344_5566_7788,
            id: 9,
        };
        let bytes = header.encode();
        assert_eq!(bytes[..16], [12, 0, 0, 0, 1, 4, 2, 1, 5, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes[16..24], 0x1122_3344_5566_7788_u64.to_le_bytes());
        assert_eq!(bytes[24..], 9_u64.to_le_bytes());
    }

    #[test]
    fn lengths_are_checked_before_memory_is_reserved() {
        let mut bytes = [0; REPLY_HEADER];
        bytes[4] = 2;
        bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(FrameHeader::decode(&bytes).is_err());
        bytes[..4].copy_from_slice(&4_u32.to_le_bytes());
        bytes[8] = 5;
        assert!(FrameHeader::decode(&bytes).is_err());
        assert_eq!(FrameHeader::decode(&bytes[..15]), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(Some(header)) = FrameHeader::decode(&bytes) {
                prop_assert!(header.len <= MAX_PAYLOAD && header.head_len <= header.len);
            }
        }
    }
}
