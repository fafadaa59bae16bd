//! A gateway that runs: bound, reloaded, drained.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_server::ServerHandle;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use troupe_node::config::LogFormat;
use troupe_node::telemetry::Origin;

use crate::access_log::AccessLog;
use crate::cache::config::WarmConfig;
use crate::cache::{Cache, l2};
use crate::config::{GatewayConfig, RouteConfig};
use crate::error::BindError;
use crate::explain::{Explainer, Explanation};
use crate::front::Shared;
use crate::metrics::{GatewayFigures, Metrics, SlowRequest};
use crate::router::{Labels, OwnPages, Problem, RouteTable};
use crate::server::{self, Blueprint, PortFactory, Predictor, Seats};

/// How often a drain looks whether the last connection is gone.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// How long the end of a drain waits for the threads to drop what they hold.
const THREADS_END: Duration = Duration::from_secs(1);

/// The HTTP front.
#[derive(Debug)]
pub struct Gateway;

/// What a gateway is told beside its configuration.
#[derive(Default)]
pub struct Options {
    /// HTTP threads, 1 to 512.
    pub threads: usize,
    /// Problem documents show what otherwise only logs show.
    pub development: bool,
    /// The cache, one for the whole process; `None`: nothing is cached.
    pub cache: Option<Arc<Cache>>,
    /// The way to whoever shows the dashboard, where the configuration asks for it.
    pub dashboard: Option<PortFactory>,
    /// Makes each thread's ports to the cache's second tier, where there is one.
    pub l2: Option<l2::PortsFactory>,
    /// What is fetched into the cache before anybody asks for it.
    pub warm: WarmConfig,
    /// The shape of the access log, where the configuration asks for one.
    pub log_format: LogFormat,
    /// Who writes it.
    pub log_origin: Origin,
    /// Where the access log goes; `None` is stderr.
    pub log_to: Option<Box<dyn io::Write + Send>>,
}

/// A gateway that serves. Dropping it closes all connections at once.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    labels: Arc<Mutex<Labels>>,
    metrics: Metrics,
    seats: Arc<Seats>,
    handle: ServerHandle,
    stop: Option<oneshot::Sender<()>>,
    done: watch::Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

/// A gateway's figures and routes, readable from any thread and after its end.
#[derive(Debug, Clone)]
pub struct Insight {
    metrics: Metrics,
    explainer: Explainer,
}

impl Insight {
    /// The figures now.
    pub fn figures(&self) -> GatewayFigures {
        self.metrics.figures()
    }

    /// The slowest requests of the last quarter of an hour, the slowest first, at most so many.
    pub fn slow(&self, most: usize) -> Vec<SlowRequest> {
        self.metrics.slow(most)
    }

    /// Waits, for less than a second, until the access log has its last lines: for the end of a process, once the gateway has
    /// stopped.
    pub async fn logged(&self) {
        if let Some(log) = self.metrics.log() {
            log.written().await;
        }
    }

    /// To be called each second: figures about the last seconds are compared with what is noted here.
    pub fn note(&self) {
        self.metrics.note();
    }

    /// What the gateway would do with a request.
    pub fn explain(&self, method: &str, host: &str, target: &str) -> Explanation {
        self.explainer.explain(method, host, target)
    }
}

/// Gives a gateway that runs new routes and bounds, from any thread.
#[derive(Debug, Clone)]
pub struct Tuner {
    shared: Arc<Shared>,
    /// Labels that its routes have had.
    labels: Arc<Mutex<Labels>>,
}

impl Tuner {
    /// Makes new routes ready to be taken.
    ///
    /// # Errors
    /// When routes are wrong.
    pub fn prepare(&self, routes: &[RouteConfig]) -> Result<Routes, Vec<Problem>> {
        // A copy: routes that are never taken, as the rest of a reload failed, leave no labels behind.
        let mut labels = self.labels.lock().clone();
        let table = RouteTable::build_after(&mut labels, routes, self.shared.own)?;
        Ok(Routes { table, labels })
    }

