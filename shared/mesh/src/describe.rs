//! What the names of this crate mean.

use metrics::{Unit, describe_counter, describe_gauge};

/// Describes what links, discovery and supervised actors count.
pub fn describe() {
    links();
    actors();
    discovery();
}

fn discovery() {
    describe_gauge!(
        "troupe_discovery_stale_seconds",
        Unit::Seconds,
        "For how long the names of the instances of a `peer`, a service or an upstream, could not be looked up; what was found last is used on."
    );
    describe_counter!(
        "troupe_discovery_failed_lookups_total",
        "Look-ups of the names of the instances of a `peer`, a service or an upstream, that failed, by `cause`: `dns` (the resolver says no), `empty` (the name has no address) or `timeout` (6 seconds without an answer, which is taken when it comes)."
    );
    describe_gauge!(
        "troupe_discovery_instances",
        "Instances of a `peer`'s service that Redis names, by `state`: `up`, `draining` or `missing` (dialled still, though Redis names them no more)."
    );
    describe_gauge!(
        "troupe_discovery_redis_up",
        "1 while membership reaches Redis, 0 while what was known last is used on."
    );
    describe_counter!("troupe_discovery_redis_failures_total", "Attempts of membership at Redis that failed.");
    describe_counter!(
        "troupe_discovery_rejected_total",
        "Entries of Redis that name no instance, and were left out, by the `peer`'s service."
    );
}

fn links() {
    describe_gauge!("troupe_mesh_links", "Links that are up, by the `peer`'s service.");
    describe_gauge!("troupe_mesh_calls_in_flight", "Calls under way on links, by the `peer`'s service.");
    describe_counter!("troupe_mesh_frames_sent_total", "Frames written to links, by the `peer`'s service.");
    describe_counter!("troupe_mesh_frames_received_total", "Frames read from links, by the `peer`'s service.");
    describe_counter!(
        "troupe_mesh_writes_total",
        "Writes to links, by the `peer`'s service; frames per write say how well they are batched."
    );
    describe_counter!("troupe_mesh_sent_bytes_total", "Bytes written to links, by the `peer`'s service.");
    describe_counter!("troupe_mesh_received_bytes_total", "Bytes read from links, by the `peer`'s service.");
    describe_counter!(
        "troupe_mesh_calls_expired_total",
        "Calls dropped on links because their deadline had passed, by the `peer`'s service."
    );
    describe_counter!(
        "troupe_mesh_calls_cancelled_total",
        "Calls on links whose caller left, by the `peer`'s service."
    );
    describe_counter!(
        "troupe_mesh_bodies_given_up_total",
        "Bodies off links that were broken off because their readers had stopped taking them and links held too much for such readers, by the `peer`'s service."
    );
    describe_counter!("troupe_mesh_links_ended_total", "Links that ended, by the `peer`'s service and `reason`.");
    describe_counter!(
        "troupe_mesh_failed_dials_total",
        "Attempts at a link that failed, by the `peer`'s service and `cause`: `refused` (nobody listens), `timeout`, `unreachable`, `reset`, `key` (the keys differ), `protocol`, `busy` (it has links enough, or drains), `stranger` (another service is there) or `other`."
    );
    describe_counter!(
        "troupe_mesh_refused_links_total",
        "Connections of peers that became no link, by `cause`: `busy` (there are links enough, or this instance drains), `key` (the keys differ), `protocol`, `timeout`, `reset` or `other`."
    );
    describe_counter!(
        "troupe_mesh_handler_panics_total",
        "Calls off links or out of mailboxes whose answering panicked, by `contract`."
    );
}

fn actors() {
    describe_gauge!("troupe_actor_inbox_depth", "Messages that wait for actors, by kind of `actor`.");
    describe_counter!("troupe_actor_inbox_full_total", "Messages that found an inbox full, by kind of `actor`.");
    describe_counter!(
        "troupe_actor_stalls_total",
        "Times that an actor took no message for long although some waited, by kind of `actor`."
    );
    describe_counter!(
        "troupe_actor_failed_messages_total",
        "Messages during which an actor panicked, by kind of `actor`."
    );
    describe_counter!(
        "troupe_actor_poison_messages_total",
        "Messages refused because they had made an actor panic twice, by kind of `actor`."
    );
    describe_counter!("troupe_actor_escalations_total", "Actors given up after too many restarts, by kind of `actor`.");
    describe_counter!(
        "troupe_actor_restarts_total",
        "Actors made anew, by kind of `actor` and `reason`: `panic`, `stop` or `stuck`."
    );
}
