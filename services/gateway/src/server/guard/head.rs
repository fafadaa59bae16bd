//! One request head, line by line, as the client sent it: what RFC 9112 leaves open is refused here.
//!
//! A line is judged once, when its end has arrived, and only by what stands before it; so the verdict does not depend
//! on how the bytes were cut on their way.

use troupe_wire::head::{alphanumerics_and, is_token, is_value};

use super::Reject;

/// Most header fields of a request: what HTTP servers commonly take, and what a head on the mesh has room for.
const MAX_FIELDS: u8 = 96;
/// Longest name of a header field. The longest registered one has 45 bytes.
const MAX_NAME: usize = 128;
/// Empty lines that may stand before a request line: RFC 9112 §2.2 asks for one, left over by sloppy clients.
const MAX_LEADING_LINES: u8 = 1;

/// How far the head was read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HeadScan {
    line: u32,
    searched: u32,
    leading: u8,
    fields: u8,
    has_te: bool,
    facts: Facts,
}

/// What the next bytes are.
#[derive(Debug)]
pub(super) enum Part {
    /// An empty line of that many bytes, before the head.
    Empty(usize),
    /// A complete head: its length, and what it says.
    Head(usize, Facts),
    /// The beginning of a head.
    More,
}

/// What a complete head says, as offsets into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::server) struct Facts {
    /// End of the method.
    pub(in crate::server) method_end: u32,
    /// End of the target.
    pub(in crate::server) target_end: u32,
    /// Where the first field line begins.
    pub(in crate::server) fields_at: u32,
    /// HTTP/1.1 rather than 1.0.
    pub(in crate::server) version_11: bool,
    /// The host, as an offset range.
    pub(in crate::server) host: (u32, u32),
    /// `Content-Length`.
    pub(in crate::server) length: Option<u64>,
    /// `Transfer-Encoding: chunked`.
    pub(in crate::server) chunked: bool,
    /// `Connection: close`.
    pub(in crate::server) close: bool,
    /// `Connection: keep-alive`.
    pub(in crate::server) keep_alive: bool,
    /// `Connection` names fields that are for this hop alone.
    pub(in crate::server) nominates: bool,
    /// `Expect: 100-continue`.
    pub(in crate::server) expect: bool,
}

impl HeadScan {
    /// Reads on. `input` begins where the head begins, on every call, or where an empty line before it does.
    pub(super) fn advance(&mut self, input: &[u8], max: usize) -> Result<Part, Reject> {
        if let Some(&first) = input.first()
            && !is_token(first)
            && first != b'\r'
        {
            return Err(if first == b'\n' { Reject::BareLf } else { Reject::RequestLine });
        }
        loop {
            let rest = input.get(self.searched as usize..).unwrap_or_default();
            let Some(found) = memchr::memchr(b'\n', rest) else {
                if input.len() > max {
                    return Err(Reject::HeadTooLarge);
                }
                self.searched = input.len() as u32;
                return Ok(Part::More);
            };
            let end = self.searched as usize + found;
            if end >= max {
                return Err(Reject::HeadTooLarge);
            }
            let at = self.line as usize;
            let Some(line) = input.get(at..end).and_then(|line| line.strip_suffix(b"\r")) else {
                return Err(Reject::BareLf);
            };
            self.searched = end as u32 + 1;
            self.line = self.searched;
            if self.facts.fields_at == 0 {
                if line.is_empty() {
                    if self.leading == MAX_LEADING_LINES {
                        return Err(Reject::RequestLine);
                    }
                    // Let go at once: it begins no head, and the one it would be kept for need not come.
                    *self = Self { leading: self.leading + 1, ..Self::default() };
                    return Ok(Part::Empty(end + 1));
                }
                self.request_line(line)?;
                self.facts.fields_at = self.line;
            } else if line.is_empty() {
                self.complete(input)?;
                return Ok(Part::Head(end + 1, self.facts));
            } else {
                self.field(at, line)?;
            }
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Reject> {
        let method = memchr::memchr(b' ', line).ok_or(Reject::RequestLine)?;
        let (Some(name), Some(rest)) = (line.get(..method), line.get(method + 1..)) else {
            return Err(Reject::RequestLine);
        };
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) {
            return Err(Reject::RequestLine);
        }
        let target = memchr::memchr(b' ', rest).ok_or(Reject::RequestLine)?;
        let (Some(text), Some(version)) = (rest.get(..target), rest.get(target + 1..)) else {
            return Err(Reject::RequestLine);
        };
        // Visible ASCII only; a fragment is never sent, and some servers cut at it.
        let visible = |byte: u8| (0x21..0x7f).contains(&byte) & (byte != b'#');
        if text.is_empty() || !text.iter().fold(true, |good, &byte| good & visible(byte)) {
            return Err(Reject::Target);
        }
        self.facts.version_11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            other if is_version(other) => return Err(Reject::Version),
            _ => return Err(Reject::RequestLine),
        };
        if name == b"CONNECT" {
            return Err(Reject::Connect);
        }
        if text == b"*" && name != b"OPTIONS" {
            return Err(Reject::Target);
        }
        self.facts.method_end = method as u32;
        self.facts.target_end = (method + 1 + target) as u32;
        Ok(())
    }

