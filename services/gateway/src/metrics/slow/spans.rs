//! A request's stages as spans: when each began, how long it took with all that it waited for, and which one it is a part of.

use std::time::Duration;

use serde::Serialize;
use troupe_contracts::invoke::Times;
use troupe_mesh::times::micros;
use troupe_wire::trace::span_text;

use super::{Stages, Tiers};
use crate::request::Trace;

/// One stage of a request, as tools that show traces know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The stage's name.
    pub name: &'static str,
    /// The span's id. That of the first, which is the whole request, is what PHP and upstream servers get as their parent.
    pub span_id: String,
    /// The id of the span that it is a part of; of the first the client's, where that named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// When it began, in microseconds since the request's head was complete.
    pub start_us: u32,
    /// How long it took, with its parts.
    pub us: u32,
}

/// Where within the span around it a stage lies. Clocks of different processes cannot be compared, so of most it is known only
/// how long they took.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// So many microseconds behind its beginning.
    At(u32),
    /// In its middle: the way there and the way back are taken to be equally long.
    Middle,
    /// At its end.
    End,
}

/// The spans of a request, the outer ones first.
pub(super) struct Spans<'a> {
    trace: &'a Trace,
    all: Vec<Span>,
}

impl<'a> Spans<'a> {
    /// Of a request that took `took` in all. Stages that it did not pass are left out.
    pub(super) fn of(stages: &Stages, took: Duration, trace: &'a Trace) -> Vec<Span> {
        let parent_span_id = trace.parent().map(|parent| span_text(parent.span_id));
        let whole =
            Span { name: "gateway", span_id: span_text(trace.span(0)), parent_span_id, start_us: 0, us: micros(took) };
        let mut spans = Spans { trace, all: vec![whole] };
        spans.fill(stages);
        spans.all
    }

    fn fill(&mut self, stages: &Stages) {
        let Times { balancer_us, queue_us, worker_us, pool_us, pool_wait_us, run_us } = stages.times;
        let Tiers { l1_us, flight_us, l2_us, lease_us } = stages.cache;
        let mut at = stages.before_us;
        for (name, us) in
            [("cache-l1", l1_us), ("cache-wait", flight_us), ("cache-l2", l2_us), ("cache-lease", lease_us)]
        {
            self.add(Some(0), name, Place::At(at), us);
            at = at.saturating_add(us);
        }
        let link = self.add(Some(0), "link", Place::At(at), stages.call_us);
        let balancer = self.add(link, "balancer", Place::Middle, balancer_us);
        self.add(balancer, "queue", Place::At(0), queue_us);
        // Tries that came to nothing lie between the queue and the last one.
        let worker = self.add(balancer, stages.worker(), Place::End, worker_us);
        let Some(slack) = self.us(worker).map(|us| us.saturating_sub(pool_us) / 2) else { return };
        self.add(worker, "php-pool", Place::At(slack), pool_wait_us);
        let (begun, piped) = (slack.saturating_add(pool_wait_us), pool_us.saturating_sub(pool_wait_us));
        let pipe = self.add(worker, "php-pipe", Place::At(begun), piped);
        self.add(pipe, "php", Place::Middle, run_us);
    }

    /// Adds a span that took any time within another; where it stands.
    fn add(&mut self, parent: Option<usize>, name: &'static str, place: Place, us: u32) -> Option<usize> {
        let number = self.all.len();
        let around = self.all.get(parent?)?;
        let offset = match place {
            Place::At(offset) => offset.min(around.us),
            Place::Middle => around.us.saturating_sub(us) / 2,
            Place::End => around.us.saturating_sub(us),
        };
        // By clocks that disagree a part may have taken longer than the whole.
        let us = us.min(around.us - offset);
        if us == 0 {
            return None;
        }
        let span_id = span_text(self.trace.span(u8::try_from(number).ok()?));
        let parent_span_id = Some(around.span_id.clone());
        let start_us = around.start_us.saturating_add(offset);
        self.all.push(Span { name, span_id, parent_span_id, start_us, us });
        Some(number)
    }

