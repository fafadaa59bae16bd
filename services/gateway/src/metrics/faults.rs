//! Client connections that failed, by cause.

use std::cell::Cell;

use metrics::{Counter, counter, describe_counter};

use super::totals::Totals;

/// Why a client's connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A head did not come in time.
    HeadTimeout,
    /// A request's body paused for too long.
    BodyTimeout,
    /// The client took nothing of an answer for too long.
    WriteTimeout,
    /// It was reset, or broke, while a request was under way.
    Reset,
    /// What the client sent is no HTTP, or too much of it.
    Protocol,
    /// The answer's body paused for too long, so that the connection was cut.
    ReplyTimeout,
    /// The answer's body broke off, and the connection with it.
    ReplyBroken,
}

impl Fault {
    /// All of them, in the order of the counters.
    pub(super) const ALL: [Self; 7] = [
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::WriteTimeout,
        Self::Reset,
        Self::Protocol,
        Self::ReplyTimeout,
        Self::ReplyBroken,
    ];

    /// The name in metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::ReplyTimeout => "reply_timeout",
            Self::ReplyBroken => "reply_broken",
        }
    }
}

/// Describes what is counted of them.
pub(super) fn describe() {
    describe_counter!(
        "troupe_gateway_connection_errors_total",
        "Client connections that failed, by `cause`: `head_timeout` (`gateway.head_timeout`), `body_timeout` (a request's body paused for `gateway.stream_idle`), `write_timeout` (the client took nothing for as long), `reset` (while a request was under way), `protocol` (`troupe_gateway_heads_rejected_total` says what), `reply_timeout` (an answer's body paused for `gateway.stream_idle`) or `reply_broken` (it broke off)."
    );
}

/// One thread's counts since the last flush.
pub(super) struct Faults {
    counts: [Cell<u32>; Fault::ALL.len()],
    counters: [Counter; Fault::ALL.len()],
}

impl Faults {
    pub(super) fn new() -> Self {
        Self {
            counts: std::array::from_fn(|_| Cell::new(0)),
            counters: Fault::ALL
                .map(|fault| counter!("troupe_gateway_connection_errors_total", "cause" => fault.as_str())),
        }
    }

    pub(super) fn add(&self, fault: Fault) {
        if let Some(count) = self.counts.get(fault as usize) {
            count.set(count.get().saturating_add(1));
        }
    }

    pub(super) fn flush(&self, totals: &Totals) {
        for (place, (count, counter)) in self.counts.iter().zip(&self.counters).enumerate() {
            let count = u64::from(count.take());
            if count > 0 {
                counter.increment(count);
                totals.broke(place, count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_place() {
        assert!(Fault::ALL.iter().enumerate().all(|(place, fault)| *fault as usize == place));
    }
}
