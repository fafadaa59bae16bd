//! A pool's metrics. Handles are made once, at start: an unused one costs nothing, a look-up per call would.

use std::collections::HashMap;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use parking_lot::Mutex;

use crate::process::Fate;

/// Describes what php-pool counts.
pub fn describe() {
    describe_counter!(
        "troupe_php_calls_total",
        "Calls that came to an end, by `pool` and `outcome`: `answered`, `error`, `expired` (before they started), `timeout`, `broken` (the process died), `overloaded`, `refused` or `cancelled`."
    );
    describe_histogram!(
        "troupe_php_function_seconds",
        Unit::Seconds,
        "How long calls of a `function` of a `pool` ran in PHP, streams to their end and calls that failed included; functions beyond 64 of a pool are `_other`."
    );
    describe_counter!(
        "troupe_php_function_errors_total",
        "Calls of a `function` of a `pool` that failed in PHP or were answered with a 5xx: an error that nobody caught, a timeout, a process that died."
    );
    describe_counter!("troupe_php_prefetched_total", "Calls that sat down behind a running one, by `pool`.");
    describe_histogram!(
        "troupe_php_queue_seconds",
        Unit::Seconds,
        "How long calls waited for a PHP process, by `pool`; those that found one at once are not in it."
    );
    describe_gauge!("troupe_php_processes", "PHP processes, by `pool` and `state`: `idle`, `busy` or `starting`.");
    describe_counter!(
        "troupe_php_cpu_seconds_total",
        Unit::Seconds,
        "Processor time that the PHP processes of a `pool` have used, by those that have ended and by the zygote too; programs that a function started count once it has waited for them."
    );
    describe_gauge!(
        "troupe_php_resident_bytes",
        Unit::Bytes,
        "Memory of the PHP processes of a `pool` and of their zygote that is in RAM. Pages that several share (the code that was loaded, opcache, libraries) count once, in parts (Pss); where the kernel does not tell that of another user's processes, only pages that are of no file, those shared with the zygote in each."
    );
    describe_gauge!("troupe_php_streams", "PHP processes that streams hold, by `pool`.");
    describe_gauge!("troupe_php_spooled_bytes", Unit::Bytes, "Bytes of uploads that are on disk, by `pool`.");
    describe_counter!("troupe_php_zygote_restarts_total", "Times that the code was booted again, by `pool`.");
    describe_counter!(
        "troupe_php_restarts_total",
        "PHP processes that ended, by `pool` and `reason`: `died`, `timeout`, `memory`, `protocol`, `recycled`, `stream-gone`, `cancelled`, `idle`, `stopped` or `replaced` (by a renewal of the pool). Those of the first four were failures."
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
    /// Microseconds of processor time.
    pub(crate) cpu: Counter,
    pub(crate) resident: Gauge,
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
            cpu: counter!("troupe_php_cpu_seconds_total", "pool" => pool.to_owned()),
            resident: gauge!("troupe_php_resident_bytes", "pool" => pool.to_owned()),
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

/// Functions of a pool that have series of their own, over the life of the process.
const MOST_FUNCTIONS: usize = 64;
/// A longer name is no label: it would make every scrape longer by twenty times itself.
const LONGEST_NAME: usize = 128;

/// What is counted of one function.
#[derive(Clone)]
pub(crate) struct FunctionMeters {
    seconds: Histogram,
    errors: Counter,
}

impl FunctionMeters {
    fn new(pool: &str, function: &str) -> Self {
        let labels = || [("pool", pool.to_owned()), ("function", function.to_owned())];
        Self {
            seconds: histogram!("troupe_php_function_seconds", &labels()),
            errors: counter!("troupe_php_function_errors_total", &labels()),
        }
    }

    /// A call ran for `seconds`.
    pub(crate) fn ran(&self, seconds: f64, failed: bool) {
        self.seconds.record(seconds);
        if failed {
            self.errors.increment(1);
        }
    }
}

impl std::fmt::Debug for FunctionMeters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FunctionMeters")
    }
}

/// The functions' series of a pool, whatever code and processes it comes to have.
#[derive(Debug)]
pub(crate) struct FunctionSeries {
    pool: String,
    named: Mutex<HashMap<Box<str>, FunctionMeters>>,
    other: FunctionMeters,
}

impl FunctionSeries {
    pub(crate) fn new(pool: &str) -> Self {
        Self { pool: pool.to_owned(), named: Mutex::default(), other: FunctionMeters::new(pool, "_other") }
    }

    /// Where calls of a function are counted: by its name, while there is room.
    pub(crate) fn of(&self, function: &str) -> FunctionMeters {
        let mut named = self.named.lock();
        if let Some(meters) = named.get(function) {
            return meters.clone();
        }
        if named.len() >= MOST_FUNCTIONS || function.len() > LONGEST_NAME {
            return self.other.clone();
        }
        let meters = FunctionMeters::new(&self.pool, function);
        named.insert(function.into(), meters.clone());
        meters
    }
}

impl std::fmt::Debug for PoolMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PoolMetrics")
    }
}
