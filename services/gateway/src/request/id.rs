//! Request ids: 128 random bits in hex, or what a client sent, if it is sane.

use std::cell::RefCell;

/// Longest id that is kept: enough for every tracing system, short enough for every log line.
const MAX_ID: usize = 128;

/// A thread's source of ids. They have to be unique, not secret.
#[derive(Debug)]
pub(super) struct RequestIds(RefCell<fastrand::Rng>);

impl Default for RequestIds {
    fn default() -> Self {
        Self(RefCell::new(fastrand::Rng::new()))
    }
}

impl RequestIds {
    /// What a request's trace is worked out of.
    pub(super) fn random(&self) -> u64 {
        self.0.borrow_mut().u64(..)
    }

    pub(super) fn make(&self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bits = self.0.borrow_mut().u128(..);
        let mut id = [0; 32];
        for place in &mut id {
            *place = DIGITS[(bits & 15) as usize];
            bits >>= 4;
        }
        id
    }
}

/// Whether an id may go into logs and headers as it is.
pub(super) fn is_sane(id: &[u8]) -> bool {
    !id.is_empty()
        && id.len() <= MAX_ID
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte))
}
