//! How loaded a php-pool instance is, pool by pool.

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{BadHead, Contract};

use crate::envelope;

/// Asks an instance which pools it has and how loaded they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report;

/// An instance's answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InstanceReport {
    /// The pools it serves.
    pub pools: Vec<PoolReport>,
}

/// One pool of an instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolReport {
    /// The pool's name.
    pub pool: String,
    /// Its load.
    pub load: Load,
}

/// The load of one pool of one instance. It rides on every reply too, and corrects what one of several balancers sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Calls that may run at once: the most processes the pool may have.
    pub slots: u32,
    /// Calls the pool takes beyond `slots`, to wait in the pipe of a busy process; 0 unless its functions are fast.
    pub prefetch: u32,
    /// Calls inside the pool now.
    pub in_flight: u32,
    /// Of these, calls that wait for a process.
    pub waiting: u32,
    /// PHP processes that are up.
    pub processes: u32,
    /// Of these, those that work on a call.
    pub busy: u32,
    /// Resident memory of the fullest process, as a share of its hard limit, in thousandths.
    pub memory_permille: u16,
    /// Processes that failed since the pool started, and were replaced: not those that were idle, old or stopped.
    pub restarts: u32,
    /// The instance is about to stop: no new calls.
    pub draining: bool,
}

impl Contract for Report {
    type Reply = InstanceReport;

    const ID: u16 = 2;
    const VERSION: u16 = 1;
    const NAME: &'static str = "report";

    fn encode_head(&self, _: &mut BytesMut) {}

    fn into_body(self) -> Body {
        Body::Empty
    }

    fn decode(head: Bytes, _: Body) -> Result<Self, BadHead> {
        if head.is_empty() { Ok(Self) } else { Err(bad("bytes where none belong")) }
    }

    fn encode_reply_head(reply: &InstanceReport, out: &mut BytesMut) {
        envelope::put(reply, &[], out);
    }

    fn reply_into_body(_: InstanceReport) -> Body {
        Body::Empty
    }

    fn decode_reply(head: Bytes, _: Body) -> Result<InstanceReport, BadHead> {
        let (meta, _) = envelope::split(&head).ok_or(bad("cut short"))?;
        envelope::read(meta).ok_or(bad("not a report"))
    }
}

fn bad(why: &'static str) -> BadHead {
    BadHead { contract: Report::NAME, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_wire() {
        let load = Load { slots: 4, busy: 2, memory_permille: 310, ..Load::default() };
        let report = InstanceReport { pools: vec![PoolReport { pool: "default".into(), load }] };
        let mut out = BytesMut::new();
        Report::encode_reply_head(&report, &mut out);
        assert_eq!(Report::decode_reply(out.freeze(), Body::Empty).unwrap(), report);
        assert!(Report::decode_reply(Bytes::from_static(b"\xff\xffx"), Body::Empty).is_err());
    }
}
