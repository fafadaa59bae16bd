//! The head of a reply, read strictly: whatever two servers could understand differently is refused.

use troupe_wire::head::{FieldTooLarge, ResponseHead, ResponseHeadBuilder, is_token, is_value};

use super::lie::Lie;

/// Largest head of a reply, status line included: what a head takes on the mesh, with room for its envelope.
pub const MAX_HEAD: usize = 48 * 1024;

/// Finds the end of a head in bytes that arrive bit by bit. Each byte is looked at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadScan {
    line: usize,
    searched: usize,
}

/// How a reply's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// A reply's head and what it says of the connection.
#[derive(Debug)]
pub struct Head {
    /// The head as it travels on: without what is for this hop alone.
    pub head: ResponseHead,
    /// How the body ends.
    pub framing: Framing,
    /// Whether the server keeps the connection.
    pub keep_alive: bool,
    /// Whether it names WebSocket as what the connection goes on with, as a 101 has to (RFC 6455 §4.1).
    pub websocket: bool,
}

impl HeadScan {
    /// The length of the head at the beginning of `input`, once it is complete. `input` begins there on every call.
    ///
    /// # Errors
    /// When a line does not end with CRLF, or the head is too large.
    pub fn advance(&mut self, input: &[u8]) -> Result<Option<usize>, Lie> {
        loop {
            let rest = input.get(self.searched..).unwrap_or_default();
            let Some(found) = memchr::memchr(b'\n', rest) else {
                self.searched = input.len();
                return if input.len() > MAX_HEAD { Err(Lie::HeadTooLarge) } else { Ok(None) };
            };
            let end = self.searched + found;
            if end >= MAX_HEAD {
                return Err(Lie::HeadTooLarge);
            }
            let line = input.get(self.line..end).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else { return Err(Lie::BareLf) };
            // The first line is judged at once: what is no HTTP is not waited for.
            if self.line == 0 {
                status_line(line)?;
            }
            self.searched = end + 1;
            self.line = end + 1;
            if line.is_empty() {
                return Ok(Some(end + 1));
            }
        }
    }
}

/// Reads the status of a complete head.
///
/// # Errors
/// When its first line is no status line.
pub fn status(head: &[u8]) -> Result<u16, Lie> {
    Ok(status_line(lines(head).next().unwrap_or_default())?.0)
}

/// Reads a complete head. `head_only`: it answers a HEAD.
///
/// # Errors
/// When it is malformed or its framing is open to more than one reading.
pub fn read(bytes: &[u8], head_only: bool, builder: &mut ResponseHeadBuilder) -> Result<Head, Lie> {
    let mut lines = lines(bytes);
    let (status, version_11) = status_line(lines.next().unwrap_or_default())?;
    let mut facts = Facts::default();
    builder.start();
    let nominating = lines.clone().any(is_nominating);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = split(line)?;
        if facts.note(name, value)? || (nominating && is_nominated(bytes, name)) {
            continue;
        }
        builder.field(name, value).map_err(|error| match error {
            FieldTooLarge::Limit => Lie::HeadTooLarge,
            FieldTooLarge::Byte => Lie::Field,
        })?;
    }
    let framing = facts.framing(status, version_11, head_only)?;
    let keep_alive = match version_11 {
        true => !facts.close,
        false => facts.keep_alive && !facts.close,
    } && framing != Framing::Close;
    let websocket = version_11 && facts.upgrade && facts.protocol == Some(true);
    Ok(Head { head: builder.finish(status), framing, keep_alive, websocket })
}

/// The lines of a complete head, each without its CRLF.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// `HTTP/1.1 200 OK`. The reason may be missing, with the space before it, as some servers have it.
fn status_line(line: &[u8]) -> Result<(u16, bool), Lie> {
    let (version, rest) = line.split_at_checked(9).ok_or(Lie::StatusLine)?;
    let version_11 = match version {
        b"HTTP/1.1 " => true,
        b"HTTP/1.0 " => false,
        _ => return Err(Lie::StatusLine),
    };
    let (code, reason) = rest.split_at_checked(3).ok_or(Lie::StatusLine)?;
    let reason_fits = reason.first().is_none_or(|&byte| byte == b' ') && reason.iter().all(|&byte| is_value(byte));
    match code {
        [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] if reason_fits => {
            Ok((code.iter().fold(0, |status, &digit| status * 10 + u16::from(digit - b'0')), version_11))
        }
        _ => Err(Lie::StatusLine),
    }
}

