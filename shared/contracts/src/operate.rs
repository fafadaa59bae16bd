//! What an operator asks of a php-pool instance, passed on by a balancer.

use serde::{Deserialize, Serialize};

use crate::bodiless::bodiless;

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

bodiless!(Operate => Operated, id: 16, version: 1, name: "operate");

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use troupe_mesh::body::Body;
    use troupe_mesh::contract::Contract as _;

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
