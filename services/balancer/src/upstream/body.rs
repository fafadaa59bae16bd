//! The body of a reply, out of the bytes of its connection.

use bytes::{Bytes, BytesMut};
use troupe_wire::head::is_value;

use super::head::{self, Framing};
use super::lie::Lie;

/// Longest line of a chunk's size, with its extensions, which are dropped.
const MAX_CHUNK_LINE: usize = 1024;
/// Longest trailer section; it is checked and dropped.
const MAX_TRAILERS: usize = 8 * 1024;

/// Takes a body out of a connection's bytes.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    Close,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers(usize),
    Done,
}

/// What the bytes at hand come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A piece of the body.
    Piece(Bytes),
    /// More bytes are needed.
    More,
    /// The body is complete, and nothing is left.
    End,
}

impl BodyDecoder {
    /// A decoder for a body that ends as `framing` says.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::Close => State::Close,
        };
        Self { state }
    }

    /// Takes what `buffer` holds of the body.
    ///
    /// # Errors
    /// When the framing is malformed, or bytes stand behind the end of the body.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Step, Lie> {
        loop {
            match self.state {
                State::Done if buffer.is_empty() => return Ok(Step::End),
                State::Done => return Err(Lie::Surplus),
                State::Close => return Ok(piece(buffer, u64::MAX).map_or(Step::More, Step::Piece)),
                State::Length(left) => {
                    let Some(piece) = piece(buffer, left) else { return Ok(Step::More) };
                    let left = left - piece.len() as u64;
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Step::Piece(piece));
                }
                State::ChunkData(left) => {
                    let Some(piece) = piece(buffer, left) else { return Ok(Step::More) };
                    let left = left - piece.len() as u64;
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    return Ok(Step::Piece(piece));
                }
                State::ChunkSize => {
                    let Some(line) = line(buffer, MAX_CHUNK_LINE)? else { return Ok(Step::More) };
                    self.state = match chunk_size(&line)? {
                        0 => State::Trailers(0),
                        size => State::ChunkData(size),
                    };
                }
                State::ChunkEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        drop(buffer.split_to(2));
                        self.state = State::ChunkSize;
                    }
                    None if buffer.first().is_none_or(|&byte| byte == b'\r') => return Ok(Step::More),
                    _ => return Err(Lie::Chunk),
                },
                State::Trailers(read) => {
                    let Some(line) = line(buffer, MAX_TRAILERS - read)? else { return Ok(Step::More) };
                    if line.is_empty() {
                        self.state = State::Done;
                        continue;
                    }
                    let (_, value) = head::split(&line)?;
                    if !value.iter().all(|&byte| is_value(byte)) {
                        return Err(Lie::Field);
                    }
                    self.state = State::Trailers(read + line.len() + 2);
                }
            }
        }
    }

    /// The connection has ended in order.
    ///
    /// # Errors
    /// When the body was not complete.
    pub fn end(&self) -> Result<(), Lie> {
        match self.state {
            State::Close | State::Done => Ok(()),
            _ => Err(Lie::Truncated),
        }
    }
}

/// At most `most` bytes of the buffer; `None` when it is empty.
fn piece(buffer: &mut BytesMut, most: u64) -> Option<Bytes> {
    let taken = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
    (taken > 0).then(|| buffer.split_to(taken).freeze())
}

/// The next line, without its CRLF.
fn line(buffer: &mut BytesMut, most: usize) -> Result<Option<BytesMut>, Lie> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        return if buffer.len() > most { Err(Lie::Chunk) } else { Ok(None) };
    };
    if end > most {
        return Err(Lie::Chunk);
    }
    let mut line = buffer.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        return Err(Lie::BareLf);
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

/// Hexadecimal digits, and extensions behind a semicolon. No sign, no prefix, no space in front.
fn chunk_size(line: &[u8]) -> Result<u64, Lie> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, rest) = line.split_at_checked(digits).ok_or(Lie::Chunk)?;
    // A bare semicolon, and whitespace before it, are what implementations disagree about.
    let extension_fits = match rest {
        [] => true,
        [b';', extension @ ..] => !extension.is_empty() && extension.iter().all(|&byte| is_value(byte)),
        _ => false,
    };
    if !extension_fits || size.is_empty() || size.len() > 15 {
        return Err(Lie::Chunk);
    }
    let text = std::str::from_utf8(size).map_err(|_| Lie::Chunk)?;
    u64::from_str_radix(text, 16).map_err(|_| Lie::Chunk)
}

#[cfg(test)]
mod tests;
