//! What of `[balancer]` may change while calls go on: read by every thread, written by a reload.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::config::BalancerConfig;

/// Reports more often than this cost more than they tell.
const LEAST_REPORT_INTERVAL: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct Tuning {
    /// Time constant of remembered latencies in milliseconds, as f32.
    decay_ms: AtomicU32,
    report_interval_us: AtomicU64,
    slow_start_us: AtomicU64,
}

impl Tuning {
    pub(crate) fn new(config: &BalancerConfig) -> Self {
        let tuning = Self {
            decay_ms: AtomicU32::new(0),
            report_interval_us: AtomicU64::new(0),
            slow_start_us: AtomicU64::new(0),
        };
        tuning.set(config);
        tuning
    }

    pub(crate) fn set(&self, config: &BalancerConfig) {
        let BalancerConfig { decay, slow_start, report_interval } = config;
        self.decay_ms.store((decay.get().as_millis() as f32).to_bits(), Ordering::Relaxed);
        self.report_interval_us.store(micros(report_interval.get().max(LEAST_REPORT_INTERVAL)), Ordering::Relaxed);
        self.slow_start_us.store(micros(slow_start.get()), Ordering::Relaxed);
    }

    pub(crate) fn decay_ms(&self) -> f32 {
        f32::from_bits(self.decay_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn report_interval(&self) -> Duration {
        Duration::from_micros(self.report_interval_us.load(Ordering::Relaxed))
    }

    /// The slow-start window in microseconds; 0: none.
    pub(crate) fn slow_start_us(&self) -> u64 {
        self.slow_start_us.load(Ordering::Relaxed)
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
