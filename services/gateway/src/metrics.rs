//! What is counted. A thread counts for itself, without atomics, and adds its counts to the process's metrics a few
//! times a second; so a request costs a handful of plain additions.

mod faults;
mod route;
mod routes;
mod slow;
mod totals;
mod tunnels;
mod volume;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

use troupe_wire::head::RequestHead;

use crate::access_log::{AccessLog, Entry, Spool};
use crate::cache::{Cache, CacheResult};
use crate::request::{Incoming, Method, Trace};
use crate::router::RouteId;
use crate::server::Reject;
use faults::Faults;
use routes::Routes;
use totals::Totals;
use tunnels::Tunnels;
use volume::Volume;

use slow::STAGES;
pub use slow::{SlowRequest, Span, StageTime};
pub use totals::{ByClass, GatewayFigures};

pub(crate) use slow::{Noted, Stages};
use slow::{Seen, Slowest};

pub(crate) use faults::Fault;
pub(crate) use routes::OTHER_ROUTES;
pub(crate) use tunnels::Passage;
pub(crate) use volume::Cause;

/// The process's metrics of a gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    connections: Arc<AtomicUsize>,
    tunnels: Arc<AtomicUsize>,
    totals: Arc<Totals>,
    slowest: Arc<Slowest>,
    log: Option<AccessLog>,
    cache: Option<Arc<Cache>>,
}

/// One thread's counts.
pub(crate) struct ThreadMetrics {
    metrics: Metrics,
    opened: Cell<u64>,
    closed: Cell<u64>,
    begun: Cell<u64>,
    ended: Cell<u64>,
    rejected: RefCell<[u64; Reject::ALL.len()]>,
    routes: RefCell<Routes>,
    slow: RefCell<slow::Spool>,
    volume: RefCell<Volume>,
    tunnels: Tunnels,
    faults: Faults,
    log: Option<RefCell<Spool>>,
    handles: Handles,
}

struct Handles {
    connections: Gauge,
    opened: Counter,
    in_flight: Gauge,
    rejected: Vec<Counter>,
    cache: Option<CacheHandles>,
}

struct CacheHandles {
    cache: Arc<Cache>,
    bytes: Gauge,
    objects: Gauge,
}

/// A request that is being counted, until it is dropped.
pub(crate) struct Ticket {
    metrics: Rc<ThreadMetrics>,
    received: Instant,
    method: Method,
    /// None of a request that was refused before it was one.
    head: Option<RequestHead>,
    trace: Trace,
    noted: Noted,
    slot: usize,
    cached: Option<CacheResult>,
    entry: Option<Box<Entry>>,
    cause: Option<Cause>,
    aside: bool,
    ended: bool,
}

impl Metrics {
    pub(crate) fn new(log: Option<AccessLog>, cache: Option<Arc<Cache>>) -> Self {
        Self {
            connections: Arc::default(),
            tunnels: Arc::default(),
            totals: Arc::default(),
            slowest: Arc::default(),
            log,
            cache,
        }
    }

    /// The counts of the calling thread.
    pub(crate) fn thread(&self) -> Rc<ThreadMetrics> {
        Rc::new(ThreadMetrics {
            metrics: self.clone(),
            opened: Cell::new(0),
            closed: Cell::new(0),
            begun: Cell::new(0),
            ended: Cell::new(0),
            rejected: RefCell::new([0; Reject::ALL.len()]),
            routes: RefCell::new(Routes::new()),
            slow: RefCell::default(),
            volume: RefCell::new(Volume::new()),
            tunnels: Tunnels::new(),
            faults: Faults::new(),
            log: self.log.as_ref().map(|log| RefCell::new(log.spool())),
            handles: Handles {
                connections: gauge!("troupe_gateway_connections"),
                opened: counter!("troupe_gateway_connections_opened_total"),
                in_flight: gauge!("troupe_gateway_requests_in_flight"),
                rejected: Reject::ALL
                    .iter()
                    .map(|reject| counter!("troupe_gateway_heads_rejected_total", "reason" => reject.as_str()))
                    .collect(),
                cache: self.cache.clone().map(|cache| CacheHandles {
                    cache,
                    bytes: gauge!("troupe_gateway_cache_bytes", "tier" => "l1"),
                    objects: gauge!("troupe_gateway_cache_objects", "tier" => "l1"),
                }),
            },
        })
    }

    /// Connections that are open, over all threads.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The access log, where there is one.
    pub(crate) fn log(&self) -> Option<&AccessLog> {
        self.log.as_ref()
    }

    /// The figures for people, now.
    pub(crate) fn figures(&self) -> GatewayFigures {
        self.totals.figures((self.connections(), self.tunnels.load(Ordering::Relaxed)), Instant::now())
    }

    /// The slowest requests of the last quarter of an hour, at most so many.
    pub(crate) fn slow(&self, most: usize) -> Vec<SlowRequest> {
        self.slowest.list(most, Instant::now())
    }

    /// Notes what the figures of the next seconds are compared with.
    pub(crate) fn note(&self) {
        self.totals.note(Instant::now());
    }
}

