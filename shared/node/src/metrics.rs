//! The process's metrics: one Prometheus recorder, kept small by upkeep, with the process's own figures beside it.
//!
//! Latencies are histograms with fixed buckets in seconds, so that replicas can be summed; the exporter's default,
//! summaries, cannot. The exporter's own listener is not used: it answers on every path and on every address.

mod process;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::SetRecorderError;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;

pub use process::ProcessFigures;

/// Bucket bounds of every histogram, in seconds: from a cache hit to the default timeout of a function.
pub const BUCKETS: [f64; 16] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The recorder keeps raw samples until upkeep folds them into the buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

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
pub enum MetricsError {
    /// The process has a recorder already.
    #[error("cannot install the metrics recorder: {0}")]
    Installed(#[from] SetRecorderError<PrometheusRecorder>),
    /// The recorder refuses its settings.
    #[error("cannot set up the metrics recorder: {0}")]
    Build(#[from] BuildError),
    /// The kernel refuses the upkeep's thread.
    #[error("cannot start the metrics upkeep: {0}")]
    Thread(#[from] std::io::Error),
}

/// The process's metrics. Clones share them; upkeep ends with the last one.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    _upkeep: Option<Arc<Upkeep>>,
}

impl Metrics {
    /// Installs the process's recorder. Call once, before any service makes its handles: a handle made earlier stays
    /// without effect for ever.
    ///
    /// # Errors
    ///
    /// When the process has a recorder already, or its upkeep's thread cannot be started.
    pub fn install(build: BuildInfo) -> Result<Self, MetricsError> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder)?;
        metrics::gauge!(
            "troupe_build_info",
            "version" => build.version,
            "commit" => build.commit
        )
        .set(1.0);
        Ok(Self { _upkeep: Some(Arc::new(Upkeep::start(handle.clone())?)), handle })
    }

    /// Metrics of a recorder that nothing records to: for tests, where there is one process and many stacks.
    pub fn detached() -> Self {
        Self { handle: PrometheusBuilder::new().build_recorder().handle(), _upkeep: None }
    }

    /// All metrics in Prometheus text, the process's figures read now. Takes milliseconds: not for a data thread.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        if let Some(figures) = ProcessFigures::read() {
            figures.write_prometheus(&mut text);
        }
        text
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    Ok(PrometheusBuilder::new()
        .set_buckets(&BUCKETS)?
        // Adds `_total` and a described unit where a name lacks them; ours have both.
        .with_recommended_naming(true)
        .build_recorder())
}

#[derive(Debug)]
struct Upkeep {
    signal: Mutex<Option<SyncSender<()>>>,
    join: Mutex<Option<JoinHandle<()>>>,
}

impl Upkeep {
    fn start(handle: PrometheusHandle) -> std::io::Result<Self> {
        let (signal, stopped) = sync_channel::<()>(1);
        let join = std::thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(move || {
            while stopped.recv_timeout(UPKEEP_EVERY) == Err(RecvTimeoutError::Timeout) {
                handle.run_upkeep();
            }
        })?;
        Ok(Self { signal: Mutex::new(Some(signal)), join: Mutex::new(Some(join)) })
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.signal.lock().take();
        if let Some(join) = self.join.lock().take() {
            let _ = join.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::Unit;

    use super::*;

    #[test]
    fn names_stay_as_they_are_and_latencies_are_histograms() {
        let recorder = recorder().expect("valid");
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            metrics::describe_counter!("troupe_gateway_requests_total", Unit::Count, "requests");
            metrics::describe_histogram!("troupe_gateway_request_seconds", Unit::Seconds, "time");
            metrics::counter!("troupe_gateway_requests_total").increment(3);
            metrics::gauge!("troupe_balancer_inflight").set(2.0);
            metrics::histogram!("troupe_gateway_request_seconds").record(0.0002);
        });
        let text = handle.render();
        assert!(text.contains("\ntroupe_gateway_requests_total 3\n"), "{text}");
        assert!(text.contains("\ntroupe_balancer_inflight 2\n"), "{text}");
        assert!(text.contains("troupe_gateway_request_seconds_bucket{le=\"0.00025\"} 1\n"), "{text}");
        assert!(!text.contains("_total_total") && !text.contains("_seconds_seconds"), "{text}");
    }

    #[test]
    fn the_installed_recorder_renders_the_build_and_the_process() {
        let metrics =
            Metrics::install(BuildInfo { version: "1.2.3", commit: "abc" }).expect("the only one of this process");
        let text = metrics.render();
        assert!(text.contains(r#"troupe_build_info{version="1.2.3",commit="abc"} 1"#), "{text}");
        assert!(text.contains("\ntroupe_node_resident_bytes "), "{text}");
        assert!(text.contains("# TYPE troupe_node_cpu_seconds_total counter"), "{text}");
        assert!(Metrics::install(BuildInfo { version: "2", commit: "b" }).is_err());
    }
}
