//! Where the time of a call went, as those who had it tell on its way back.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the time of a call went, up to the head of its reply or to its failure, in microseconds by each service's own clock. What a service
/// does not know of is 0. Each time contains those that are named as its parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// In the balancer, all of it.
    pub balancer_us: u32,
    /// Part of the balancer's: in its queue.
    pub queue_us: u32,
    /// Part of the balancer's: with the worker that answered, the way there and back included.
    pub worker_us: u32,
    /// Part of the worker's: in php-pool.
    pub pool_us: u32,
    /// Part of php-pool's: waiting for the body, and for a process.
    pub pool_wait_us: u32,
    /// Part of php-pool's: the function, by PHP's clock.
    pub run_us: u32,
}

/// A time as [`Times`] has it: whole microseconds, at most 71 minutes.
pub fn micros(time: Duration) -> u32 {
    // Not `as_micros`, which counts in 128 bits: each call is told its time several times over.
    let micros = time.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(time.subsec_micros()));
    u32::try_from(micros).unwrap_or(u32::MAX)
}
