//! Metrics: handles made once per pool, so that a call only adds to them.

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use troupe_mesh::failure::Outcome;
use troupe_node::metrics::OVER;

/// Every way in which a call can end, in the order of [`PoolMeters::calls`].
const OUTCOMES: [&str; 9] =
    ["ok", "unreachable", "overloaded", "deadline", "cancelled", "incompatible", "refused", "broken", "internal"];

/// Describes what the balancer counts.
pub fn describe() {
    crate::upstream::describe();
    describe_counter!(
        "troupe_balancer_calls_total",
        "Calls that came to an end, by `pool` and `outcome`: `ok`, or how they failed."
    );
    describe_histogram!(
        "troupe_balancer_call_seconds",
        Unit::Seconds,
        "From the pick of a worker to the head of its reply, by `pool`: a worker's time and the way there and back. Of a call \
         that was tried again, the try that was answered; calls that failed are not in it."
    );
    describe_gauge!("troupe_balancer_queue_depth", "Calls that wait for a worker, by `pool`.");
    describe_histogram!(
        "troupe_balancer_queue_wait_seconds",
        Unit::Seconds,
        "How long calls waited for a worker, by `pool`; those that found one at once are not in it."
    );
    describe_counter!("troupe_balancer_queue_timeouts_total", "Calls that waited in vain, by `pool`.");
    describe_counter!(
        "troupe_balancer_retries_total",
        "Calls tried again, by `pool` and `reason`: `not_started`, `idempotent` or `requeued`."
    );
    describe_counter!(
        "troupe_balancer_retries_refused_total",
        "Calls not tried again because the budget of retries was spent, by `pool`."
    );
    describe_counter!("troupe_balancer_ejections_total", "Times that a worker was taken out, by `pool`.");
    describe_gauge!(
        "troupe_balancer_all_out",
        "1 while every worker of a `pool` is out, and the least bad one is used."
    );
    describe_gauge!("troupe_balancer_workers_ready", "Workers that take calls, by `pool`.");
    describe_gauge!(
        "troupe_balancer_worker_score",
        "1 / cost of a `worker` of a `pool`, cost in seconds: higher is better."
    );
    describe_gauge!("troupe_balancer_worker_in_flight", "Calls that this balancer has with a `worker` of a `pool`.");
    describe_gauge!(
        "troupe_balancer_worker_latency_seconds",
        Unit::Seconds,
        "The peak-sensitive average of a `worker`'s latency, failures counted as slow, by `pool`."
    );
}

/// The metrics of one pool.
pub(crate) struct PoolMeters {
    calls: [Counter; OUTCOMES.len()],
    call: Histogram,
    pub(crate) queue_depth: Gauge,
    pub(crate) queue_wait: Histogram,
    pub(crate) queue_timeouts: Counter,
    pub(crate) retries_not_started: Counter,
    pub(crate) retries_idempotent: Counter,
    pub(crate) retries_requeued: Counter,
    pub(crate) retries_over_budget: Counter,
    pub(crate) ejections: Counter,
    pub(crate) all_out: Gauge,
    pub(crate) ready: Gauge,
}

impl PoolMeters {
    pub(crate) fn new(pool: &str) -> Self {
        let pool = || pool.to_owned();
        let retries =
            |reason: &'static str| counter!("troupe_balancer_retries_total", "pool" => pool(), "reason" => reason);
        Self {
            calls: OUTCOMES
                .map(|outcome| counter!("troupe_balancer_calls_total", "pool" => pool(), "outcome" => outcome)),
            call: histogram!("troupe_balancer_call_seconds", "pool" => pool()),
            queue_depth: gauge!("troupe_balancer_queue_depth", "pool" => pool()),
            queue_wait: histogram!("troupe_balancer_queue_wait_seconds", "pool" => pool()),
            queue_timeouts: counter!("troupe_balancer_queue_timeouts_total", "pool" => pool()),
            retries_not_started: retries("not_started"),
            retries_idempotent: retries("idempotent"),
            retries_requeued: retries("requeued"),
            retries_over_budget: counter!("troupe_balancer_retries_refused_total", "pool" => pool()),
            ejections: counter!("troupe_balancer_ejections_total", "pool" => pool()),
            all_out: gauge!("troupe_balancer_all_out", "pool" => pool()),
            ready: gauge!("troupe_balancer_workers_ready", "pool" => pool()),
        }
    }

    /// A call was answered; the head of the reply came `took_us` after the pick.
    pub(crate) fn answered(&self, took_us: u64) {
        self.calls[0].increment(1);
        self.call.record(took_us as f64 / 1_000_000.0);
    }

    pub(crate) fn failed(&self, outcome: Outcome) {
        let index = match outcome {
            Outcome::Unreachable => 1,
            Outcome::Overloaded => 2,
            Outcome::Deadline => 3,
            Outcome::Cancelled => 4,
            Outcome::Incompatible => 5,
            Outcome::Refused => 6,
            Outcome::Broken => 7,
            Outcome::Internal => 8,
        };
        self.calls[index].increment(1);
    }
}

/// The gauges of one worker.
pub(crate) struct WorkerMeters {
    pub(crate) score: Gauge,
    pub(crate) in_flight: Gauge,
    pub(crate) latency: Gauge,
}

impl WorkerMeters {
    pub(crate) fn new(pool: &str, worker: &str) -> Self {
        let labels = || [("pool", pool.to_owned()), ("worker", worker.to_owned())];
        Self {
            score: gauge!("troupe_balancer_worker_score", &labels()),
            in_flight: gauge!("troupe_balancer_worker_in_flight", &labels()),
            latency: gauge!("troupe_balancer_worker_latency_seconds", &labels()),
        }
    }

    /// The worker is gone, and its series are over.
    pub(crate) fn end(&self) {
        for gauge in [&self.score, &self.in_flight, &self.latency] {
            gauge.set(OVER);
        }
    }
}
