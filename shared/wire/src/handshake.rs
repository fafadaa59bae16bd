//! How two processes meet: who they are, what they both speak, and that they know the same key.
//!
//! ```text
//! caller                            callee
//!   magic, HELLO            ──▶
//!                           ◀──     magic, HELLO
//!   PROOF                   ──▶
//!                           ◀──     PROOF
//! ```
//!
//! Either side may answer with a REFUSAL instead, which names the reason so that both logs say the same. Each message is
//! a `u32` length and postcard, at most [`MAX_MESSAGE`] bytes. The caller proves itself first, so the callee computes
//! nothing with its key for strangers. The proofs authenticate the connect and both HELLOs; they neither encrypt nor
//! sign what follows.

mod auth;
mod hello;

use bytes::{Buf, BufMut, BytesMut};
use serde::{Deserialize, Serialize};

pub use auth::{Key, KeyTooShort, Keys, MIN_KEY};
pub use hello::{ContractVersion, DisabledContract, Hello, NONCE_LEN, NoUid, PROTOCOL, PROTOCOL_OLDEST, Session, Uid};

use auth::{PROOF_LEN, Proof, Transcript};

/// What every link starts with, in both directions. The last byte is the era of the handshake itself.
pub const MAGIC: [u8; 8] = *b"troupe\r\x01";

/// Longest message of a handshake, without its length.
pub const MAX_MESSAGE: usize = 1024;

/// Longest reason of a refusal, in bytes.
const MAX_REFUSAL_TEXT: usize = 256;

/// Which side of the link this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The side that dialled.
    Caller,
    /// The side that listens.
    Callee,
}

/// A handshake message after the magic.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    Hello(Hello),
    Proof([u8; PROOF_LEN]),
    Refusal(Refusal),
}

/// Why a side wants no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalCode {
    /// The peer does not speak this protocol at all.
    Magic,
    /// No version of the protocol is known to both.
    Version,
    /// The peer does not know the key.
    Key,
    /// A message that is too long or does not decode.
    Malformed,
    /// This side takes no links now.
    Draining,
    /// This side holds as many links as it may.
    Busy,
}

impl RefusalCode {
    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Magic => "magic",
            Self::Version => "version",
            Self::Key => "key",
            Self::Malformed => "malformed",
            Self::Draining => "draining",
            Self::Busy => "busy",
        }
    }
}

/// A refusal as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub code: RefusalCode,
    /// The same in words, for the log.
    #[serde(deserialize_with = "crate::text::deserialize")]
    pub reason: String,
}

/// A handshake that ended without a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// This side refused; the output holds the message that tells the peer.
    #[error("refused the peer ({code}): {reason}", code = .0.code.as_str(), reason = .0.reason)]
    Refused(Refusal),
    /// The peer refused.
    #[error("refused by the peer ({code}): {reason}", code = .0.code.as_str(), reason = .0.reason)]
    RefusedByPeer(Refusal),
}

impl HandshakeError {
    /// The code, whoever refused.
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::Refused(refusal) | Self::RefusedByPeer(refusal) => refusal.code,
        }
    }
}

/// One side of a handshake, without the socket.
///
/// Send what [`Handshake::new`] and [`Handshake::advance`] append to `output`, and feed what comes.
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    local: Hello,
    local_bytes: Vec<u8>,
    keys: Keys,
    said_hello: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing of the peer was read yet.
    Preface,
    /// The magic was right; its HELLO comes.
    Hello,
    /// Both HELLOs are known; the peer's proof comes.
    Proof(Box<Session>, Transcript),
    /// Over, either way.
    Over,
}

impl Handshake {
    /// Starts a side. A caller's first message is appended to `output`; a callee waits for it.
    pub fn new(role: Role, local: Hello, keys: Keys, output: &mut BytesMut) -> Self {
        let mut handshake =
            Self { role, local, local_bytes: Vec::new(), keys, said_hello: false, state: State::Preface };
        handshake.local = handshake.local.bounded();
        let message = Message::Hello(handshake.local.clone());
        handshake.local_bytes = encode(&message);
        if role == Role::Caller {
            handshake.send_hello(output);
        }
        handshake
    }

