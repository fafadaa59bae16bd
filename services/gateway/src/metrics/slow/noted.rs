//! Where the time of a request goes, as it is noted while the request is under way.

use std::time::Instant;

use troupe_contracts::invoke::Times;
use troupe_mesh::failure::{Failure, Stage};

use super::Stages;

/// Moments as the clock gave them. What they mean in microseconds is worked out for whoever asks, and of most requests nobody does.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Noted {
    /// There was no call.
    #[default]
    Nothing,
    /// A call past the cache.
    Call {
        /// What the services behind the gateway said.
        times: Times,
        /// When it was made.
        since: Instant,
        /// When its reply's head, or its failure, was here.
        until: Instant,
        /// The stage that failed.
        failed: Option<Stage>,
    },
    /// What the cache answered, or had fetched.
    Cache(Stages),
}

impl Noted {
    /// A call made at `since` that is over now.
    pub(crate) fn call(times: Times, failure: Option<&Failure>, since: Instant) -> Self {
        Self::Call { times, since, until: Instant::now(), failed: failure.map(|failure| failure.stage) }
    }

    /// What it says of a request whose head was complete at `received`.
    pub(crate) fn stages(&self, received: Instant) -> Stages {
        match *self {
            Self::Nothing => Stages::default(),
            Self::Cache(stages) => stages,
            Self::Call { times, since, until, failed } => {
                let call = until.saturating_duration_since(since);
                Stages::of(times, failed, call).begun(since.saturating_duration_since(received))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_call_is_as_long_as_it_was_and_begins_when_it_began() {
        let us = Duration::from_micros;
        let received = Instant::now();
        let (since, until) = (received + us(50), received + us(1_050));
        let times = Times { balancer_us: 900, pool_us: 500, ..Times::default() };
        let noted = Noted::Call { times, since, until, failed: Some(Stage::Php) };
        let stages = noted.stages(received);
        assert_eq!(stages, Stages::of(times, Some(Stage::Php), us(1_000)).begun(us(50)));
        assert_eq!(stages.list(us(1_200))[0].us, 200, "the gateway's own time, before it and after");
        assert_eq!(Noted::Nothing.stages(received), Stages::default());
        let hit = Stages::hit(us(7));
        assert_eq!(Noted::Cache(hit).stages(received), hit);
    }

    #[test]
    fn a_call_ends_when_it_is_noted_and_names_the_stage_that_failed() {
        let since = Instant::now();
        let failure = Failure::deadline(Stage::Queue);
        let Noted::Call { until, failed, .. } = Noted::call(Times::default(), Some(&failure), since) else {
            panic!("a call was noted as something else");
        };
        assert!(until >= since && failed == Some(Stage::Queue));
    }
}
