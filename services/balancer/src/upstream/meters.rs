//! Metrics of a group of upstream servers, made once.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use super::cause::Cause;
use super::lie::Lie;
use super::tunnel::End;

/// Describes what is counted of upstream servers.
pub(crate) fn describe() {
    describe_gauge!(
        "troupe_balancer_upstream_connections",
        "Connections to the servers of a `pool`, idle ones included."
    );
    describe_gauge!(
        "troupe_balancer_upstream_idle_connections",
        "Connections to the servers of a `pool` that wait for a request."
    );
    describe_counter!(
        "troupe_balancer_upstream_connects_total",
        "Attempts at a connection to a server, by `pool` and `outcome`: `ok` or `failed`."
    );
    describe_counter!(
        "troupe_balancer_upstream_stale_total",
        "Kept connections that had ended when their next request came, by `pool`."
    );
    describe_counter!("troupe_balancer_upstream_interim_total", "Interim replies, which are dropped, by `pool`.");
    describe_counter!(
        "troupe_balancer_upstream_errors_total",
        "Connections and calls that failed at a server, by `pool` and `cause`: `refused` (nobody listens), `unreachable`, `connect_timeout`, `write_timeout` (the server took nothing of the request), `reply_timeout` (no head of a reply), `body_timeout` (the reply paused), `reset`, `closed` (ended without an answer), `protocol` (what came is no answer), `full` (all connections were in use) or `other`. Calls that were tried again are counted each time; what an old kept connection ended for is not."
    );
    describe_counter!(
        "troupe_balancer_upstream_cut_total",
        "Replies that broke off, or were cut off, behind their head, by `pool`."
    );
    describe_gauge!("troupe_balancer_upstream_tunnels", "WebSocket tunnels to the servers of a `pool` that are open.");
    describe_counter!(
        "troupe_balancer_upstream_tunnels_ended_total",
        "WebSocket tunnels that ended, by `pool` and `cause`: `client` or `server` ended it or left, `idle` (`timeouts.tunnel`, or `timeouts.idle` once the client has ended its side), `stalled`: the server took no more bytes, `broken`: its connection broke."
    );
    describe_counter!(
        "troupe_balancer_upstream_malformed_total",
        "Replies refused for what they said, by `pool` and `reason`."
    );
}

/// The metrics of one group.
pub(super) struct Meters {
    /// Connections, idle ones included.
    pub(super) open: Gauge,
    pub(super) idle: Gauge,
    pub(super) connects: Counter,
    pub(super) failed_connects: Counter,
    /// Kept connections that had ended when their next request came, and requests that were sent again for that.
    pub(super) stale: Counter,
    /// Interim replies, which are dropped.
    pub(super) interim: Counter,
    /// Replies that broke off, or were cut off, behind their head.
    pub(super) cut: Counter,
    /// Tunnels that are open.
    pub(super) tunnels: Gauge,
    ended: [Counter; End::ALL.len()],
    lies: [Counter; Lie::ALL.len()],
    errors: [Counter; Cause::ALL.len()],
}

impl Meters {
    pub(super) fn new(pool: &str) -> Self {
        let pool = || pool.to_owned();
        let connects = |outcome: &'static str| counter!("troupe_balancer_upstream_connects_total", "pool" => pool(), "outcome" => outcome);
        Self {
            open: gauge!("troupe_balancer_upstream_connections", "pool" => pool()),
            idle: gauge!("troupe_balancer_upstream_idle_connections", "pool" => pool()),
            connects: connects("ok"),
            failed_connects: connects("failed"),
            stale: counter!("troupe_balancer_upstream_stale_total", "pool" => pool()),
            interim: counter!("troupe_balancer_upstream_interim_total", "pool" => pool()),
            cut: counter!("troupe_balancer_upstream_cut_total", "pool" => pool()),
            tunnels: gauge!("troupe_balancer_upstream_tunnels", "pool" => pool()),
            ended: End::ALL.map(
                |end| counter!("troupe_balancer_upstream_tunnels_ended_total", "pool" => pool(), "cause" => end.as_str()),
            ),
            lies: Lie::ALL.map(
                |lie| counter!("troupe_balancer_upstream_malformed_total", "pool" => pool(), "reason" => lie.as_str()),
            ),
            errors: Cause::ALL.map(
                |cause| counter!("troupe_balancer_upstream_errors_total", "pool" => pool(), "cause" => cause.as_str()),
            ),
        }
    }

    pub(super) fn tunnel_ended(&self, end: End) {
        if let Some(counter) = self.ended.get(end as usize) {
            counter.increment(1);
        }
    }

    /// A connection or a call failed at a server.
    pub(super) fn failed(&self, cause: Cause) {
        if let Some(counter) = self.errors.get(cause as usize) {
            counter.increment(1);
        }
    }

    /// A server's answer is none.
    pub(super) fn lied(&self, lie: Lie) {
        self.failed(Cause::Protocol);
        if let Some(counter) = Lie::ALL.iter().position(|known| *known == lie).and_then(|index| self.lies.get(index)) {
            counter.increment(1);
        }
    }
}
