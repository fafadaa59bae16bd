//! How a call can end without a reply.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::times::Times;

/// The closed set of ways in which a call fails. New kinds are added with care: every service matches on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// No instance of the callee could be reached in time.
    Unreachable,
    /// The callee, or a queue before it, is full; nothing was started.
    Overloaded,
    /// The call's budget was spent.
    Deadline,
    /// The caller gave up.
    Cancelled,
    /// The callee does not speak the contract, or not this version.
    Incompatible,
    /// The callee understood the call and declined it; `status` says how.
    Refused,
    /// The callee died or broke the protocol while the call was with it.
    Broken,
    /// The callee failed in a way that is its own fault.
    Internal,
}

impl Outcome {
    /// The name in metrics, logs and problem documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Unreachable => "unreachable",
            Outcome::Overloaded => "overloaded",
            Outcome::Deadline => "deadline",
            Outcome::Cancelled => "cancelled",
            Outcome::Incompatible => "incompatible",
            Outcome::Refused => "refused",
            Outcome::Broken => "broken",
            Outcome::Internal => "internal",
        }
    }
}

/// Where in the path of a call it failed, or which stage spent its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The HTTP front.
    Gateway,
    /// The way to another process.
    Link,
    /// The choice of a worker.
    Balancer,
    /// The pool's queue in the balancer.
    Queue,
    /// Waiting for a PHP process.
    PhpPool,
    /// The PHP code itself.
    Php,
    /// An upstream HTTP server.
    Upstream,
    /// The metrics service.
    Metrics,
    /// The cache service.
    Cache,
}

impl Stage {
    /// The name in metrics, logs and problem documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Gateway => "gateway",
            Stage::Link => "link",
            Stage::Balancer => "balancer",
            Stage::Queue => "queue",
            Stage::PhpPool => "php-pool",
            Stage::Php => "php",
            Stage::Upstream => "upstream",
            Stage::Metrics => "metrics",
            Stage::Cache => "cache",
        }
    }
}

/// What is known about whether the callee began to work on the call. Only `No` allows a retry of any call; `Maybe`
/// allows one of an idempotent call; `Yes` allows none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Started {
    /// Proven not to have started.
    No,
    /// It may have.
    Maybe,
    /// It has: bytes of its answer were seen.
    Yes,
}

/// A call's end without a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{} at {}: {reason}", outcome.as_str(), stage.as_str())]
pub struct Failure {
    /// What happened.
    pub outcome: Outcome,
    /// Where.
    pub stage: Stage,
    /// Whether the callee may have begun.
    pub started: Started,
    /// The HTTP status a refusal asks for.
    pub status: Option<u16>,
    /// What the client may read: no names of hosts, files or code.
    pub reason: Cow<'static, str>,
    /// What only logs (and clients in development) may show.
    pub detail: Option<Box<str>>,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
    /// Where its time went, as far as those who had the call know. A link carries them behind the rest, so that a peer that does
    /// not know of them yet reads the rest.
    #[serde(skip)]
    pub times: Times,
}

impl Failure {
    /// A failure of a call that may have started.
    pub fn new(outcome: Outcome, stage: Stage, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            outcome,
            stage,
            started: Started::Maybe,
            status: None,
            reason: reason.into(),
            detail: None,
            retry_after: None,
            times: Times::default(),
        }
    }

    /// The call's budget was spent at `stage`.
    pub fn deadline(stage: Stage) -> Self {
        Self::new(Outcome::Deadline, stage, "the request's time was spent")
    }

    /// Full; to be tried again after `retry_after`.
    pub fn overloaded(stage: Stage, reason: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Outcome::Overloaded, stage, reason).not_started() }
    }

    /// Out of something that is no place for a call, so that waiting for a place does not help: the status says that this
    /// is the client's answer. A peer that does not know the difference takes it for full.
    pub fn exhausted(stage: Stage, reason: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        Self { status: Some(503), ..Self::overloaded(stage, reason, retry_after) }
    }

    /// Declined with an HTTP status.
    pub fn refused(stage: Stage, status: u16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Some(status), ..Self::new(Outcome::Refused, stage, reason).not_started() }
    }

    /// Whether the callee had no place for the call, which it has for another one as soon as one of its own ends. A call that
    /// may have started had a place.
    pub fn lacks_place(&self) -> bool {
        self.outcome == Outcome::Overloaded && self.started == Started::No && self.status.is_none()
    }

    /// The same failure, with proof that the call did not start.
    #[must_use]
    pub fn not_started(mut self) -> Self {
        self.started = Started::No;
        self
    }

    /// The same failure of a call that is known to have been worked on: it is not repeated.
    #[must_use]
    pub fn answered(mut self) -> Self {
        self.started = Started::Yes;
        self
    }

    /// The same failure with where its time went.
    #[must_use]
    pub fn after(mut self, times: Times) -> Self {
        self.times = times;
        self
    }

    /// The same failure with text for the log.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// As a link carries it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Postcard into a vector fails only on sequences of unknown length, which a failure has not.
        let failure = postcard::to_stdvec(self).unwrap_or_default();
        postcard::to_extend(&self.times, failure).unwrap_or_default()
    }

    /// From what a link carried. Times that are not there, or cannot be read, are none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let (failure, times) = postcard::take_from_bytes::<Self>(bytes)?;
        Ok(failure.after(postcard::from_bytes(times).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_is_told_from_out_of_something_else_across_a_link() {
        let full = Failure::overloaded(Stage::PhpPool, "full", Duration::from_secs(1));
        let exhausted = Failure::exhausted(Stage::PhpPool, "no room", Duration::from_secs(1));
        let had_a_place = Failure::new(Outcome::Overloaded, Stage::PhpPool, "too many streams");
        for (failure, lacks) in [(full, true), (exhausted, false), (had_a_place, false)] {
            assert_eq!(Failure::decode(&failure.encode()).unwrap().lacks_place(), lacks, "{failure}");
        }
    }

    #[test]
    fn times_travel_behind_the_rest_and_a_peer_that_knows_none_is_understood() {
        let times = Times { balancer_us: 7, queue_us: u32::MAX, ..Times::default() };
        let failure =
            Failure::overloaded(Stage::Queue, "full", Duration::from_secs(1)).with_detail("10 wait").after(times);
        assert_eq!(Failure::decode(&failure.encode()).unwrap(), failure);
        let old = postcard::to_stdvec(&failure).unwrap();
        assert_eq!(Failure::decode(&old).unwrap(), failure.clone().after(Times::default()));
        assert_eq!(postcard::from_bytes::<Failure>(&failure.encode()).unwrap().reason, "full", "and the other way");
        assert!(Failure::decode(&old[..3]).is_err());
    }
}
