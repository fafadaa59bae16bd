//! Tunnels: what requests that were answered with 101 go on as.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use super::ThreadMetrics;
use crate::access_log::Entry;

/// The status that their lines in the access log have.
const SWITCHED: u16 = 101;

/// Describes what is counted of tunnels.
pub(super) fn describe() {
    describe_gauge!(
        "troupe_gateway_tunnels",
        "WebSocket tunnels that are open. Their requests are counted as answered, with `1xx`, when the tunnel opens."
    );
    describe_counter!("troupe_gateway_tunnels_opened_total", "WebSocket tunnels that were opened.");
    describe_counter!(
        "troupe_gateway_tunnel_received_bytes_total",
        Unit::Bytes,
        "Bytes that clients sent through tunnels, counted as they come."
    );
    describe_counter!(
        "troupe_gateway_tunnel_sent_bytes_total",
        Unit::Bytes,
        "Bytes that clients were sent through tunnels, counted as they go."
    );
}

/// One thread's counts since the last flush.
pub(super) struct Tunnels {
    opened: Cell<u64>,
    closed: Cell<u64>,
    received: Cell<u64>,
    sent: Cell<u64>,
    open: Gauge,
    opened_total: Counter,
    received_total: Counter,
    sent_total: Counter,
}

impl Tunnels {
    pub(super) fn new() -> Self {
        Self {
            opened: Cell::new(0),
            closed: Cell::new(0),
            received: Cell::new(0),
            sent: Cell::new(0),
            open: gauge!("troupe_gateway_tunnels"),
            opened_total: counter!("troupe_gateway_tunnels_opened_total"),
            received_total: counter!("troupe_gateway_tunnel_received_bytes_total"),
            sent_total: counter!("troupe_gateway_tunnel_sent_bytes_total"),
        }
    }

    pub(super) fn flush(&self) {
        let (opened, closed) = (self.opened.take(), self.closed.take());
        if opened != closed {
            self.open.increment(opened as f64 - closed as f64);
        }
        for (count, total) in [
            (opened, &self.opened_total),
            (self.received.take(), &self.received_total),
            (self.sent.take(), &self.sent_total),
        ] {
            if count > 0 {
                total.increment(count);
            }
        }
    }
}

/// A tunnel that is being counted, until it is dropped.
pub(crate) struct Passage {
    metrics: Rc<ThreadMetrics>,
    entry: Option<Box<Entry>>,
    begun: Instant,
    sent: u64,
    complete: bool,
}

impl Passage {
    /// `begun`: when the handshake came.
    pub(super) fn new(metrics: &Rc<ThreadMetrics>, entry: Option<Box<Entry>>, begun: Instant) -> Self {
        metrics.metrics.tunnels.fetch_add(1, Ordering::Relaxed);
        add(&metrics.tunnels.opened, 1);
        Self { metrics: Rc::clone(metrics), entry, begun, sent: 0, complete: false }
    }

    /// The client sent bytes.
    pub(crate) fn received(&self, bytes: usize) {
        add(&self.metrics.tunnels.received, bytes as u64);
    }

    /// The client was sent bytes.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        add(&self.metrics.tunnels.sent, bytes as u64);
    }

    /// It ended in order.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.metrics.metrics.tunnels.fetch_sub(1, Ordering::Relaxed);
        add(&self.metrics.tunnels.closed, 1);
        if let (Some(mut entry), Some(log)) = (self.entry.take(), &self.metrics.log) {
            entry.finish(SWITCHED, self.sent, self.complete, self.begun.elapsed());
            log.borrow_mut().push(*entry);
        }
    }
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get().saturating_add(more));
}