/// Splits a field line and checks its name; the value is checked where it is kept.
pub(super) fn split(line: &[u8]) -> Result<(&[u8], &[u8]), Lie> {
    let colon = line.iter().position(|&byte| !is_token(byte)).ok_or(Lie::Field)?;
    let (name, rest) = line.split_at_checked(colon).ok_or(Lie::Field)?;
    match rest.split_first() {
        Some((b':', value)) if !name.is_empty() => Ok((name, trim(value))),
        Some((b' ' | b'\t', _)) if name.is_empty() => Err(Lie::Folded),
        _ => Err(Lie::Field),
    }
}

/// Optional whitespace, RFC 9110 §5.6.3.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|option| !option.is_empty())
}

/// Whether a line is a `Connection` field that names further fields.
fn is_nominating(line: &[u8]) -> bool {
    split(line).is_ok_and(|(name, value)| {
        is(name, "connection") && options(value).any(|option| !is(option, "close") && !is(option, "keep-alive"))
    })
}

/// Whether a `Connection` field names this one (RFC 9110 §7.6.1). The length stays: the client's framing rests on it.
fn is_nominated(head: &[u8], name: &[u8]) -> bool {
    !is(name, "content-length")
        && lines(head).filter_map(|line| split(line).ok()).any(|(field, value)| {
            is(field, "connection") && options(value).any(|option| option.eq_ignore_ascii_case(name))
        })
}

#[derive(Debug, Default)]
struct Facts {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    /// `Connection` has the option `upgrade`.
    upgrade: bool,
    /// Whether `Upgrade`, where it stands, names WebSocket and nothing else.
    protocol: Option<bool>,
}

impl Facts {
    /// Notes what a field says; whether it is for this hop alone.
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Lie> {
        Ok(match name.len() {
            2 => is(name, "te"),
            7 if is(name, "upgrade") => {
                let alone = self.protocol.is_none();
                self.protocol = Some(alone && is(value, "websocket"));
                true
            }
            7 => is(name, "trailer"),
            10 if is(name, "connection") => {
                for option in options(value) {
                    self.close |= is(option, "close");
                    self.keep_alive |= is(option, "keep-alive");
                    self.upgrade |= is(option, "upgrade");
                }
                true
            }
            10 => is(name, "keep-alive"),
            14 if is(name, "content-length") => {
                let length = length(value).ok_or(Lie::Length)?;
                if self.length.replace(length).is_some() {
                    return Err(Lie::Length);
                }
                false
            }
            16 => is(name, "proxy-connection"),
            17 if is(name, "transfer-encoding") => {
                if self.chunked || !is(value, "chunked") {
                    return Err(Lie::TransferEncoding);
                }
                self.chunked = true;
                true
            }
            18 => is(name, "proxy-authenticate"),
            _ => false,
        })
    }

    /// RFC 9112 §6.3, without its lenient choices.
    fn framing(&self, status: u16, version_11: bool, head_only: bool) -> Result<Framing, Lie> {
        if self.chunked && !version_11 {
            return Err(Lie::TransferEncoding);
        }
        if self.chunked && self.length.is_some() {
            return Err(Lie::Ambiguous);
        }
        if status < 200 || status == 204 {
            return match self.length {
                _ if self.chunked => Err(Lie::TransferEncoding),
                None | Some(0) => Ok(Framing::Empty),
                Some(_) => Err(Lie::Length),
            };
        }
        Ok(match self.length {
            _ if head_only || status == 304 => Framing::Empty,
            _ if self.chunked => Framing::Chunked,
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        })
    }
}

/// A length in its only form: digits, no sign, no list, no zero in front.
fn length(value: &[u8]) -> Option<u64> {
    let plain =
        value.iter().all(u8::is_ascii_digit) && (value == b"0" || value.first().is_some_and(|&byte| byte != b'0'));
    std::str::from_utf8(value).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests;
