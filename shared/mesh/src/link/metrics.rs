//! What links count. Handles are made once per link; labels are the peer's service and closed sets.

use metrics::{Counter, Gauge, counter, gauge};

use super::end::LinkEnd;

/// Longest service name that becomes a label: the peer chose it.
const MAX_LABEL: usize = 32;

#[derive(Clone)]
pub(super) struct LinkMetrics {
    peer: String,
    links: Gauge,
    pub(super) frames_sent: Counter,
    pub(super) frames_received: Counter,
    pub(super) writes: Counter,
    pub(super) bytes_sent: Counter,
    pub(super) bytes_received: Counter,
    pub(super) in_flight: Gauge,
    pub(super) expired: Counter,
    pub(super) cancelled: Counter,
    pub(super) given_up: Counter,
}

impl LinkMetrics {
    /// The handles of a link to `peer`, an authenticated service's name.
    pub(super) fn new(peer: &str) -> Self {
        let peer: String =
            peer.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '-').take(MAX_LABEL).collect();
        let label = || peer.clone();
        Self {
            links: gauge!("troupe_mesh_links", "peer" => label()),
            frames_sent: counter!("troupe_mesh_frames_sent_total", "peer" => label()),
            frames_received: counter!("troupe_mesh_frames_received_total", "peer" => label()),
            writes: counter!("troupe_mesh_writes_total", "peer" => label()),
            bytes_sent: counter!("troupe_mesh_sent_bytes_total", "peer" => label()),
            bytes_received: counter!("troupe_mesh_received_bytes_total", "peer" => label()),
            in_flight: gauge!("troupe_mesh_calls_in_flight", "peer" => label()),
            expired: counter!("troupe_mesh_calls_expired_total", "peer" => label()),
            cancelled: counter!("troupe_mesh_calls_cancelled_total", "peer" => label()),
            given_up: counter!("troupe_mesh_bodies_given_up_total", "peer" => label()),
            peer,
        }
    }

    pub(super) fn up(&self) {
        self.links.increment(1);
    }

    pub(super) fn down(&self, end: &LinkEnd) {
        self.links.decrement(1);
        counter!("troupe_mesh_links_ended_total", "peer" => self.peer.clone(), "reason" => end.as_str()).increment(1);
    }
}
