//! What a gateway counts of the second tier.

use std::time::Duration;

use bytestring::ByteString;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::cache::route::RouteCaching;

/// How a question to the second tier ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Fresh,
    Stale,
    Nothing,
    /// Not in time.
    Late,
    /// The service is away, or its store.
    Away,
    /// Nobody asked, because it does not answer.
    Unasked,
}

const TOLD: [&str; 6] = ["hit", "stale", "miss", "late", "away", "unasked"];

/// What the second tier said to the requests of a route, how often.
#[derive(Debug)]
pub(in crate::cache) struct LookupCounts([Counter; TOLD.len()]);

/// A process's handles.
#[derive(Debug)]
pub(super) struct Meters {
    wait: Histogram,
    lease_wait: Histogram,
    stores_skipped: Counter,
    pub(super) live: Gauge,
    pub(super) cuts: Counter,
    pub(super) beats: Counter,
    pub(super) purges_heard: Counter,
    pub(super) doubts: Counter,
    pub(super) invalidations_lost: Counter,
}

impl LookupCounts {
    /// Those of a route with this label.
    pub(in crate::cache) fn of(label: &ByteString) -> Self {
        Self(TOLD.map(|result| {
            counter!("troupe_gateway_cache_l2_lookups_total", "result" => result, "route" => label.to_string())
        }))
    }
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            wait: histogram!("troupe_gateway_cache_l2_wait_seconds"),
            lease_wait: histogram!("troupe_gateway_cache_lease_wait_seconds"),
            stores_skipped: counter!("troupe_gateway_cache_l2_stores_skipped_total"),
            live: gauge!("troupe_gateway_cache_live"),
            cuts: counter!("troupe_gateway_cache_cuts_total"),
            beats: counter!("troupe_gateway_cache_beats_total"),
            purges_heard: counter!("troupe_gateway_cache_purges_heard_total"),
            doubts: counter!("troupe_gateway_cache_doubts_total"),
            invalidations_lost: counter!("troupe_gateway_cache_invalidations_lost_total"),
        }
    }

    pub(super) fn asked(&self, caching: &RouteCaching, told: Told, took: Duration) {
        if let Some(counter) = caching.lookups().0.get(told as usize) {
            counter.increment(1);
        }
        if told != Told::Unasked {
            self.wait.record(took.as_secs_f64());
        }
    }

    pub(super) fn waited(&self, took: Duration) {
        self.lease_wait.record(took.as_secs_f64());
    }

    pub(super) fn skipped_store(&self) {
        self.stores_skipped.increment(1);
    }
}

/// Describes what a gateway counts of the second tier.
pub fn describe() {
    describe_counter!(
        "troupe_gateway_cache_l2_lookups_total",
        "Questions to the second tier, by `route` and `result`: `hit`, `stale`, `miss`, `late` (no answer within `redis.timeout`), `away`, `unasked` (it did not answer the last times)."
    );
    describe_histogram!(
        "troupe_gateway_cache_l2_wait_seconds",
        Unit::Seconds,
        "How long requests waited for the second tier."
    );
    describe_histogram!(
        "troupe_gateway_cache_lease_wait_seconds",
        Unit::Seconds,
        "How long requests waited for another gateway that was fetching the same."
    );
    describe_counter!(
        "troupe_gateway_cache_l2_stores_skipped_total",
        "Answers that were not brought to the second tier because too many were on their way there."
    );
    describe_gauge!(
        "troupe_gateway_cache_live",
        "1 while the gateway hears of every purge; 0: it is cut off, and validates what it has stored."
    );
    describe_counter!("troupe_gateway_cache_cuts_total", "Times that the gateway was cut off from the cache service.");
    describe_counter!("troupe_gateway_cache_beats_total", "Beats of the gateway that the cache service answered.");
    describe_counter!("troupe_gateway_cache_purges_heard_total", "Purges that the gateway heard of.");
    describe_counter!(
        "troupe_gateway_cache_doubts_total",
        "Times that the gateway made everything stale because it had missed purges."
    );
    describe_counter!(
        "troupe_gateway_cache_invalidations_lost_total",
        "Answers of unsafe requests whose invalidation could not be told to the other gateways."
    );
}
