//! `Cache-Control`, of requests and of responses (RFC 9111 §5.2, RFC 5861).
//!
//! What is malformed is read by one rule: a directive that restricts is honoured in any form, one that permits only in
//! its right form. A lifetime that cannot be read is one of no length (§4.2.1), not one that was never given.

use std::borrow::Cow;

use crate::fields::{Head, ends_in_quotes, members};
use crate::time::delta_seconds;

/// Most field names that `private="…"` or `no-cache="…"` may list; a response that lists more is private as a whole.
const MAX_LISTED: usize = 64;

/// What a response says about its caching.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseControl {
    /// §5.2.2.1, in seconds; 0 when it cannot be read.
    pub max_age: Option<u32>,
    /// §5.2.2.10, in seconds; 0 when it cannot be read.
    pub s_maxage: Option<u32>,
    /// §5.2.2.5
    pub no_store: bool,
    /// §5.2.2.4, without a list of fields.
    pub no_cache: bool,
    /// §5.2.2.7, without a list of fields.
    pub private: bool,
    /// §5.2.2.9
    pub public: bool,
    /// §5.2.2.2
    pub must_revalidate: bool,
    /// §5.2.2.8
    pub proxy_revalidate: bool,
    /// §5.2.2.3
    pub must_understand: bool,
    /// RFC 5861 §3, in seconds.
    pub stale_while_revalidate: Option<u32>,
    /// RFC 5861 §4, in seconds.
    pub stale_if_error: Option<u32>,
    /// Fields that `private="…"` or `no-cache="…"` name, in lower case: not to be stored by a shared cache (§5.2.2.7), or
    /// not to be sent without validation (§5.2.2.4), which comes to the same.
    pub withheld: Vec<Box<str>>,
}

/// What a request says about answers from a store (RFC 9111 §5.2.1). All of it is advice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestControl {
    /// §5.2.1.1, in seconds.
    pub max_age: Option<u32>,
    /// §5.2.1.2, in seconds: how stale an answer may be; the largest number when any will do.
    pub max_stale: Option<u32>,
    /// §5.2.1.3, in seconds.
    pub min_fresh: Option<u32>,
    /// §5.2.1.4
    pub no_cache: bool,
    /// §5.2.1.5
    pub no_store: bool,
    /// §5.2.1.7
    pub only_if_cached: bool,
    /// RFC 5861 §4, in seconds.
    pub stale_if_error: Option<u32>,
}

/// What stands behind a directive's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument<'a> {
    /// Nothing.
    Absent,
    /// A token or a quoted string, unquoted: both forms mean the same (§5.2).
    Text(Cow<'a, [u8]>),
    /// What fits no grammar.
    Malformed,
}

impl ResponseControl {
    /// Reads all `Cache-Control` lines of a response.
    pub fn of(head: &impl Head) -> Self {
        let mut control = Self::default();
        for line in head.values("cache-control") {
            for (name, argument) in directives(line) {
                control.add(name, &argument);
            }
            // What an open quote has swallowed may have been any of them.
            control.no_store |= ends_in_quotes(line);
        }
        control
    }

    /// Takes in one directive. Of numbers the first one counts (§4.2.1).
    pub fn add(&mut self, name: &[u8], argument: &Argument<'_>) {
        let mut buffer = [0; 24];
        match lower(name, &mut buffer) {
            b"max-age" => first(&mut self.max_age, argument.lifetime()),
            b"s-maxage" => first(&mut self.s_maxage, argument.lifetime()),
            b"no-store" => self.no_store = true,
            b"public" => self.public |= *argument == Argument::Absent,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand |= *argument == Argument::Absent,
            b"private" => self.private |= !self.withhold(argument),
            b"no-cache" => self.no_cache |= !self.withhold(argument),
            b"stale-while-revalidate" => permit(&mut self.stale_while_revalidate, argument.seconds()),
            b"stale-if-error" => permit(&mut self.stale_if_error, argument.seconds()),
            _ => {}
        }
    }