    /// Takes new routes; with them, of `config`: how long requests, bodies, heads and idle connections may take, how large
    /// heads and bodies may be, and how many requests a connection may have. The rest of `config` is what it was started
    /// with. Requests under way finish on the old ones.
    pub fn take(&self, routes: Routes, config: &GatewayConfig) {
        *self.labels.lock() = routes.labels;
        self.shared.routes.store(Arc::new(routes.table));
        self.shared.tuning.send_replace(Arc::new(config.clone()));
    }
}

/// Routes that fit together.
#[derive(Debug)]
pub struct Routes {
    table: RouteTable,
    /// Those given out before, and to these routes.
    labels: Labels,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open when the time was up; they are closed.
    pub cut_off: usize,
}

impl Gateway {
    /// Binds all addresses and starts serving. Blocks until the threads are up, which takes as long as the slowest
    /// `ports` call.
    ///
    /// # Errors
    /// When routes are wrong, an address cannot be had, or a thread does not start. Nothing is left behind.
    pub fn bind(
        config: GatewayConfig,
        routes: &[RouteConfig],
        options: Options,
        ports: PortFactory,
    ) -> Result<Running, BindError> {
        let own = OwnPages::of(&config);
        let mut labels = Labels::default();
        let table = RouteTable::build_after(&mut labels, routes, own).map_err(BindError::Routes)?;
        if config.listen.is_empty() {
            return Err(BindError::NoAddress);
        }
        let mut listeners = Vec::with_capacity(config.listen.len());
        let mut addresses = Vec::with_capacity(config.listen.len());
        for listen in &config.listen {
            let failed = |source| BindError::listen(listen.address, source);
            let listener = server::listen(listen.address).map_err(failed)?;
            addresses.push(listener.local_addr().map_err(failed)?);
            listeners.push(listener);
        }
        let threads = options.threads.clamp(1, server::MAX_THREADS);
        let routes = Arc::new(ArcSwap::from_pointee(table));
        if let Some(cache) = &options.cache {
            cache.follow(&routes);
        }
        let shared = Arc::new(Shared {
            routes,
            draining: AtomicBool::new(false),
            drain: watch::Sender::new(false),
            tuning: watch::Sender::new(Arc::new(config.clone())),
            own,
            development: options.development,
            cache: options.cache.clone(),
        });
        let log = match config.access_log {
            true => Some(
                AccessLog::start(options.log_format, options.log_origin, options.log_to).map_err(BindError::Threads)?,
            ),
            false => None,
        };
        let metrics = Metrics::new(log, options.cache);
        let seats = Seats::new(threads);
        let blueprint = Blueprint {
            config: Arc::new(config),
            shared: Arc::clone(&shared),
            metrics: metrics.clone(),
            ports,
            dashboard: options.dashboard,
            l2: options.l2,
            predictor: (options.warm.predict > 0)
                .then(|| Predictor::new(options.warm.predict, options.warm.predict_most)),
            warm: options.warm,
            threads,
            seats: Arc::clone(&seats),
        };
        let (stop, stopped) = oneshot::channel();
        let (done_tx, done) = watch::channel(false);
        let (started_tx, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("gateway".to_owned())
            .spawn(move || {
                let system = actix_rt::System::new();
                system.block_on(serve(listeners, &blueprint, stopped, &started_tx));
                let _ = done_tx.send(true);
            })
            .map_err(BindError::Threads)?;
        let handle = match started.recv() {
            Ok(Ok(handle)) => handle,
            Ok(Err(error)) => return Err(BindError::Threads(error)),
            Err(_) => {
                return Err(BindError::Threads(io::Error::other(
                    "the server's thread died; the panic before this line says why",
                )));
            }
        };
        Ok(Running {
            addresses,
            shared,
            labels: Arc::new(Mutex::new(labels)),
            metrics,
            seats,
            handle,
            stop: Some(stop),
            done,
            thread: Some(thread),
        })
    }
}

async fn serve(
    listeners: Vec<std::net::TcpListener>,
    blueprint: &Blueprint,
    stopped: oneshot::Receiver<()>,
    started: &std::sync::mpsc::SyncSender<io::Result<ServerHandle>>,
) {
    let server = match server::build(listeners, blueprint) {
        Ok(server) => server,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let handle = server.handle();
    let mut server = pin!(server);
    // The first poll starts the threads and tells whether that worked.
    let first = std::future::poll_fn(|context| Poll::Ready(server.as_mut().poll(context))).await;
    if let Poll::Ready(outcome) = first {
        let error = outcome.err().unwrap_or_else(|| io::Error::other("the server stopped while it was starting"));
        let _ = started.send(Err(error));
        return;
    }
    let _ = started.send(Ok(handle));
    tokio::select! {
        outcome = server => {
            if let Err(error) = outcome {
                tracing::error!(%error, "the http server stopped");
            }
        }
        // Either told to, or the handle was dropped: dropping the server closes what is open.
        _ = stopped => {}
    }
}

impl Running {
    /// Where it listens, in the order of the configuration; ports that the kernel chose are filled in.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.metrics.connections()
    }

    /// What is told to people who ask: the figures, and what would be done with a request.
    pub fn insight(&self) -> Insight {
        Insight { metrics: self.metrics.clone(), explainer: Explainer { shared: Arc::clone(&self.shared) } }
    }

    /// Answers 503 at `/health` from now on and closes connections behind their current answer, but still accepts: for
    /// the time that balancers in front need to notice.
    pub fn unready(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// What takes new routes and bounds while it runs.
    pub fn tuner(&self) -> Tuner {
        Tuner { shared: Arc::clone(&self.shared), labels: Arc::clone(&self.labels) }
    }

    /// Stops accepting, closes idle connections, lets requests in flight finish for at most `timeout`, and stops.
    pub async fn drain(mut self, timeout: Duration) -> Drained {
        self.unready();
        let _ = self.shared.drain.send(true);
        // Closes the listeners at once; what it waits for beyond that is watched below.
        let stopping = self.handle.stop(true);
        let deadline = tokio::time::Instant::now() + timeout;
        while self.metrics.connections() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        let cut_off = self.metrics.connections();
        drop(stopping);
        self.stop_now();
        let _ = self.done.wait_for(|done| *done).await;
        self.join();
        // The ports live on the threads; when this returns they are gone too, unless a thread hangs.
        let deadline = tokio::time::Instant::now() + THREADS_END;
        while !self.seats.are_free() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_POLL).await;
        }
        Drained { cut_off }
    }