/// Describes what a gateway counts.
pub fn describe() {
    faults::describe();
    tunnels::describe();
    crate::cache::l2::describe();
    describe_counter!(
        "troupe_gateway_requests_total",
        "Requests answered, by `route` (its pattern; `_other` beyond the first 200 of the configuration, and for new ones beyond 400 since the start; `none` where none matched), `method` (`_other`: an unusual one) and `status` (`1xx`, `2xx`, `3xx`, `4xx`, `5xx`; `aborted`: the client left or the answer broke off)."
    );
    describe_histogram!(
        "troupe_gateway_request_duration_seconds",
        Unit::Seconds,
        "From the complete head to the last byte handed to the connection, by `route`."
    );
    describe_gauge!("troupe_gateway_connections", "Client connections that are open.");
    describe_counter!("troupe_gateway_connections_opened_total", "Client connections accepted.");
    describe_gauge!("troupe_gateway_requests_in_flight", "Requests that are being answered.");
    describe_counter!(
        "troupe_gateway_heads_rejected_total",
        "Connections closed because of what they sent, by `reason`."
    );
    describe_counter!(
        "troupe_gateway_errors_total",
        "Requests that failed with a 5xx or a 429, by `cause`: `application` answered so itself or threw, `deadline` is a timeout, `overloaded` a full queue, `unreachable` a service that is away, `broken` a worker that died, `internal` a fault of Troupe."
    );
    describe_counter!("troupe_gateway_received_bytes_total", Unit::Bytes, "Bytes of request bodies.");
    describe_counter!("troupe_gateway_sent_bytes_total", Unit::Bytes, "Bytes of response bodies.");
    describe_histogram!("troupe_gateway_request_size_bytes", Unit::Bytes, "Sizes of request bodies.");
    describe_histogram!("troupe_gateway_response_size_bytes", Unit::Bytes, "Sizes of response bodies.");
    describe_counter!(
        "troupe_gateway_access_log_dropped_total",
        "Lines of the access log dropped because the writer could not keep up."
    );
    describe_counter!(
        "troupe_gateway_cache_requests_total",
        "Requests of cached routes, by `route`, `tier` (`l1`; `l2` of what the second tier had, fresh or stale) and `result`: `hit`, `miss`, `pass` (not for the cache), `stale`, `revalidated`, `collapsed` (answered by what another one fetched)."
    );
    describe_counter!(
        "troupe_gateway_cache_sent_bytes_total",
        Unit::Bytes,
        "Bytes of the bodies that answered them, by `route`, `tier` and `result`."
    );
    describe_gauge!("troupe_gateway_cache_bytes", Unit::Bytes, "Memory that stored answers take, by `tier`.");
    describe_gauge!("troupe_gateway_cache_objects", "URLs that are known to the store, by `tier`.");
    describe_counter!(
        "troupe_gateway_cache_warmed_total",
        "URLs fetched before anybody asked for them, by `why` (`start`, `schedule`, `predicted`) and `result` (`fetched`, `fresh`: it was there, `failed`)."
    );
    describe_counter!(
        "troupe_gateway_cdn_purges_total",
        "Purges that the content delivery network in front was to be told of, by `result` (`told`, `failed`, `skipped`: no words for its kind, `dropped`: too many waited)."
    );
    describe_gauge!("troupe_gateway_cdn_purges_waiting", "Purges that it is not told of yet.");
    describe_counter!(
        "troupe_gateway_cache_evicted_total",
        "URLs whose answers had to make room for others, by `tier` and `route`."
    );
}

impl ThreadMetrics {
    pub(crate) fn connection_opened(&self) {
        self.metrics.connections.fetch_add(1, Ordering::Relaxed);
        self.opened.set(self.opened.get() + 1);
    }

    pub(crate) fn connection_closed(&self) {
        self.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        self.closed.set(self.closed.get() + 1);
    }

    /// A client's connection failed.
    pub(crate) fn connection_failed(&self, fault: Fault) {
        self.faults.add(fault);
    }

