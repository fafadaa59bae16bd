//! Cuts the bytes of a link into frames, whatever pieces they arrive in.

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{Announced, Frame, HEADER_LEN, Header, ProtocolError, read_header};

/// Payloads shorter than this are copied out of the read buffer: a slice would keep the whole buffer alive as long as the
/// call lives and force a new one to be reserved, which costs more than the copy.
pub const COPY_BELOW: usize = 2 * 1024;

/// Incremental decoder of one direction of one link.
///
/// Feed it the read buffer after each read; it takes complete frames off the front, long payloads without copying,
/// and leaves the rest. After an error it stays failed: the position in the bytes is lost and the link has to end.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Header,
    Payload(Header, usize),
    Skip(usize),
    Failed(ProtocolError),
}

impl FrameDecoder {
    /// A decoder at the first byte after the handshake.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next complete frame in `buffer`, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// The first violation of the frame layout, and the same one again at each later call.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
        loop {
            match self.state {
                State::Header => {
                    let Some(header) = buffer.first_chunk::<HEADER_LEN>() else {
                        return Ok(None);
                    };
                    let announced = read_header(header).inspect_err(|error| {
                        self.state = State::Failed(*error);
                    })?;
                    buffer.advance(HEADER_LEN);
                    self.state = match announced {
                        Announced::Known(header, length) => State::Payload(header, length),
                        Announced::Unknown(length) => State::Skip(length),
                    };
                }
                State::Payload(header, length) => {
                    if buffer.len() < length {
                        return Ok(None);
                    }
                    self.state = State::Header;
                    let payload = take_payload(buffer, length);
                    return Ok(Some(Frame { header, payload }));
                }
                State::Skip(length) => {
                    let skipped = length.min(buffer.len());
                    buffer.advance(skipped);
                    if skipped < length {
                        self.state = State::Skip(length - skipped);
                        return Ok(None);
                    }
                    self.state = State::Header;
                }
                State::Failed(error) => return Err(error),
            }
        }
    }

    /// How many bytes the frame at hand still needs beyond `buffered`, so that the reader can make room for it at once.
    /// Zero between frames. Bounded by the longest payload of a kind.
    pub fn missing(&self, buffered: usize) -> usize {
        match self.state {
            State::Payload(_, length) => length.saturating_sub(buffered),
            State::Header | State::Skip(_) | State::Failed(_) => 0,
        }
    }

    /// Whether the bytes so far end exactly between two frames, given what is left in the buffer.
    pub fn is_between_frames(&self, buffered: usize) -> bool {
        matches!(self.state, State::Header) && buffered == 0
    }
}

fn take_payload(buffer: &mut BytesMut, length: usize) -> Bytes {
    match buffer.get(..length).filter(|_| length < COPY_BELOW) {
        Some(short) => {
            let copy = Bytes::copy_from_slice(short);
            buffer.advance(length);
            copy
        }
        None => buffer.split_to(length).freeze(),
    }
}

#[cfg(test)]
mod tests;