    /// Takes what is complete of `input` and appends the answers to `output`. `None`: more is needed.
    ///
    /// Bytes after the last message stay in `input`: they are frames. `output` is to be sent also after an error.
    ///
    /// # Errors
    /// The refusal, by either side. The connection has to end.
    pub fn advance(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<Option<Session>, HandshakeError> {
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Preface => {
                    let known = input.len().min(MAGIC.len());
                    if input.get(..known) != MAGIC.get(..known) {
                        let reason = "expected the magic of a mesh link; another protocol speaks here";
                        return Err(self.refuse(RefusalCode::Magic, reason, output));
                    }
                    if known < MAGIC.len() {
                        self.state = State::Preface;
                        return Ok(None);
                    }
                    input.advance(MAGIC.len());
                    self.state = State::Hello;
                }
                State::Hello => {
                    let Some((message, bytes)) = self.read_message(input, output)? else {
                        self.state = State::Hello;
                        return Ok(None);
                    };
                    self.take_hello(message, &bytes, output)?;
                }
                State::Proof(session, transcript) => {
                    let Some((message, _)) = self.read_message(input, output)? else {
                        self.state = State::Proof(session, transcript);
                        return Ok(None);
                    };
                    self.take_proof(message, &transcript, output)?;
                    return Ok(Some(*session));
                }
                State::Over => {
                    let reason = "the handshake is over";
                    return Err(self.refuse(RefusalCode::Malformed, reason, output));
                }
            }
        }
    }

    /// Ends a handshake at any point with a reason of the owner's: draining, or too many links.
    pub fn refuse(&mut self, code: RefusalCode, reason: &str, output: &mut BytesMut) -> HandshakeError {
        let reason = crate::payload::cut_at_char(reason, MAX_REFUSAL_TEXT).to_owned();
        let refusal = Refusal { code, reason };
        if !self.said_hello {
            output.put_slice(&MAGIC);
        }
        put_message(output, &encode(&Message::Refusal(refusal.clone())));
        self.state = State::Over;
        HandshakeError::Refused(refusal)
    }

    fn send_hello(&mut self, output: &mut BytesMut) {
        output.put_slice(&MAGIC);
        put_message(output, &self.local_bytes);
        self.said_hello = true;
    }

    fn take_hello(&mut self, message: Message, bytes: &[u8], output: &mut BytesMut) -> Result<(), HandshakeError> {
        let remote = match message {
            Message::Hello(hello) => hello,
            Message::Refusal(refusal) => return Err(HandshakeError::RefusedByPeer(refusal)),
            Message::Proof(_) => {
                return Err(self.refuse(RefusalCode::Malformed, "proof before hello", output));
            }
        };
        let session = match Session::negotiate(&self.local, remote) {
            Ok(session) => session,
            Err(reason) => return Err(self.refuse(RefusalCode::Version, &reason, output)),
        };
        let transcript = match self.role {
            Role::Caller => Transcript::new(&self.local_bytes, bytes),
            Role::Callee => Transcript::new(bytes, &self.local_bytes),
        };
        match self.role {
            Role::Caller => {
                let proof = transcript.proof(self.keys.first(), Role::Caller);
                put_message(output, &encode(&Message::Proof(proof.bytes())));
            }
            Role::Callee => self.send_hello(output),
        }
        self.state = State::Proof(Box::new(session), transcript);
        Ok(())
    }

    fn take_proof(
        &mut self,
        message: Message,
        transcript: &Transcript,
        output: &mut BytesMut,
    ) -> Result<(), HandshakeError> {
        let proof = match message {
            Message::Proof(bytes) => Proof::from_bytes(bytes),
            Message::Refusal(refusal) => return Err(HandshakeError::RefusedByPeer(refusal)),
            Message::Hello(_) => {
                return Err(self.refuse(RefusalCode::Malformed, "second hello", output));
            }
        };
        let peer = match self.role {
            Role::Caller => Role::Callee,
            Role::Callee => Role::Caller,
        };
        let Some(key) = self.keys.matching(transcript, peer, &proof).cloned() else {
            let reason = "the two sides do not hold the same mesh key; compare mesh.key_file on both";
            return Err(self.refuse(RefusalCode::Key, reason, output));
        };
        if self.role == Role::Callee {
            let proof = transcript.proof(&key, Role::Callee);
            put_message(output, &encode(&Message::Proof(proof.bytes())));
        }
        Ok(())
    }

    fn read_message(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<Option<(Message, BytesMut)>, HandshakeError> {
        let Some(length) = input.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(self.refuse(RefusalCode::Malformed, "message longer than 1 KiB", output));
        }
        if input.len() < 4 + length {
            return Ok(None);
        }
        input.advance(4);
        let bytes = input.split_to(length);
        match postcard::from_bytes::<Message>(&bytes) {
            Ok(message) => Ok(Some((message, bytes))),
            Err(_) => Err(self.refuse(RefusalCode::Malformed, "message does not decode", output)),
        }
    }
}

fn encode(message: &Message) -> Vec<u8> {
    // Postcard into a vector fails only on sequences of unknown length, which no message has.
    postcard::to_stdvec(message).unwrap_or_default()
}

fn put_message(output: &mut BytesMut, bytes: &[u8]) {
    debug_assert!(bytes.len() <= MAX_MESSAGE);
    output.put_u32_le(u32::try_from(bytes.len()).unwrap_or(0));
    output.put_slice(bytes);
}

#[cfg(test)]
mod tests;
