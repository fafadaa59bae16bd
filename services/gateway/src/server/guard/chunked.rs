//! The framing of a chunked body (RFC 9112 §7.1), in its strict form: what servers read differently is refused.

use super::Reject;
use super::head::split_field;

/// Longest line that announces a chunk, extensions included. Signatures, the one known use of extensions, take 90 bytes.
const MAX_SIZE_LINE: usize = 256;
/// Most hex digits of a chunk size: 2⁶⁰ bytes, with no risk of an overflow.
const MAX_SIZE_DIGITS: usize = 15;
/// Most bytes of trailers. Nobody reads them; they are passed over.
const MAX_TRAILERS: u32 = 8 * 1024;

/// Where in a chunked body the last byte was.
#[derive(Debug, Clone, Copy)]
pub(super) enum ChunkScan {
    /// At the beginning of a line with a size.
    Size,
    /// In a chunk; bytes left.
    Data(u64),
    /// Behind a chunk's data, before its line end.
    DataEnd,
    /// In the trailers; bytes they took so far.
    Trailers(u32),
}

/// One step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// That many bytes are fine.
    Pass(usize),
    /// That many bytes are fine, and the body is at its end.
    End(usize),
    /// A line is not complete.
    More,
}

impl ChunkScan {
    /// Reads on from the first byte of `input` that was not passed yet.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<Step, Reject> {
        match *self {
            Self::Data(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                if taken == 0 {
                    return Ok(Step::More);
                }
                let left = left - taken as u64;
                *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                Ok(Step::Pass(taken))
            }
            Self::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    *self = Self::Size;
                    Ok(Step::Pass(2))
                }
                [] | [b'\r'] => Ok(Step::More),
                _ => Err(Reject::Chunk),
            },
            Self::Size => {
                let Some((line, taken)) = line(input, MAX_SIZE_LINE)? else { return Ok(Step::More) };
                *self = match size(line)? {
                    0 => Self::Trailers(0),
                    size => Self::Data(size),
                };
                Ok(Step::Pass(taken))
            }
            Self::Trailers(before) => {
                let left = (MAX_TRAILERS - before) as usize;
                let Some((line, taken)) = line(input, left)? else { return Ok(Step::More) };
                if line.is_empty() {
                    return Ok(Step::End(taken));
                }
                split_field(line).map_err(|_| Reject::Chunk)?;
                *self = Self::Trailers(before + taken as u32);
                Ok(Step::Pass(taken))
            }
        }
    }
}

/// The first line of `input` and how many bytes it takes with its end.
fn line(input: &[u8], max: usize) -> Result<Option<(&[u8], usize)>, Reject> {
    let Some(end) = memchr::memchr(b'\n', input) else {
        return if input.len() > max { Err(Reject::Chunk) } else { Ok(None) };
    };
    if end >= max {
        return Err(Reject::Chunk);
    }
    match input.get(..end).and_then(|line| line.strip_suffix(b"\r")) {
        Some(line) => Ok(Some((line, end + 1))),
        None => Err(Reject::Chunk),
    }
}

fn size(line: &[u8]) -> Result<u64, Reject> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (size, extensions) = line.split_at(digits);
    if size.is_empty() || size.len() > MAX_SIZE_DIGITS || !extensions_fit(extensions) {
        return Err(Reject::Chunk);
    }
    let text = std::str::from_utf8(size).map_err(|_| Reject::Chunk)?;
    u64::from_str_radix(text, 16).map_err(|_| Reject::Chunk)
}

/// `;name` or `;name=token`, again and again. Quoted values are refused: parsers differ on what ends them.
fn extensions_fit(extensions: &[u8]) -> bool {
    let is_token = |text: &[u8]| !text.is_empty() && text.iter().all(|&byte| troupe_wire::head::is_token(byte));
    match extensions {
        [] => true,
        [b';', rest @ ..] => rest.split(|&byte| byte == b';').all(|extension| {
            let mut halves = extension.splitn(2, |&byte| byte == b'=');
            halves.next().is_some_and(is_token) && halves.next().is_none_or(is_token)
        }),
        _ => false,
    }
}
