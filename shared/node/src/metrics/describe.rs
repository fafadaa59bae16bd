//! What the names mean: registered beside the handles, shown by scrapes and by `docs/metrics.md`.

use std::collections::BTreeMap;

use metrics::{Unit, describe_counter, describe_gauge};

use super::process::PROCESS_FAMILIES;
use super::registry::{REFUSED, Registry};

/// What kind of series a name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Only rises, from the process's start on.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values by bucket.
    Histogram,
}

impl Kind {
    /// The name in Prometheus text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its kind.
    pub kind: Kind,
    /// Its unit, where it has one.
    pub unit: Option<Unit>,
    /// What it tells, with its labels in backquotes.
    pub meaning: String,
}

/// Describes what this crate counts.
pub fn describe() {
    describe_gauge!("troupe_build_info", "Always 1: the build, by `version` and `commit`.");
    describe_counter!("troupe_node_panics_total", "Panics that were caught, anywhere in the process.");
    describe_counter!(
        "troupe_node_log_lines_dropped_total",
        "Log lines that were dropped because stderr took no more, by `log`."
    );
    describe_gauge!(
        "troupe_node_config_reload_ok",
        "Whether the configuration that was read last serves: 0 while it is broken and the one before goes on."
    );
    describe_counter!(
        "troupe_node_config_reloads_total",
        "Times that the configuration was read anew, by `outcome`: `taken` or `refused`."
    );
    describe_counter!(
        "troupe_node_log_lines_left_out_total",
        "Log lines that were not written because they repeated one that was; the log tells how often."
    );
    describe_gauge!(
        "troupe_node_stall_seconds",
        Unit::Seconds,
        "For how long the event loop of a `thread` has not answered; 0 while it does."
    );
    describe_gauge!(
        "troupe_node_loop_lag_seconds",
        Unit::Seconds,
        "How long the event loop of a `thread` took to answer when it was last asked: what every event waits there."
    );
    describe_counter!("troupe_node_stalls_total", "Times that the event loop of a `thread` did not answer in time.");
    describe_counter!(REFUSED, "Series that were not made because the process has too many.");
    for family in &PROCESS_FAMILIES {
        match family.kind {
            Kind::Counter => describe_counter!(family.name, family.meaning),
            _ => describe_gauge!(family.name, family.meaning),
        }
    }
}

/// What `describe` registers: for pages about metrics, which are written where nothing runs.
pub fn described(describe: impl FnOnce()) -> BTreeMap<String, Description> {
    let registry = Registry::default();
    metrics::with_local_recorder(&registry, describe);
    registry.descriptions()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_units() {
        let all = described(describe);
        assert!(all.contains_key("troupe_node_resident_bytes"));
        for (name, description) in all {
            assert_eq!(name.ends_with("_total"), description.kind == Kind::Counter, "{name}");
            assert!(description.meaning.ends_with('.'), "{name}");
        }
    }
}
