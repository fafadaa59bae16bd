//! `[balancer]`, and the bounds of a pool's queue.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
// A pool's queue is written in the pool's own section but bounded here, so its type stands below both crates.
pub use troupe_node::config::QueueConfig;
use troupe_node::units::Duration;

/// How workers are scored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BalancerConfig {
    /// How fast a worker's remembered latency fades: after this long, a peak counts for a third.
    pub decay: Duration,
    /// How long a new worker's share grows from small to full; "0s": at once.
    pub slow_start: Duration,
    /// How often workers report their own load, beside what every reply carries.
    pub report_interval: Duration,
}

impl Default for BalancerConfig {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            slow_start: Duration::from_secs(10),
            report_interval: Duration::from_millis(500),
        }
    }
}
