//! How the metrics service is put together: the collector on a thread of its own, its port, its pages.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::web;
use tokio::sync::watch;
use troupe_contracts::invoke::Invoke;
use troupe_contracts::snapshot::Snapshot;
use troupe_mesh::contract::{Contract, Envelope};
use troupe_mesh::failure::{Failure, Stage};
use troupe_mesh::port::{CallFuture, Service};
use troupe_mesh::supervise::{self, Handle, Mark, Spec, WhenStuck};
use troupe_node::admin::Access;
use troupe_node::metrics::Metrics;
use troupe_node::threads::{DataThreads, Pinning, Registration, Watchdog, spawn_data_threads};

use crate::cluster::Cluster;
use crate::collector::{Collector, Meters, Published, Take, Viewers};
use crate::pages::{self, Shown};

/// Snapshots that may wait for the collector: a part of each of the most instances there may be.
const INBOX: usize = 1_024;

/// Why there is no metrics service.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel refuses the thread.
    #[error("cannot start the metrics service's thread: {0}")]
    Thread(#[from] io::Error),
    /// The thread ended before it was ready.
    #[error("the metrics service's thread ended at its start: {0}")]
    Ended(String),
}

/// The metrics service of this process. It lives on a thread of its own until this is dropped.
#[derive(Debug)]
pub struct MetricsService {
    pub(crate) shown: Shown,
    threads: DataThreads<Handle<Collector>>,
}

/// Answers snapshots by handing them to the collector.
struct Face(Handle<Collector>);

impl MetricsService {
    /// Starts it. `metrics` are this process's, which know what the names mean.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the thread.
    pub async fn start(metrics: &Metrics) -> Result<Self, StartError> {
        let (publish, published) = watch::channel(Published::default());
        let viewers = Arc::new(Viewers::default());
        let init = {
            let (metrics, viewers) = (metrics.clone(), Arc::clone(&viewers));
            move |_| std::future::ready(start_collector(&metrics, publish.clone(), &viewers))
        };
        let mut threads = spawn_data_threads("collector", 1, &Pinning::Off, init)?;
        let handle = match threads.ready().await.into_iter().next() {
            Some(Ok(handle)) => handle,
            Some(Err(error)) => return Err(StartError::Ended(error.to_string())),
            None => return Err(StartError::Ended("no thread".to_owned())),
        };
        Ok(Self { shown: Shown::new(handle, published, viewers), threads })
    }

    /// What answers snapshots, for the calling thread.
    pub fn on_thread(&self) -> Rc<dyn Service<Snapshot>> {
        Rc::new(Face(self.shown.collector()))
    }

    /// Makes, on any thread, what answers snapshots there.
    pub fn faces(&self) -> impl Fn() -> Rc<dyn Service<Snapshot>> + Clone + Send + Sync + 'static {
        let shown = self.shown.clone();
        move || Rc::new(Face(shown.collector()))
    }

    /// Makes, on any thread, what answers gateways that show the dashboard. `access` is this process's; without a token, it is
    /// shown in `development` alone.
    pub fn dashboards(
        &self,
        access: &Access,
        development: bool,
    ) -> impl Fn() -> Rc<dyn Service<Invoke>> + Clone + Send + Sync + 'static + use<> {
        let (shown, access) = (self.shown.clone(), access.clone());
        move || Rc::new(pages::face::Face::new(shown.clone(), access.clone(), development))
    }

    /// Has the watchdog look at its thread.
    pub fn watch(&self, watchdog: &Watchdog) -> Vec<Registration> {
        self.threads.watch(watchdog)
    }

    /// Its pages for the admin listener: `/metrics/cluster` and the dashboard.
    pub fn pages(&self) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + Sync + 'static {
        let shown = self.shown.clone();
        move |app| pages::configure(app, &shown)
    }

    /// Ends it: dashboards that are open are told.
    pub async fn stop(self, wait: std::time::Duration) {
        self.shown.collector().stop();
        self.threads.stop_and_join(wait).await;
    }
}

fn start_collector(metrics: &Metrics, publish: watch::Sender<Published>, viewers: &Arc<Viewers>) -> Handle<Collector> {
    let cluster = Rc::new(RefCell::new(Cluster::new()));
    let (publish, meters) = (Rc::new(publish), Rc::new(Meters::new()));
    let (metrics, viewers) = (metrics.clone(), Arc::clone(viewers));
    let spec = Spec { inbox: INBOX, when_stuck: WhenStuck::Report, ..Spec::new("metrics") };
    supervise::start(spec, move || {
        Collector::new(
            Rc::clone(&cluster),
            metrics.clone(),
            Rc::clone(&publish),
            Arc::clone(&viewers),
            Rc::clone(&meters),
        )
    })
}

impl Service<Snapshot> for Face {
    fn call(&self, envelope: Envelope<Snapshot>) -> CallFuture<Snapshot> {
        let handle = self.0.clone();
        Box::pin(async move {
            let wait = envelope.deadline.remaining();
            // An instance whose snapshots the collector panics over is left out, instead of all of them.
            let mark = Mark::of(Snapshot::ID, &envelope.call.source.uid);
            handle.send_marked_within(mark, Take(envelope.call), wait).await.map_err(|error| {
                let failure = Failure::new(error.outcome(), Stage::Metrics, "the metrics service did not take it");
                if error.not_started() { failure.not_started() } else { failure }
            })
        })
    }
}