    /// A client's connection failed for what it sent, or did not send.
    pub(crate) fn rejected(&self, reject: Reject) {
        self.faults.add(if reject == Reject::HeadTimeout { Fault::HeadTimeout } else { Fault::Protocol });
        let place = Reject::ALL.iter().position(|one| *one == reject);
        let mut counts = self.rejected.borrow_mut();
        if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
            *count += 1;
        }
    }

    /// Begins to count a request.
    pub(crate) fn begin(self: &Rc<Self>, incoming: &Incoming) -> Ticket {
        let (received, method, head, trace) = match incoming {
            Incoming::Request(request) => (request.received, request.method, Some(request.head.clone()), request.trace),
            Incoming::Refused(refused) => (refused.received, Method::Other, None, refused.trace),
        };
        self.begun.set(self.begun.get() + 1);
        let entry = self.log.is_some().then(|| Box::new(Entry::new(incoming)));
        let metrics = Rc::clone(self);
        Ticket {
            metrics,
            received,
            method,
            head,
            trace,
            noted: Noted::Nothing,
            slot: 0,
            cached: None,
            entry,
            cause: None,
            aside: false,
            ended: false,
        }
    }

    /// Adds what was counted since the last time to the process's metrics, and hands the log what is spooled.
    pub(crate) fn flush(&self) {
        let (opened, closed) = (self.opened.take(), self.closed.take());
        if opened > 0 {
            self.handles.opened.increment(opened);
        }
        if opened != closed {
            self.handles.connections.increment(opened as f64 - closed as f64);
        }
        let (begun, ended) = (self.begun.take(), self.ended.take());
        if begun != ended {
            self.handles.in_flight.increment(begun as f64 - ended as f64);
            self.metrics.totals.under_way(begun, ended);
        }
        for (count, handle) in self.rejected.borrow_mut().iter_mut().zip(&self.handles.rejected) {
            if *count > 0 {
                handle.increment(std::mem::take(count));
            }
        }
        self.routes.borrow_mut().flush(&self.metrics.totals);
        self.metrics.slowest.take(&mut self.slow.borrow_mut(), Instant::now());
        self.volume.borrow_mut().flush(&self.metrics.totals);
        self.tunnels.flush();
        self.faults.flush(&self.metrics.totals);
        if let Some(handles) = &self.handles.cache {
            let (bytes, objects) = handles.cache.figures();
            handles.bytes.set(bytes as f64);
            handles.objects.set(objects as f64);
        }
        if let Some(log) = &self.log {
            log.borrow_mut().flush();
        }
    }
}

impl Drop for ThreadMetrics {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Ticket {
    /// The request is answered by this route.
    pub(crate) fn set_route(&mut self, route: RouteId, label: &ByteString) {
        if cfg!(feature = "unmeasured") {
            return;
        }
        self.slot = self.metrics.routes.borrow_mut().slot(route, label);
        if let Some(entry) = &mut self.entry {
            entry.route = Some(label.clone());
        }
    }

    /// It is none of the requests that are watched, but part of watching them: its stream would count as a request that takes
    /// hours.
    pub(crate) fn set_aside(&mut self) {
        self.aside = true;
    }

    /// The call behind the request has ended.
    pub(crate) fn called(&mut self, noted: Noted) {
        self.noted = noted;
    }

    /// Where the request's time went up to now, which is `now`.
    pub(crate) fn stages(&self, now: Instant) -> [StageTime; STAGES] {
        self.noted.stages(self.received).list(now.saturating_duration_since(self.received))
    }

    /// Why the request failed.
    pub(crate) fn set_cause(&mut self, cause: Option<Cause>) {
        self.cause = cause;
    }

    /// What the cache did for the request.
    pub(crate) fn set_cache(&mut self, result: CacheResult) {
        self.cached = Some(result);
    }

    /// The answer is complete, or broke off. `received` and `sent` are bytes of bodies.
    pub(crate) fn end(mut self, status: u16, (received, sent): (u64, u64), complete: bool, now: Instant) {
        self.record(status, (received, sent), complete, now);
    }

    /// The request is answered with 101, and what it has opened is counted by itself from here on: its hours are no answer's.
    pub(crate) fn switched(mut self, now: Instant) -> Passage {
        let entry = self.entry.take();
        self.record(101, (0, 0), true, now);
        Passage::new(&self.metrics, entry, self.received)
    }

    fn record(&mut self, status: u16, (received, sent): (u64, u64), complete: bool, now: Instant) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = now.saturating_duration_since(self.received);
        self.metrics.ended.set(self.metrics.ended.get() + 1);
        if self.aside || cfg!(feature = "unmeasured") {
            self.log(status, sent, complete, took);
            return;
        }
        let may_be_slow = !cfg!(feature = "untimed") && self.metrics.metrics.slowest.may_be(took);
        if let Some(head) = self.head.as_ref().filter(|_| may_be_slow) {
            let routes = self.metrics.routes.borrow();
            let route = routes.label(self.slot);
            let method = self.method.as_str(head);
            let stages = self.noted.stages(self.received);
            let seen = Seen { head, trace: &self.trace, method, route, status, took, ended: now, stages };
            self.metrics.slow.borrow_mut().offer(&seen);
        }
        if let Some(counts) = self.metrics.routes.borrow_mut().get_mut(self.slot) {
            counts.add(self.method, status, complete, took);
            if let Some(result) = self.cached {
                counts.add_cached(result, sent);
            }
        }
        // What the client is told to do otherwise is its error, but for "not so fast".
        let cause = self.cause.filter(|_| status >= 500 || status == 429);
        self.metrics.volume.borrow_mut().add(received, sent, cause);
        self.log(status, sent, complete, took);
    }

    fn log(&mut self, status: u16, sent: u64, complete: bool, took: Duration) {
        if let (Some(mut entry), Some(log)) = (self.entry.take(), &self.metrics.log) {
            entry.finish(status, sent, complete, took);
            log.borrow_mut().push(*entry);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Nobody ended it: the client left.
        if !self.ended {
            self.record(crate::problem::CLIENT_CLOSED, (0, 0), false, Instant::now());
        }
    }
}
