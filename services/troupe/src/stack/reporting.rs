//! What this process tells the metrics service: here, or wherever it is.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;
use troupe_balancer::{Balancer, PoolSnapshot, WorkerSnapshot};
use troupe_contracts::snapshot::{Act, Complaint, Order, Outcome, Pool, Slow, Source, Worker};
use troupe_gateway::{SlowRequest, StageTime};
use troupe_mesh::port::Port;
use troupe_metrics::MetricsService;
use troupe_metrics::reporter::{Feeds, MAX_SLOW, Obey, Reporter, Subject, Tables};
use troupe_node::admin::{Api, Readiness};
use troupe_node::notices::Notice;
use troupe_node::threads::{DataThreads, Pinning, Watchdog, spawn_data_threads};

use super::start::Start;
use super::{THREADS_END, troubles};
use crate::failure::CommandError;
use crate::services::Service;

/// A thread that stands still for so long is something to tell.
const STALLED: Duration = Duration::from_secs(1);

/// The reporter and its thread.
pub(super) struct Reporting {
    reporter: Reporter,
    threads: DataThreads<Reporter>,
}

/// Starts to report on what was started, to `metrics` or whoever is it elsewhere; `None` where there is nobody to report to.
pub(super) async fn start(
    start: &mut Start<'_>,
    metrics: Option<&MetricsService>,
) -> Result<Option<Reporting>, CommandError> {
    let subject = subject(start);
    let failed = |error: String| CommandError::failed(format!("cannot start to report metrics: {error}"));
    let threads = if let Some(metrics) = metrics {
        let faces = metrics.faces();
        spawn_data_threads("reporter", 1, &Pinning::Off, move |_| {
            std::future::ready(Reporter::here(subject.clone(), Port::inline(faces())))
        })
    } else if let Some(links) = start.apart.metrics_links(start.config, start.services)? {
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

fn subject(start: &Start<'_>) -> Subject {
    let Start { services, node, api, apart, stack, .. } = start;
    let (uid, name) = apart.instance();
    let source = Source {
        uid: uid.0,
        instance: name.to_owned(),
        services: services.iter().map(Service::name).map(str::to_owned).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: 0,
    };
    let balancer = stack.balancer.as_ref();
    let tables = balancer.map(|balancer| {
        let balancer = Arc::clone(balancer);
        Arc::new(move || tables(&balancer)) as Arc<dyn Fn() -> Tables + Send + Sync>
    });
    let slow = stack.gateway.as_ref().map(|gateway| {
        let insight = gateway.insight();
        Arc::new(move || insight.slow(MAX_SLOW).into_iter().map(slow).collect())
            as Arc<dyn Fn() -> Vec<Slow> + Send + Sync>
    });
    let obey = balancer.map(|_| {
        let api = Api::clone(api);
        Arc::new(move |order| Box::pin(obey(api.clone(), order)) as Pin<Box<dyn Future<Output = Outcome>>>) as Obey
    });
    let (readiness, watchdog) = (node.readiness.clone(), node.watchdog.clone());
    let (notices, metrics) = (node.notices.clone(), node.metrics.clone());
    let php = stack.php.as_ref().map(Arc::downgrade);
    let complaints = Arc::new(move || {
        let php = php.as_ref().and_then(Weak::upgrade).map(|php| php.status()).unwrap_or_default();
        let mut complaints = complaints(&readiness, &watchdog);
        let troubles = troubles::list(&notices, &metrics, &php).into_iter();
        complaints.extend(troubles.map(|Notice { urgent, text }| Complaint { urgent, text }));
        complaints
    });
    let feeds = Feeds { tables, slow, complaints, obey };
    Subject { source, metrics: node.metrics.clone(), feeds, started: Instant::now() }
}

/// Carries out what an operator had ordered by way of the metrics service, as if it had been asked for here.
async fn obey(api: Api, order: Order) -> Outcome {
    let Order { id, act, worker } = order;
    let query = BTreeMap::from([("worker".to_owned(), worker)]);
    let (done, said) = match api.change(&format!("workers/{}", act.as_str()), query, "the dashboard").await {
        Ok(answer) => (true, told_of(act, &answer)),
        Err(refusal) => (false, refusal.detail),
    };
    Outcome { id, done, said }
}

fn told_of(act: Act, answer: &Value) -> String {
    match act {
        Act::Drain => "gets no new calls; it finishes those that it has".to_owned(),
        Act::Undrain => "takes calls again".to_owned(),
        Act::Restart => {
            let replaced = answer.get("replaced").and_then(Value::as_u64).unwrap_or_default();
            format!("{replaced} processes replaced")
        }
    }
}

fn slow(slow: SlowRequest) -> Slow {
    let stage = |stage: StageTime| (stage.stage.to_owned(), stage.us);
    Slow {
        ago_ms: slow.seconds_ago.saturating_mul(1_000),
        took_us: slow.took_us,
        method: slow.method,
        host: slow.host,
        path: slow.path,
        route: slow.route,
        status: slow.status,
        request_id: slow.request_id,
        trace_id: slow.trace_id,
        failed: slow.failed.unwrap_or_default().to_owned(),
        stages: slow.stages.into_iter().map(stage).collect(),
    }
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
        instance: worker.instance,
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

fn complaints(readiness: &Readiness, watchdog: &Watchdog) -> Vec<Complaint> {
    let report = readiness.report();
    let urgent = |text: String| Complaint { urgent: true, text };
    let mut complaints = Vec::new();
    if report.draining {
        let text = "it is draining: it finishes what it has and stops".to_owned();
        complaints.push(Complaint { urgent: false, text });
    } else {
        let unmet = report.conditions.into_iter().filter_map(|condition| condition.reason);
        complaints.extend(unmet.map(|reason| urgent(format!("not ready: {reason}"))));
    }
    for stalled in watchdog.stalled(STALLED) {
        let (thread, seconds) = (stalled.thread, stalled.since.as_secs_f64());
        let text = format!("the thread {thread} has not answered for {seconds:.1} s, and its connections wait");
        complaints.push(urgent(text));
    }
    complaints
}
