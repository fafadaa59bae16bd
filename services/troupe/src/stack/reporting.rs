//! What this process tells the metrics service: here, or wherever it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use troupe_balancer::{Balancer, PoolSnapshot, WorkerSnapshot};
use troupe_contracts::snapshot::{Pool, Source, Worker};
use troupe_mesh::port::Port;
use troupe_metrics::MetricsService;
use troupe_metrics::reporter::{Feeds, Reporter, Subject, Tables};
use troupe_node::admin::Readiness;
use troupe_node::threads::{DataThreads, Pinning, Watchdog, spawn_data_threads};

use super::apart::Apart;
use super::{Node, THREADS_END};
use crate::config::Config;
use crate::failure::CommandError;
use crate::services::{Service, Services};

/// A thread that stands still for so long is something to tell.
const STALLED: Duration = Duration::from_secs(1);

/// The reporter and its thread.
pub(super) struct Reporting {
    reporter: Reporter,
    threads: DataThreads<Reporter>,
}

/// Starts to report on `services`; `None` where there is nobody to report to.
pub(super) async fn start(
    config: &Config,
    services: Services,
    apart: &mut Apart,
    node: &Node,
    (metrics, balancer): (Option<&MetricsService>, Option<&Arc<Balancer>>),
) -> Result<Option<Reporting>, CommandError> {
    let subject = subject(services, apart, node, balancer);
    let failed = |error: String| CommandError::failed(format!("cannot start to report metrics: {error}"));
    let threads = if let Some(metrics) = metrics {
        let faces = metrics.faces();
        spawn_data_threads("reporter", 1, &Pinning::Off, move |_| {
            std::future::ready(Reporter::here(subject.clone(), Port::inline(faces())))
        })
    } else if let Some(links) = apart.metrics_links(config, services)? {
        spawn_data_threads("reporter", 1, &Pinning::Off, move |_| {
            std::future::ready(Reporter::apart(subject.clone(), links()))
        })
    } else {
        return Ok(None);
    };
    let mut threads = threads.map_err(|error| failed(error.to_string()))?;
    match threads.ready().await.into_iter().next() {
        Some(Ok(reporter)) => Ok(Some(Reporting { reporter, threads })),
        Some(Err(error)) => Err(failed(error.to_string())),
        None => Err(failed("there is no thread".to_owned())),
    }
}

impl Reporting {
    /// Tells that the process stops, and ends.
    pub(super) async fn leave(self) {
        self.reporter.leave().await;
        self.threads.stop_and_join(THREADS_END).await;
    }
}

fn subject(services: Services, apart: &Apart, node: &Node, balancer: Option<&Arc<Balancer>>) -> Subject {
    let (uid, name) = apart.instance();
    let source = Source {
        uid: uid.0,
        instance: name.to_owned(),
        services: services.iter().map(Service::name).map(str::to_owned).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: 0,
    };
    let tables = balancer.map(|balancer| {
        let balancer = Arc::clone(balancer);
        Arc::new(move || tables(&balancer)) as Arc<dyn Fn() -> Tables + Send + Sync>
    });
    let (readiness, watchdog) = (node.readiness.clone(), node.watchdog.clone());
    let complaints = Arc::new(move || complaints(&readiness, &watchdog));
    Subject { source, metrics: node.metrics.clone(), feeds: Feeds { tables, complaints }, started: Instant::now() }
}

fn tables(balancer: &Balancer) -> Tables {
    let mut tables = Tables::default();
    for pool in balancer.snapshot().pools {
        let PoolSnapshot { pool: name, waiting, queue_max, all_out, workers, .. } = pool;
        tables.workers.extend(workers.into_iter().map(|worker| told(&name, worker)));
        tables.pools.push(Pool { pool: name, waiting, queue_max, all_out });
    }
    tables
}

fn told(pool: &str, worker: WorkerSnapshot) -> Worker {
    Worker {
        pool: pool.to_owned(),
        worker: worker.worker,
        state: worker.state.as_str().to_owned(),
        reason: worker.reason.to_owned(),
        score: worker.score,
        latency_us: worker.latency_us,
        in_flight: worker.in_flight,
        foreign: worker.foreign,
        cap: worker.cap,
        gain: worker.gain,
        error_rate: worker.error_rate,
        failures: worker.failures,
        load: worker.load,
    }
}

fn complaints(readiness: &Readiness, watchdog: &Watchdog) -> Vec<String> {
    let report = readiness.report();
    let mut complaints = Vec::new();
    if report.draining {
        complaints.push("it is draining: it finishes what it has and stops".to_owned());
    } else {
        let unmet = report.conditions.into_iter().filter_map(|condition| condition.reason);
        complaints.extend(unmet.map(|reason| format!("not ready: {reason}")));
    }
    for stalled in watchdog.stalled(STALLED) {
        let (thread, seconds) = (stalled.thread, stalled.since.as_secs_f64());
        complaints.push(format!("the thread {thread} has not answered for {seconds:.1} s, and its connections wait"));
    }
    complaints
}
