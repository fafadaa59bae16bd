//! The head that actix is given in the place of the client's: the same framing, and nothing else.
//!
//! It is never longer than what it replaces, because each of its parts stands in the client's head too, so it is
//! written over it in place.

use super::Facts;

/// Room for the longest skeleton.
const MAX_LEN: usize = 192;

/// A head for actix's parser.
#[derive(Debug)]
pub(in crate::server) struct Skeleton {
    bytes: [u8; MAX_LEN],
    len: usize,
}

/// The head that stands for a request that was refused: the connection closes behind its answer.
pub(in crate::server) fn refusal() -> &'static [u8] {
    b"GET / HTTP/1.0\r\n\r\n"
}

impl Skeleton {
    /// The skeleton of a head. `expect`: whether the client is to be told to go on with its body.
    pub(in crate::server) fn new(method: &[u8], facts: &Facts, expect: bool) -> Self {
        let mut skeleton = Self { bytes: [0; MAX_LEN], len: 0 };
        skeleton.put(match method {
            b"HEAD" => b"HEAD",
            short if short.len() < 3 => short,
            _ => b"GET",
        });
        skeleton.put(if facts.version_11 { b" / HTTP/1.1\r\nHost:a\r\n" } else { b" / HTTP/1.0\r\n" });
        if facts.close {
            skeleton.put(b"Connection:close\r\n");
        } else if facts.keep_alive && !facts.version_11 {
            skeleton.put(b"Connection:keep-alive\r\n");
        }
        if facts.chunked {
            skeleton.put(b"Transfer-Encoding:chunked\r\n");
        } else if let Some(length) = facts.length.filter(|&length| length > 0) {
            skeleton.put(b"Content-Length:");
            skeleton.put_number(length);
            skeleton.put(b"\r\n");
        }
        if expect && facts.expect && facts.version_11 {
            skeleton.put(b"Expect:100-continue\r\n");
        }
        skeleton.put(b"\r\n");
        skeleton
    }

    pub(in crate::server) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn put(&mut self, part: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + part.len()) {
            place.copy_from_slice(part);
            self.len += part.len();
        }
    }

    fn put_number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        while let Some(place) = at.checked_sub(1).and_then(|at| digits.get_mut(at)) {
            *place = b'0' + (number % 10) as u8;
            at -= 1;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.put(digits.get(at..).unwrap_or_default());
    }
}