    fn stop_now(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the http server's thread panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop_now();
        self.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::{Found, MAX_ROUTE_LABELS};

    const OWN: OwnPages = OwnPages { health: false, dashboard: false };

    fn tuner() -> Tuner {
        let table = RouteTable::build(&[], OWN).unwrap();
        let shared = Shared {
            routes: Arc::new(ArcSwap::from_pointee(table)),
            draining: AtomicBool::new(false),
            drain: watch::Sender::new(false),
            tuning: watch::Sender::new(Arc::default()),
            own: OWN,
            development: false,
            cache: None,
        };
        Tuner { shared: Arc::new(shared), labels: Arc::default() }
    }

    #[test]
    fn labels_are_given_out_by_the_routes_that_are_taken_and_by_no_others() {
        let tuner = tuner();
        let prepare = |reload: usize| {
            let route = |number| RouteConfig {
                path: format!("/{reload}/{number}"),
                function: Some("f".into()),
                ..RouteConfig::default()
            };
            tuner.prepare(&(0..MAX_ROUTE_LABELS).map(route).collect::<Vec<_>>()).expect("they fit together")
        };
        let labelled = |table: &RouteTable, path: &str| match table.find("", "GET", path) {
            Found::Route(matched) => table.id(&matched).labelled,
            _ => panic!("{path} is a route"),
        };
        for reload in 0..9 {
            assert!(labelled(&prepare(reload).table, &format!("/{reload}/0")), "the {reload} before were dropped");
        }
        for (reload, room) in [(10, true), (11, true), (12, false), (11, true)] {
            tuner.take(prepare(reload), &GatewayConfig::default());
            let path = format!("/{reload}/0");
            assert_eq!(labelled(&tuner.shared.routes.load(), &path), room, "{path}");
        }
    }
}
