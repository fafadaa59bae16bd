//! What the names of this crate mean.

use metrics::{Unit, describe_counter, describe_gauge};

/// Whether an instance is heard of, in the merged view.
pub(crate) const INSTANCE_UP: &str = "troupe_metrics_instance_up";

/// Describes what this crate counts.
pub fn describe() {
    describe_counter!("troupe_metrics_snapshots_sent_total", "Snapshots that this instance got rid of.");
    describe_counter!(
        "troupe_metrics_snapshots_lost_total",
        "Snapshots that the metrics service did not take in time; the next one makes up for them."
    );
    describe_counter!("troupe_metrics_snapshots_received_total", "Snapshots that the metrics service has taken.");
    describe_counter!(
        "troupe_metrics_refused_total",
        "What the metrics service had no room for, by `what`: `instance`, `series` or `viewer`."
    );
    describe_gauge!(
        "troupe_metrics_instances",
        "Instances that the metrics service knows, by `state`: `up` or `lost`."
    );
    describe_gauge!("troupe_metrics_series", "Series of the merged view.");
    describe_gauge!("troupe_metrics_viewers", "Dashboards that are open.");
    describe_gauge!(
        "troupe_metrics_merge_seconds",
        Unit::Seconds,
        "What the metrics service's last second of history took to work out."
    );
    describe_gauge!(
        INSTANCE_UP,
        "In /metrics/cluster alone: 1 while an instance is heard of, 0 once it is lost, by `service` and `instance`."
    );
}
