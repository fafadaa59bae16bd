//! The pre-shared key and the proofs that a side knows it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::Role;

/// Bytes of a proof.
pub(super) const PROOF_LEN: usize = 32;

/// Shortest key that protects anything: as many bytes as the proofs have.
pub const MIN_KEY: usize = 32;

/// A pre-shared key.
#[derive(Clone)]
pub struct Key(Box<[u8]>);

impl Key {
    /// A key of at least [`MIN_KEY`] bytes.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyTooShort> {
        if bytes.len() < MIN_KEY {
            return Err(KeyTooShort { length: bytes.len() });
        }
        Ok(Self(bytes.into()))
    }
}

/// Says only that there is a key.
impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Key(..)")
    }
}

/// A key that protects nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the mesh key has {length} bytes and needs {MIN_KEY} or more; `head -c 48 /dev/urandom | base64` makes one")]
pub struct KeyTooShort {
    /// Its length in bytes.
    pub length: usize,
}

/// The keys of a side: the first is used, both are accepted.
///
/// A key is rotated in three restarts of every instance, in any order: accept `[old, new]`, use `[new, old]`, keep
/// `[new]`. Without a key both sides use a well-known one: fit for the loopback interface only.
#[derive(Clone, Debug)]
pub struct Keys {
    first: Key,
    second: Option<Key>,
}

impl Keys {
    /// No secret: whoever reaches the listener is let in.
    pub fn none() -> Self {
        Self { first: Key(b"no mesh key is configured".as_slice().into()), second: None }
    }

    /// One key, and possibly another that is accepted too.
    pub fn new(first: Key, second: Option<Key>) -> Self {
        Self { first, second }
    }

    pub(super) fn first(&self) -> &Key {
        &self.first
    }

    /// The key that the peer's proof was made with. Both are always tried, in constant time.
    pub(super) fn matching(&self, transcript: &Transcript, peer: Role, proof: &Proof) -> Option<&Key> {
        let first = transcript.proof(&self.first, peer).matches(proof);
        let second = self.second.as_ref().filter(|key| transcript.proof(key, peer).matches(proof));
        if first { Some(&self.first) } else { second }
    }
}

/// All that a proof is about: both HELLOs, each with its nonce in it, the caller's first.
pub(super) struct Transcript {
    caller_hello: Box<[u8]>,
    callee_hello: Box<[u8]>,
}

impl std::fmt::Debug for Transcript {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Transcript(..)")
    }
}

impl Transcript {
    pub(super) fn new(caller_hello: &[u8], callee_hello: &[u8]) -> Self {
        Self { caller_hello: caller_hello.into(), callee_hello: callee_hello.into() }
    }

    /// The proof of the side in `role`. Its label keeps one side's proof from being played back as the other's.
    pub(super) fn proof(&self, key: &Key, role: Role) -> Proof {
        let label: &[u8] = match role {
            Role::Caller => b"troupe mesh 1 caller",
            Role::Callee => b"troupe mesh 1 callee",
        };
        // HMAC takes keys of any length; the empty result would match nothing that a peer can send.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key.0) else {
            return Proof { bytes: [0; PROOF_LEN], usable: false };
        };
        for part in [label, &self.caller_hello, &self.callee_hello] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        Proof { bytes: mac.finalize().into_bytes().into(), usable: true }
    }
}

/// Proof that a side knows a key.
pub(super) struct Proof {
    bytes: [u8; PROOF_LEN],
    usable: bool,
}

impl Proof {
    pub(super) fn from_bytes(bytes: [u8; PROOF_LEN]) -> Self {
        Self { bytes, usable: true }
    }

    pub(super) fn bytes(&self) -> [u8; PROOF_LEN] {
        self.bytes
    }

    fn matches(&self, other: &Self) -> bool {
        self.usable && bool::from(self.bytes.ct_eq(&other.bytes))
    }
}
