//! What is counted.

use metrics::{Counter, Gauge};

/// The process's figures about Redis.
#[derive(Debug)]
pub(super) struct Meters {
    pub(super) up: Gauge,
    pub(super) failures: Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        let up = metrics::gauge!("troupe_discovery_redis_up");
        up.set(0.0);
        Self { up, failures: metrics::counter!("troupe_discovery_redis_failures_total") }
    }
}

/// How old the set of a service is beyond a poll's pause.
pub(super) fn stale(service: &str) -> Gauge {
    metrics::gauge!("troupe_discovery_stale_seconds", "peer" => service.to_owned())
}

/// Instances of a service by what Redis says of them: `up`, `draining`, `missing`.
pub(super) fn instances(service: &str, state: &'static str) -> Gauge {
    metrics::gauge!("troupe_discovery_instances", "peer" => service.to_owned(), "state" => state)
}

/// What stood in Redis and was no instance.
pub(super) fn rejected(service: &str) -> Counter {
    metrics::counter!("troupe_discovery_rejected_total", "peer" => service.to_owned())
}
