//! The process's metrics: one registry behind the `metrics` facade, read by `/metrics` and by whoever reports them
//! elsewhere, with the process's own figures beside it.
//!
//! Latencies are histograms with fixed buckets in seconds, so that replicas can be summed; the exporter's default,
//! summaries, cannot. The exporter's recorder is not used either: it keeps each sample until somebody folds it into its
//! bucket, and shows what it knows as text only. Its formatting writes the text.

mod buckets;
mod describe;
mod memory;
mod process;
mod registry;
mod text;

use std::sync::Arc;

use metrics::SetRecorderError;

use crate::telemetry;

pub use buckets::{Buckets, SECONDS, SIZES};
pub use describe::{Description, Kind, describe, described};
pub use process::{PROCESS_FAMILIES, ProcessFigures};
pub use registry::{MAX_SERIES, OVER, Reading, Registry, Series, counted};
pub use text::Text;

/// Which build this is, for `troupe_build_info`.
#[derive(Debug, Clone, Copy)]
pub struct BuildInfo {
    /// The version, as in `Cargo.toml`.
    pub version: &'static str,
    /// The commit, or `unknown`.
    pub commit: &'static str,
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the metrics recorder: {0}")]
pub struct MetricsError(#[from] SetRecorderError<Arc<Registry>>);

/// The process's metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
}

impl Metrics {
    /// Installs the process's recorder. Call once, before any service makes its handles: a handle made earlier stays
    /// without effect for ever.
    ///
    /// # Errors
    ///
    /// When the process has a recorder already.
    pub fn install(build: BuildInfo) -> Result<Self, MetricsError> {
        let registry = Arc::new(Registry::default());
        metrics::set_global_recorder(Arc::clone(&registry))?;
        describe();
        // There from the start, so that the first one is a rise.
        for name in ["troupe_node_panics_total", "troupe_node_log_lines_left_out_total", registry::REFUSED] {
            metrics::counter!(name).increment(0);
        }
        metrics::counter!("troupe_node_log_lines_dropped_total", "log" => telemetry::LOG).increment(0);
        metrics::gauge!(
            "troupe_build_info",
            "version" => build.version,
            "commit" => build.commit
        )
        .set(1.0);
        Ok(Self { registry })
    }

    /// Metrics of a recorder that nothing records to: for tests, where there is one process and many stacks.
    pub fn detached() -> Self {
        Self { registry: Arc::default() }
    }

    /// What has been registered, for whoever reads it series by series.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics in Prometheus text, the process's figures read now. Takes milliseconds: not for a data thread.
    pub fn render(&self) -> String {
        let mut text = Text::new(self.registry.descriptions());
        let mut series = self.registry.series_from(0);
        series.sort_by(|one, other| one.key().cmp(other.key()));
        for one in &series {
            match one.read() {
                Reading::Gauge(value) if value.is_nan() => {}
                reading => text.series(one.key(), &reading),
            }
        }
        if let Some(figures) = ProcessFigures::read() {
            for (name, value) in figures.families() {
                text.value(&metrics::Key::from_name(name), value);
            }
        }
        text.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installed_recorder_renders_the_build_and_the_process() {
        let metrics =
            Metrics::install(BuildInfo { version: "1.2.3", commit: "abc" }).expect("the only one of this process");
        let text = metrics.render();
        assert!(text.contains(r#"troupe_build_info{version="1.2.3",commit="abc"} 1"#), "{text}");
        assert!(text.contains("\ntroupe_node_resident_bytes "), "{text}");
        assert!(text.contains("# TYPE troupe_node_cpu_seconds_total counter"), "{text}");
        assert!(text.contains("# HELP troupe_node_cpu_seconds_total "), "{text}");
        assert!(Metrics::install(BuildInfo { version: "2", commit: "b" }).is_err());
    }
}
