//! Which worker a balancer would pick for a call, and why; nothing is called.

use serde::{Deserialize, Serialize};

use crate::bodiless::bodiless;

/// The most workers that an answer lists, the best first: with the longest names there are, they fit into a head.
pub const MAX_CANDIDATES: usize = 50;

/// Asks whom the next call of a pool would go to, by the numbers of this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// The pool.
    pub pool: String,
}

/// Whom it would go to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Surveyed {
    /// The instance that answers, where services run apart; others may see it differently.
    pub balancer: String,
    /// The worker's full name; empty where the call would go to none now.
    pub worker: String,
    /// Why, in words.
    pub why: String,
    /// Workers that it could go to, the best first, [`MAX_CANDIDATES`] at most.
    pub candidates: Vec<Candidate>,
    /// How many there are beyond those.
    pub more: u32,
}

/// A worker that takes calls, with what it is chosen by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its full name.
    pub worker: String,
    /// 1 / cost, cost in seconds; higher is better.
    pub score: f32,
    /// Calls that are with it.
    pub in_flight: u32,
    /// Calls that may be with it.
    pub cap: u32,
    /// What its calls take, in microseconds; 0 while unknown.
    pub latency_us: f32,
    /// Weight × slow start.
    pub gain: f32,
}

bodiless!(Survey => Surveyed, id: 3, version: 1, name: "survey");

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use troupe_mesh::body::Body;
    use troupe_mesh::contract::Contract as _;

    use super::*;

    #[test]
    fn a_question_and_the_longest_answer_survive_the_wire() {
        let survey = Survey { pool: "default".into() };
        let mut out = BytesMut::new();
        survey.encode_head(&mut out);
        assert_eq!(Survey::decode(out.freeze(), Body::Empty).unwrap(), survey);
        // A pool's name and an instance's are 255 bytes at most, as a host's is.
        let worker = "w".repeat(2 * 255 + 1);
        let candidate =
            Candidate { worker: worker.clone(), score: 812.4, in_flight: 3, cap: 16, latency_us: 1.5, gain: 0.5 };
        let candidates = vec![candidate; MAX_CANDIDATES];
        let answer = Surveyed { balancer: "b@1".into(), worker, why: "it is the best".into(), candidates, more: 950 };
        let mut out = BytesMut::new();
        Survey::encode_reply_head(&answer, &mut out);
        assert!(out.len() < 32 * 1024, "{}", out.len());
        assert_eq!(Survey::decode_reply(out.freeze(), Body::Empty).unwrap(), answer);
        assert!(Survey::decode(Bytes::from_static(b"\xff\xffx"), Body::Empty).is_err());
    }
}