    fn us(&self, span: Option<usize>) -> Option<u32> {
        self.all.get(span?).map(|span| span.us)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use troupe_mesh::failure::Stage;
    use troupe_wire::trace::TraceContext;

    use super::*;
    use crate::request::Sampling;

    fn trace() -> Trace {
        Trace::new(None, 7, Sampling::default())
    }

    fn us(micros: u32) -> Duration {
        Duration::from_micros(u64::from(micros))
    }

    #[test]
    fn stages_lie_within_each_other_in_the_order_in_which_they_pass() {
        let times =
            Times { balancer_us: 900, queue_us: 300, worker_us: 590, pool_us: 500, pool_wait_us: 100, run_us: 350 };
        let stages = Stages::of(times, None, us(1_000)).begun(us(50));
        let parent = TraceContext::parse_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let trace = Trace::new(parent, 7, Sampling::default());
        let spans = Spans::of(&stages, us(1_200), &trace);
        let name_of = |id: &Option<String>| {
            let id = id.as_deref().unwrap_or_default();
            spans.iter().find(|span| span.span_id == id).map_or(id, |span| span.name).to_owned()
        };
        let shown: Vec<_> =
            spans.iter().map(|span| (span.name, name_of(&span.parent_span_id), span.start_us, span.us)).collect();
        let expected = [
            ("gateway", "00f067aa0ba902b7", 0, 1_200),
            ("link", "gateway", 50, 1_000),
            ("balancer", "link", 100, 900),
            ("queue", "balancer", 100, 300),
            ("worker-link", "balancer", 410, 590),
            ("php-pool", "worker-link", 455, 100),
            ("php-pipe", "worker-link", 555, 400),
            ("php", "php-pipe", 580, 350),
        ]
        .map(|(name, parent, start, us)| (name, parent.to_owned(), start, us));
        assert_eq!(shown, expected);
        assert_eq!(spans[0].span_id, span_text(trace.context().span_id), "what those behind have as their parent");
        let hit = Spans::of(&Stages::hit(us(5)), us(9), &trace);
        assert_eq!(hit.iter().map(|span| (span.name, span.us)).collect::<Vec<_>>(), [("gateway", 9), ("cache-l1", 5)]);
    }

    proptest! {
        #[test]
        fn what_a_span_does_not_share_is_its_stages_own_time(
            own in prop::array::uniform12(0_u32..1_000),
            before in 0_u32..100,
            failed: bool,
        ) {
            let [gateway, l1, flight, l2, lease, link, balancer, queue, worker, wait, pipe, run] = own;
            let pool = wait + pipe + run;
            let all = balancer + queue + worker + pool;
            let times = Times {
                balancer_us: all, queue_us: queue, worker_us: worker + pool, pool_us: pool, pool_wait_us: wait, run_us: run,
            };
            let cache = Tiers { l1_us: l1, flight_us: flight, l2_us: l2, lease_us: lease };
            let call = us(link + all);
            let stages = Stages { cache, ..Stages::of(times, failed.then_some(Stage::Php), call) }.begun(us(before));
            let took = us(before + gateway + l1 + flight + l2 + lease + link + all);
            let trace = trace();
            let spans = Spans::of(&stages, took, &trace);
            for stage in stages.list(took) {
                let Some(span) = spans.iter().find(|span| span.name == stage.stage) else {
                    prop_assert_eq!(stage.us, 0, "{}", stage.stage);
                    continue;
                };
                let parts = spans.iter().filter(|part| part.parent_span_id.as_ref() == Some(&span.span_id));
                let shared: u32 = parts.map(|part| part.us).sum();
                prop_assert_eq!(span.us - shared, stage.us, "{} in {:?}", stage.stage, &spans);
            }
        }

        #[test]
        fn nothing_leaves_the_span_around_it_whatever_the_clocks_say(times: [u32; 6], rest: [u32; 7]) {
            let [balancer_us, queue_us, worker_us, pool_us, pool_wait_us, run_us] = times;
            let [took, call, before, l1_us, flight_us, l2_us, lease_us] = rest;
            let times = Times { balancer_us, queue_us, worker_us, pool_us, pool_wait_us, run_us };
            let cache = Tiers { l1_us, flight_us, l2_us, lease_us };
            let stages = Stages { cache, ..Stages::of(times, None, us(call)) }.begun(us(before));
            let trace = trace();
            let spans = Spans::of(&stages, us(took), &trace);
            let end = |span: &Span| u64::from(span.start_us) + u64::from(span.us);
            for span in &spans {
                let around = spans.iter().find(|around| Some(&around.span_id) == span.parent_span_id.as_ref());
                prop_assert!(around.is_none_or(|around| span.start_us >= around.start_us && end(span) <= end(around)));
            }
        }
    }
}
