//! One thread's counts of what all requests share, whatever their route: bytes, sizes, and causes of failures.

use metrics::{Counter, Histogram, counter, histogram};
use troupe_mesh::failure::{Failure, Outcome, Stage};

use super::totals::Totals;

/// Every cause that a failed request can have; the first is the application's own.
pub(super) const CAUSES: [&str; 8] =
    ["application", "unreachable", "overloaded", "deadline", "incompatible", "refused", "broken", "internal"];
/// Steps of size: one for each power of four, from 256 bytes to 1 GiB, and what exceeds it: the buckets of the histograms.
const STEPS: usize = 13;

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The application said so, or threw.
    Application,
    /// The call did not come to a reply.
    Outcome(Outcome),
}

impl Cause {
    /// Why a call came to no reply. What a function throws is the application's failure, as a 500 that it answers is.
    pub(crate) fn of(failure: &Failure) -> Self {
        match (failure.outcome, failure.stage) {
            (Outcome::Internal, Stage::Php) => Self::Application,
            (outcome, _) => Self::Outcome(outcome),
        }
    }
}

/// Counts since the last flush.
pub(super) struct Volume {
    causes: [u32; CAUSES.len()],
    received: Sizes,
    sent: Sizes,
    changed: bool,
    errors: [Counter; CAUSES.len()],
}

/// Bodies by size: how many, and how many bytes they have together.
struct Sizes {
    steps: [(u32, u64); STEPS],
    bytes: Counter,
    histogram: Histogram,
}

impl Volume {
    pub(super) fn new() -> Self {
        Self {
            causes: [0; CAUSES.len()],
            received: Sizes {
                steps: [(0, 0); STEPS],
                bytes: counter!("troupe_gateway_received_bytes_total"),
                histogram: histogram!("troupe_gateway_request_size_bytes"),
            },
            sent: Sizes {
                steps: [(0, 0); STEPS],
                bytes: counter!("troupe_gateway_sent_bytes_total"),
                histogram: histogram!("troupe_gateway_response_size_bytes"),
            },
            changed: false,
            errors: CAUSES.map(|cause| counter!("troupe_gateway_errors_total", "cause" => cause)),
        }
    }

    pub(super) fn add(&mut self, received: u64, sent: u64, cause: Option<Cause>) {
        self.changed = true;
        self.received.add(received);
        self.sent.add(sent);
        if let Some(count) = cause.and_then(place).and_then(|place| self.causes.get_mut(place)) {
            *count += 1;
        }
    }

    pub(super) fn flush(&mut self, totals: &Totals) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        self.received.flush();
        self.sent.flush();
        let causes = self.causes.iter_mut().zip(&self.errors).enumerate();
        for (place, (count, counter)) in causes.filter(|(_, (count, _))| **count > 0) {
            let count = u64::from(std::mem::take(count));
            counter.increment(count);
            totals.failed(place, count);
        }
    }
}

impl Sizes {
    fn add(&mut self, bytes: u64) {
        if let Some((count, sum)) = self.steps.get_mut(step(bytes)) {
            *count += 1;
            *sum += bytes;
        }
    }

    fn flush(&mut self) {
        for (count, sum) in self.steps.iter_mut().filter(|(count, _)| *count > 0) {
            // The mean of what is in a bucket is in it too, and keeps the sum.
            self.histogram.record_many(*sum as f64 / f64::from(*count), *count as usize);
            self.bytes.increment(*sum);
            (*count, *sum) = (0, 0);
        }
    }
}

fn place(cause: Cause) -> Option<usize> {
    match cause {
        Cause::Application => Some(0),
        Cause::Outcome(outcome) => CAUSES.iter().position(|known| *known == outcome.as_str()),
    }
}

/// The bucket that a size falls into: 256 · 4ⁿ is its upper bound.
fn step(bytes: u64) -> usize {
    match bytes {
        0..=256 => 0,
        _ => (((bytes - 1).ilog2() as usize - 8) / 2 + 1).min(STEPS - 1),
    }
}

#[cfg(test)]
mod tests {
    use troupe_node::metrics::SIZES;

    use super::*;

    #[test]
    fn steps_are_the_histograms_buckets() {
        assert_eq!(STEPS, SIZES.len() + 1);
        for (place, bound) in SIZES.iter().enumerate() {
            let bound = *bound as u64;
            assert_eq!((step(bound), step(bound + 1)), (place, place + 1), "{bound}");
        }
        assert_eq!((step(0), step(u64::MAX)), (0, STEPS - 1));
    }

    #[test]
    fn every_outcome_but_a_client_that_left_has_a_place() {
        for outcome in [Outcome::Unreachable, Outcome::Deadline, Outcome::Broken, Outcome::Internal, Outcome::Refused] {
            assert_eq!(place(Cause::Outcome(outcome)).and_then(|place| CAUSES.get(place)), Some(&outcome.as_str()));
        }
        assert_eq!(place(Cause::Outcome(Outcome::Cancelled)), None);
    }

    #[test]
    fn what_a_function_throws_is_the_applications_failure_and_a_panic_of_ours_is_not() {
        let cause = |outcome, stage| Cause::of(&Failure::new(outcome, stage, ""));
        assert_eq!(cause(Outcome::Internal, Stage::Php), Cause::Application);
        assert_eq!(cause(Outcome::Internal, Stage::Link), Cause::Outcome(Outcome::Internal));
        assert_eq!(cause(Outcome::Broken, Stage::Php), Cause::Outcome(Outcome::Broken));
    }
}
