//! Who a side is and what it can do.

use serde::{Deserialize, Serialize};

use crate::credit::{LINK_WINDOW, STREAM_WINDOW};
use crate::frame::MAX_OPENING_PAYLOAD;
use crate::stream_id::MAX_STREAMS;

/// The version of the frame protocol that this code speaks. With the feature `next-protocol`, for tests alone, it is the one
/// after that, so that instances of two versions can stand side by side before there are two.
pub const PROTOCOL: u16 = if cfg!(feature = "next-protocol") { 2 } else { 1 };

/// The oldest version that it still speaks: one before, once there is one.
pub const PROTOCOL_OLDEST: u16 = 1;

/// Bytes of a nonce; as many as the proofs have.
pub const NONCE_LEN: usize = 32;

/// Longest name (service, instance, build) in a HELLO, in bytes; longer ones are cut.
const MAX_NAME: usize = 64;

/// Most contracts in a HELLO. With the longest encodings of everything else it stays below 1 KiB.
const MAX_CONTRACTS: usize = 64;

/// The identity of one process start: a restarted instance is another one, whatever its address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Uid(pub [u8; 16]);

/// 32 digits of hex.
impl std::fmt::Display for Uid {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A text that is no uid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a uid is 32 digits of hex, in lower case")]
pub struct NoUid;

/// What [`Uid`]'s `Display` writes, and nothing else: no sign, no capitals.
impl std::str::FromStr for Uid {
    type Err = NoUid;

    fn from_str(text: &str) -> Result<Self, NoUid> {
        let lower = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if text.len() != 32 || !lower {
            return Err(NoUid);
        }
        u128::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| NoUid)
    }
}

impl std::fmt::Debug for Uid {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, out)
    }
}

/// A contract and the version of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContractVersion {
    /// The contract's number.
    pub id: u16,
    /// The version of its encoding.
    pub version: u16,
}

/// What a side says about itself.
///
/// The encoding is positional: later versions append fields only, and readers ignore what follows the fields they know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version this side speaks.
    pub protocol_min: u16,
    /// The newest.
    pub protocol_max: u16,
    /// This start of this process.
    pub uid: Uid,
    /// The service: `gateway`, `balancer`, ...
    #[serde(deserialize_with = "crate::text::deserialize")]
    pub service: String,
    /// The instance's name, as operators know it.
    #[serde(deserialize_with = "crate::text::deserialize")]
    pub instance: String,
    /// The build that runs.
    #[serde(deserialize_with = "crate::text::deserialize")]
    pub build: String,
    /// Threads that own links: a callee wants a link to each of them.
    pub threads: u16,
    /// A callee's contracts: what it serves. A caller's: what it calls.
    pub contracts: Vec<ContractVersion>,
    /// Longest payload this side takes.
    pub max_frame: u32,
    /// Window of each stream towards this side.
    pub stream_window: u32,
    /// Window of the link towards this side.
    pub link_window: u32,
    /// Calls this side serves at once on one link.
    pub max_in_flight: u32,
    /// Optional abilities; none is defined yet.
    pub features: u32,
    /// Random, never used twice.
    pub nonce: [u8; NONCE_LEN],
}

impl Hello {
    /// A HELLO of this build's protocol with the windows of [`crate::credit`].
    pub fn new(uid: Uid, service: &str, instance: &str, nonce: [u8; NONCE_LEN]) -> Self {
        Self {
            protocol_min: PROTOCOL_OLDEST,
            protocol_max: PROTOCOL,
            uid,
            service: service.to_owned(),
            instance: instance.to_owned(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            threads: 1,
            contracts: Vec::new(),
            max_frame: u32::try_from(MAX_OPENING_PAYLOAD).unwrap_or(u32::MAX),
            stream_window: STREAM_WINDOW,
            link_window: LINK_WINDOW,
            max_in_flight: MAX_STREAMS,
            features: 0,
            nonce,
        }
    }

    /// The same within the bounds of a message.
    pub(super) fn bounded(&self) -> Self {
        let mut hello = self.clone();
        for name in [&mut hello.service, &mut hello.instance, &mut hello.build] {
            *name = crate::payload::cut_at_char(name, MAX_NAME).to_owned();
        }
        hello.contracts.truncate(MAX_CONTRACTS);
        hello
    }
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The protocol version that both use.
    pub protocol: u16,
    /// The peer.
    pub peer: Hello,
    /// The contracts that both know in the same version.
    pub contracts: Vec<u16>,
    /// The contracts that both know in different versions: disabled, the link serves the others.
    pub disabled: Vec<DisabledContract>,
}

/// A contract whose versions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisabledContract {
    /// The contract's number.
    pub id: u16,
    /// This side's version.
    pub local: u16,
    /// The peer's version.
    pub peer: u16,
}

impl Session {
    /// Both sides compute the same from the same two HELLOs. The error is the reason for a refusal.
    pub(super) fn negotiate(local: &Hello, peer: Hello) -> Result<Self, String> {
        let protocol = local.protocol_max.min(peer.protocol_max);
        if protocol < local.protocol_min.max(peer.protocol_min) {
            return Err(format!(
                "this side speaks protocol {} to {}, the peer {} to {}; upgrade the older one",
                local.protocol_min, local.protocol_max, peer.protocol_min, peer.protocol_max
            ));
        }
        let mut contracts = Vec::new();
        let mut disabled = Vec::new();
        for ours in &local.contracts {
            let Some(theirs) = peer.contracts.iter().find(|theirs| theirs.id == ours.id) else {
                continue;
            };
            if theirs.version == ours.version {
                contracts.push(ours.id);
            } else {
                disabled.push(DisabledContract { id: ours.id, local: ours.version, peer: theirs.version });
            }
        }
        Ok(Self { protocol, peer, contracts, disabled })
    }
}
