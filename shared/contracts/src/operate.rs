//! What an operator asks of a php-pool instance, passed on by a balancer.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{BadHead, Contract};

use crate::envelope;

/// Asks an instance to renew a pool. It answers when new calls go to new processes only, or when it has given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operate {
    /// The pool.
    pub pool: String,
    /// What is to be done with it.
    pub action: Action,
}

/// What may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Replace the PHP processes, one after another.
    Restart,
    /// Load the code anew, verify it, and replace the processes.
    Reload,
}

/// What came of it. What cannot be done is no failure of the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operated {
    /// Whether it was done.
    pub done: bool,
    /// Why not.
    pub reason: String,
    /// Processes that were replaced.
    pub replaced: u32,
    /// Functions of the code that serves now.
    pub functions: u32,
}

impl Contract for Operate {
    type Reply = Operated;

    const ID: u16 = 16;
    const VERSION: u16 = 1;
    const NAME: &'static str = "operate";

    fn encode_head(&self, out: &mut BytesMut) {
        envelope::put(self, &[], out);
    }

    fn into_body(self) -> Body {
        Body::Empty
    }

    fn decode(head: Bytes, _: Body) -> Result<Self, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        envelope::read(meta).ok_or(bad("not an order"))
    }

    fn encode_reply_head(reply: &Operated, out: &mut BytesMut) {
        envelope::put(reply, &[], out);
    }

    fn reply_into_body(_: Operated) -> Body {
        Body::Empty
    }

    fn decode_reply(head: Bytes, _: Body) -> Result<Operated, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        envelope::read(meta).ok_or(bad("not an answer to an order"))
    }
}

fn bad(why: &'static str) -> BadHead {
    BadHead { contract: Operate::NAME, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_and_its_answer_survive_the_wire() {
        let order = Operate { pool: "default".into(), action: Action::Reload };
        let mut out = BytesMut::new();
        order.encode_head(&mut out);
        assert_eq!(Operate::decode(out.freeze(), Body::Empty).unwrap(), order);
        let answer = Operated { done: false, reason: "a.php:3: syntax error".into(), replaced: 0, functions: 7 };
        let mut out = BytesMut::new();
        Operate::encode_reply_head(&answer, &mut out);
        assert_eq!(Operate::decode_reply(out.freeze(), Body::Empty).unwrap(), answer);
        assert!(Operate::decode(Bytes::from_static(b"\xff\xffx"), Body::Empty).is_err());
    }
}
