//! What this process has counted of its cache and of failures beside requests, for people who ask it: read from the same
//! series that `/metrics` shows.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use troupe_node::metrics::{Metrics, Reading};

/// Counts by the value of a label.
type ByLabel = BTreeMap<String, f64>;

/// The section `cache`: what the tiers were asked and what they gave; null in a process that has no cached route in use.
pub(super) fn cache(metrics: &Metrics) -> Value {
    let requests = |tier| by_label(metrics, "troupe_gateway_cache_requests_total", &[("tier", tier)], "result");
    let (own, shared) = (requests("l1"), requests("l2"));
    if own.is_empty() && shared.is_empty() {
        return Value::Null;
    }
    let sum = |name| by_label(metrics, name, &[], "tier").values().sum::<f64>();
    json!({
        "l1": own,
        "l2": shared,
        "l2_lookups": by_label(metrics, "troupe_gateway_cache_l2_lookups_total", &[], "result"),
        "bytes": sum("troupe_gateway_cache_bytes"),
        "objects": sum("troupe_gateway_cache_objects"),
        "evicted": sum("troupe_gateway_cache_evicted_total"),
    })
}

/// The section `failures`: connections and calls that failed at upstream servers, and at other services, by cause.
pub(super) fn failures(metrics: &Metrics) -> Value {
    json!({
        "upstreams": by_label(metrics, "troupe_balancer_upstream_errors_total", &[], "cause"),
        "links": by_label(metrics, "troupe_mesh_failed_dials_total", &[], "cause"),
    })
}

/// The series of `name` with these labels, summed by the value of `label`; what there was none of is left out.
fn by_label(metrics: &Metrics, name: &str, labels: &[(&str, &str)], label: &str) -> ByLabel {
    let mut sums = ByLabel::new();
    for series in metrics.registry().series_from(0) {
        let key = series.key();
        let value = |wanted: &str| key.labels().find(|one| one.key() == wanted).map(metrics::Label::value);
        if key.name() != name || !labels.iter().all(|(name, wanted)| value(name) == Some(wanted)) {
            continue;
        }
        let read = match series.read() {
            Reading::Counter(count) => count as f64,
            Reading::Gauge(value) => value,
            Reading::Histogram { .. } => continue,
        };
        if let Some(value) = value(label).filter(|_| read > 0.0) {
            *sums.entry(value.to_owned()).or_default() += read;
        }
    }
    sums
}