    /// Notes the fields of a qualified directive; false when it names none and is about the whole response.
    fn withhold(&mut self, argument: &Argument<'_>) -> bool {
        let Argument::Text(list) = argument else { return false };
        let before = self.withheld.len();
        for name in members(list) {
            let known = !name.is_empty() && name.iter().all(|&byte| troupe_wire::head::is_token(byte));
            if !known || self.withheld.len() >= MAX_LISTED {
                return false;
            }
            self.withheld.push(String::from_utf8_lossy(name).to_ascii_lowercase().into());
        }
        self.withheld.len() > before
    }
}

impl RequestControl {
    /// Reads all `Cache-Control` lines of a request. What cannot be read is no advice.
    pub fn of(head: &impl Head) -> Self {
        let mut control = Self::default();
        for line in head.values("cache-control") {
            control.add_line(line);
        }
        control
    }

    /// Takes in one line.
    pub fn add_line(&mut self, line: &[u8]) {
        for (name, argument) in directives(line) {
            let mut buffer = [0; 24];
            match lower(name, &mut buffer) {
                b"max-age" => permit(&mut self.max_age, argument.seconds()),
                b"max-stale" if argument == Argument::Absent => self.max_stale = Some(u32::MAX),
                b"max-stale" => permit(&mut self.max_stale, argument.seconds()),
                b"min-fresh" => permit(&mut self.min_fresh, argument.seconds()),
                b"no-cache" => self.no_cache = true,
                b"no-store" => self.no_store = true,
                b"only-if-cached" => self.only_if_cached = true,
                b"stale-if-error" => permit(&mut self.stale_if_error, argument.seconds()),
                _ => {}
            }
        }
    }
}

impl Argument<'_> {
    fn seconds(&self) -> Option<u32> {
        match self {
            Self::Text(text) => delta_seconds(text),
            Self::Absent | Self::Malformed => None,
        }
    }

    fn lifetime(&self) -> u32 {
        self.seconds().unwrap_or(0)
    }
}

fn first(place: &mut Option<u32>, value: u32) {
    place.get_or_insert(value);
}

fn permit(place: &mut Option<u32>, value: Option<u32>) {
    if place.is_none() {
        *place = value;
    }
}

/// `name` in lower case; names longer than any known one are cut, and so are unknown.
fn lower<'a>(name: &[u8], buffer: &'a mut [u8; 24]) -> &'a [u8] {
    if name.len() > buffer.len() {
        return b"";
    }
    let (place, _) = buffer.split_at_mut(name.len());
    place.copy_from_slice(name);
    place.make_ascii_lowercase();
    place
}

/// The directives of one line, in order.
pub fn directives(line: &[u8]) -> impl Iterator<Item = (&[u8], Argument<'_>)> {
    members(line).map(|member| {
        let end = member.iter().position(|&byte| !troupe_wire::head::is_token(byte)).unwrap_or(member.len());
        let (name, rest) = member.split_at(end);
        let argument = match rest.split_first() {
            None => Argument::Absent,
            Some((b'=', text)) => argument(text),
            Some(_) => Argument::Malformed,
        };
        (name, argument)
    })
}

fn argument(text: &[u8]) -> Argument<'_> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        return match quoted.strip_suffix(b"\"").and_then(unescape) {
            Some(text) => Argument::Text(text),
            None => Argument::Malformed,
        };
    }
    if !text.is_empty() && text.iter().all(|&byte| troupe_wire::head::is_token(byte)) {
        Argument::Text(Cow::Borrowed(text))
    } else {
        Argument::Malformed
    }
}

/// The inside of a quoted string; `None` when a quote stands in it.
fn unescape(quoted: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !quoted.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
        return Some(Cow::Borrowed(quoted));
    }
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => text.push(*bytes.next()?),
            _ => text.push(byte),
        }
    }
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests;
