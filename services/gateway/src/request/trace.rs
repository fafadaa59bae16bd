//! The trace that a request belongs to: its client's, or one that begins here (W3C Trace Context).
//!
//! Nobody ever looks at most requests' ids. So a request carries a random number, and whoever needs an id works it out of
//! that: it is the same whoever asks, and costs a request of which nothing is told a few instructions.

use troupe_node::units::Percent;
use troupe_wire::trace::TraceContext;

/// The flag that says that the trace is recorded.
const SAMPLED: u8 = 0x01;
/// Flags that are kept of a client's trace: sampled, and (level 2) that its id is random. Others mean nothing yet, and are not
/// passed on.
const KEPT: u8 = 0x03;

/// What the ids of one request are worked out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trace {
    parent: Option<TraceContext>,
    /// Random but for its last bit: whether the trace is sampled, if it begins here.
    seed: u64,
}

/// How many of the traces that begin here are sampled; by default none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sampling {
    /// The largest of the random numbers whose trace is.
    below: u64,
}

impl From<Percent> for Sampling {
    fn from(share: Percent) -> Self {
        let below = u128::from(u64::MAX) * u128::from(share.get().min(100)) / 100;
        Self { below: u64::try_from(below).unwrap_or(u64::MAX) }
    }
}

impl Trace {
    /// The client's trace goes on, or one begins.
    pub(crate) fn new(parent: Option<TraceContext>, random: u64, sampling: Sampling) -> Self {
        Self { parent, seed: (random & !1) | u64::from(random < sampling.below) }
    }

    /// The client's span, where it named one.
    pub(crate) fn parent(&self) -> Option<&TraceContext> {
        self.parent.as_ref()
    }

    /// What those behind the gateway are told: the trace, with the gateway's own span as the parent of theirs.
    pub(crate) fn context(&self) -> TraceContext {
        let span_id = self.span(0);
        match &self.parent {
            Some(parent) => TraceContext { flags: parent.flags & KEPT, ..parent.child(span_id) },
            None => {
                let mut trace_id = [0; 16];
                let (high, low) = trace_id.split_at_mut(8);
                high.copy_from_slice(&self.number(0));
                low.copy_from_slice(&self.number(1));
                TraceContext { trace_id, span_id, flags: if self.seed & 1 == 1 { SAMPLED } else { 0 } }
            }
        }
    }

    /// The trace's id, 32 hex digits.
    pub(crate) fn id_text(&self) -> String {
        self.context().id_text()
    }

    /// The id of one of the request's spans; 0 is the request's own.
    pub(crate) fn span(&self, number: u8) -> [u8; 8] {
        self.number(2 + u64::from(number))
    }

    /// One of the numbers that the seed stands for, never 0 (SplitMix64).
    fn number(&self, number: u64) -> [u8; 8] {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.seed.wrapping_add(STEP.wrapping_mul(number + 1));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_trace_goes_on_with_another_span() {
        let parent =
            TraceContext::parse_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-07").unwrap();
        let none = Sampling::default();
        let trace = Trace::new(Some(parent), 7, none);
        let inward = trace.context();
        assert_eq!((inward.trace_id, inward.flags), (parent.trace_id, 3), "what no flag means yet is not passed on");
        assert_ne!(inward.span_id, parent.span_id);
        assert_eq!(inward, trace.context(), "whoever asks");
        let unsampled = TraceContext { flags: 0, ..parent };
        assert!(!Trace::new(Some(unsampled), 7, Percent::new(100).into()).context().sampled());
    }

    #[test]
    fn a_trace_that_begins_here_has_ids_of_its_own() {
        let ids = |seed| {
            let context = Trace::new(None, seed, Sampling::default()).context();
            assert_eq!(TraceContext::parse_traceparent(context.to_string().as_bytes()), Some(context));
            (context.trace_id, context.span_id)
        };
        let all: std::collections::HashSet<_> = (0..1_000).map(|number| ids(number * 2)).collect();
        assert_eq!(all.len(), 1_000);
        let trace = Trace::new(None, 0, Sampling::default());
        let spans: std::collections::HashSet<_> = (0..=u8::MAX).map(|number| trace.span(number)).collect();
        assert_eq!(spans.len(), 256);
    }

    #[test]
    fn as_many_are_sampled_as_are_wanted() {
        let mut random = fastrand::Rng::with_seed(1);
        for (percent, between) in [(0, 0..=0), (25, 2_300..=2_700), (100, 10_000..=10_000), (1_000, 10_000..=10_000)] {
            let sampling = Sampling::from(Percent::new(percent));
            let sampled = |_: &u32| Trace::new(None, random.u64(..), sampling).context().sampled();
            let count = (0..10_000_u32).filter(sampled).count();
            assert!(between.contains(&count), "{percent}%: {count}");
        }
    }
}