    fn field(&mut self, at: usize, line: &[u8]) -> Result<(), Reject> {
        self.fields += 1;
        if self.fields > MAX_FIELDS {
            return Err(Reject::TooManyFields);
        }
        let (name, value) = split_field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.facts.host.1 != 0 || !is_host(value) {
                    return Err(Reject::Host);
                }
                let lead = value_offset(line, name, value);
                self.facts.host = ((at + lead) as u32, (at + lead + value.len()) as u32);
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.facts.expect |= value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.facts.length.is_some() {
                    return Err(Reject::Length);
                }
                self.facts.length = Some(length(value).ok_or(Reject::Length)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.has_te || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Reject::TransferEncoding);
                }
                self.has_te = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if option.eq_ignore_ascii_case(b"close") {
                self.facts.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.facts.keep_alive = true;
            } else if !option.is_empty() {
                self.facts.nominates = true;
            }
        }
    }

    fn complete(&mut self, input: &[u8]) -> Result<(), Reject> {
        let facts = &mut self.facts;
        if self.has_te {
            if facts.length.is_some() || !facts.version_11 {
                return Err(Reject::TransferEncoding);
            }
            facts.chunked = true;
        }
        let host = input.get(facts.host.0 as usize..facts.host.1 as usize).unwrap_or_default();
        if facts.version_11 && host.is_empty() {
            return Err(Reject::Host);
        }
        let target = input.get(facts.method_end as usize + 1..facts.target_end as usize).unwrap_or_default();
        match target.first() {
            Some(b'/' | b'*') => Ok(()),
            // Absolute form, which clients send to proxies: RFC 9112 §3.2.2 lets it replace Host; here they must agree.
            _ => match absolute(target) {
                Some(authority) if host.is_empty() || host.eq_ignore_ascii_case(authority) => Ok(()),
                _ => Err(Reject::Target),
            },
        }
    }
}

/// Splits a field line and checks both halves. Used for trailers as well.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Reject> {
    let Some(colon) = line.iter().position(|&byte| !is_token(byte)) else {
        return Err(if line.len() > MAX_NAME { Reject::NameTooLong } else { Reject::Field });
    };
    if colon > MAX_NAME {
        return Err(Reject::NameTooLong);
    }
    let (Some(name), Some(value)) = (line.get(..colon), line.get(colon + 1..)) else {
        return Err(Reject::Field);
    };
    if name.is_empty() || line.get(colon) != Some(&b':') {
        return Err(Reject::Field);
    }
    // Without an early end, so that it is done many bytes at a time.
    if !value.iter().fold(true, |good, &byte| good & is_value(byte)) {
        return Err(Reject::Field);
    }
    Ok((name, trim(value)))
}

/// The authority of a target in absolute form, without what follows it.
pub(in crate::server) fn absolute(target: &[u8]) -> Option<&[u8]> {
    let rest = strip_scheme(target, b"http://").or_else(|| strip_scheme(target, b"https://"))?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    is_host(authority).then_some(authority)
}

fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = target.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn value_offset(line: &[u8], name: &[u8], value: &[u8]) -> usize {
    let after_colon = line.get(name.len() + 1..).unwrap_or_default();
    let lead = after_colon.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(after_colon.len());
    debug_assert!(after_colon.get(lead..).is_some_and(|rest| rest.starts_with(value)));
    name.len() + 1 + lead
}

/// Optional whitespace, RFC 9110 §5.6.3: spaces and tabs only.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_version(text: &[u8]) -> bool {
    matches!(text, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// RFC 3986 §3.2.2, the characters of `reg-name`, looked up.
const REG_NAME: [bool; 256] = alphanumerics_and(b"-._~%!$&'()*+,;=");

/// A host and an optional port. No user information, no path, not empty.
fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value.first() {
        Some(b'[') => match value.iter().position(|&byte| byte == b']') {
            Some(end) => value.split_at(end + 1),
            None => return false,
        },
        _ => value.split_at(value.iter().position(|&byte| byte == b':').unwrap_or(value.len())),
    };
    let host_fits = match host {
        [b'[', inner @ .., b']'] => {
            !inner.is_empty() && inner.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte))
        }
        plain => !plain.is_empty() && plain.iter().all(|&byte| REG_NAME[usize::from(byte)]),
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_fits && port_fits
}

/// A length in its only form: digits without a leading zero, a sign or a list.
fn length(value: &[u8]) -> Option<u64> {
    let plain =
        value.iter().all(u8::is_ascii_digit) && (value == b"0" || value.first().is_some_and(|&byte| byte != b'0'));
    if !plain {
        return None;
    }
    // Within i64, which is what a PHP integer holds.
    std::str::from_utf8(value).ok()?.parse::<u64>().ok().filter(|&length| i64::try_from(length).is_ok())
}
