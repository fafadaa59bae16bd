//! A pool's metrics. Handles are made once, at start: an unused one costs nothing, a look-up per call would.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::process::Fate;

/// Describes what php-pool counts.
pub fn describe() {
    describe_counter!(
        "troupe_php_calls_total",
        "Calls that came to an end, by `pool` and `outcome`: `answered`, `error`, `expired` (before they started), `timeout`, `broken` (the process died), `overloaded`, `refused` or `cancelled`."
    );
    describe_counter!("troupe_php_prefetched_total", "Calls that sat down behind a running one, by `pool`.");
    describe_histogram!(
        "troupe_php_queue_seconds",
        Unit::Seconds,
        "How long calls waited for a PHP process, by `pool`; those that found one at once are not in it."
    );
    describe_gauge!("troupe_php_processes", "PHP processes, by `pool` and `state`: `idle`, `busy` or `starting`.");
    describe_gauge!("troupe_php_streams", "PHP processes that streams hold, by `pool`.");
    describe_gauge!("troupe_php_spooled_bytes", Unit::Bytes, "Bytes of uploads that are on disk, by `pool`.");
    describe_counter!("troupe_php_zygote_restarts_total", "Times that the code was booted again, by `pool`.");
    describe_counter!(
        "troupe_php_restarts_total",
        "PHP processes that ended, by `pool` and `reason`: `died`, `timeout`, `memory`, `protocol`, `recycled`, `stream-gone`, `cancelled`, `idle` or `stopped`."
    );
}

/// The metrics of one pool.
pub(crate) struct PoolMetrics {
    pub(crate) answered: Counter,
    pub(crate) errors: Counter,
    pub(crate) expired: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) broken: Counter,
    pub(crate) overloaded: Counter,
    pub(crate) refused: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) prefetched: Counter,
    /// Seconds that calls waited for a process; those that found one at once are not in it.
    pub(crate) queue: Histogram,
    pub(crate) idle: Gauge,
    pub(crate) busy: Gauge,
    pub(crate) starting: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) zygote_restarts: Counter,
    restarts: [Counter; Fate::ALL.len()],
}

impl PoolMetrics {
    pub(crate) fn new(pool: &str) -> Self {
        let calls = |outcome| counter!("troupe_php_calls_total", "pool" => pool.to_owned(), "outcome" => outcome);
        let processes = |state| gauge!("troupe_php_processes", "pool" => pool.to_owned(), "state" => state);
        Self {
            answered: calls("answered"),
            errors: calls("error"),
            expired: calls("expired"),
            timeouts: calls("timeout"),
            broken: calls("broken"),
            overloaded: calls("overloaded"),
            refused: calls("refused"),
            cancelled: calls("cancelled"),
            prefetched: counter!("troupe_php_prefetched_total", "pool" => pool.to_owned()),
            queue: histogram!("troupe_php_queue_seconds", "pool" => pool.to_owned()),
            idle: processes("idle"),
            busy: processes("busy"),
            starting: processes("starting"),
            streams: gauge!("troupe_php_streams", "pool" => pool.to_owned()),
            zygote_restarts: counter!("troupe_php_zygote_restarts_total", "pool" => pool.to_owned()),
            restarts: Fate::ALL.map(
                |fate| counter!("troupe_php_restarts_total", "pool" => pool.to_owned(), "reason" => fate.as_str()),
            ),
        }
    }

    /// Counts the end of a process.
    pub(crate) fn ended(&self, fate: Fate) {
        if let Some(counter) = self.restarts.get(fate as usize) {
            counter.increment(1);
        }
    }
}

impl std::fmt::Debug for PoolMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PoolMetrics")
    }
}
