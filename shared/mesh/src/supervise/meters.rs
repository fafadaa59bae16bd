//! The metrics of one kind of actor.

use metrics::{Counter, Gauge};

/// Made once per supervised actor; actors of one kind share the series, so gauges are only ever added to.
#[derive(Clone)]
pub(super) struct Meters {
    pub(super) depth: Gauge,
    pub(super) full: Counter,
    pub(super) stalls: Counter,
    pub(super) failed: Counter,
    pub(super) poison: Counter,
    pub(super) escalations: Counter,
    pub(super) restarts_panic: Counter,
    pub(super) restarts_stop: Counter,
    pub(super) restarts_stuck: Counter,
}

impl Meters {
    pub(super) fn new(actor: &'static str) -> Self {
        Self {
            depth: metrics::gauge!("troupe_actor_inbox_depth", "actor" => actor),
            full: metrics::counter!("troupe_actor_inbox_full_total", "actor" => actor),
            stalls: metrics::counter!("troupe_actor_stalls_total", "actor" => actor),
            failed: metrics::counter!("troupe_actor_failed_messages_total", "actor" => actor),
            poison: metrics::counter!("troupe_actor_poison_messages_total", "actor" => actor),
            escalations: metrics::counter!("troupe_actor_escalations_total", "actor" => actor),
            restarts_panic: metrics::counter!("troupe_actor_restarts_total", "actor" => actor, "reason" => "panic"),
            restarts_stop: metrics::counter!("troupe_actor_restarts_total", "actor" => actor, "reason" => "stop"),
            restarts_stuck: metrics::counter!("troupe_actor_restarts_total", "actor" => actor, "reason" => "stuck"),
        }
    }
}
