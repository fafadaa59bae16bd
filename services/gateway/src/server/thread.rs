//! What all connections of one HTTP thread share.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::watch;

use super::seats::Seat;
use crate::config::GatewayConfig;
use crate::front::Front;
use crate::metrics::ThreadMetrics;

/// One HTTP thread.
pub(super) struct Thread {
    pub(super) front: Front,
    pub(super) metrics: Rc<ThreadMetrics>,
    limits: Cell<Limits>,
    timeouts: Cell<Timeouts>,
    /// The tasks of all connections, to be woken when the drain begins.
    pub(super) wakers: RefCell<Slab<Waker>>,
    /// Where answers are written before they are sent.
    pub(super) scratch: RefCell<Vec<u8>>,
    _seat: Seat,
}

/// Bounds of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_head: usize,
    pub(super) max_body: u64,
    pub(super) max_requests: u32,
}

/// Waits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    pub(super) head: Duration,
    pub(super) keep_alive: Duration,
    pub(super) disconnect: Duration,
    pub(super) request: Duration,
    pub(super) stream_idle: Duration,
}

impl Thread {
    pub(super) fn new(front: Front, metrics: Rc<ThreadMetrics>, config: &GatewayConfig, seat: Seat) -> Self {
        Self {
            front,
            metrics,
            limits: Cell::new(Limits::of(config)),
            timeouts: Cell::new(Timeouts::of(config)),
            wakers: RefCell::default(),
            scratch: RefCell::default(),
            _seat: seat,
        }
    }

    /// The bounds of connections, as they are now.
    pub(super) fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// The waits of connections, as they are now.
    pub(super) fn timeouts(&self) -> Timeouts {
        self.timeouts.get()
    }

    /// Takes new bounds and waits; what waits already goes on with the old ones.
    fn tune(&self, config: &GatewayConfig) {
        self.limits.set(Limits::of(config));
        self.timeouts.set(Timeouts::of(config));
    }

    /// Wakes every connection, so that idle ones see that the drain has begun.
    pub(super) fn wake_all(&self) {
        for (_, waker) in self.wakers.borrow().iter() {
            waker.wake_by_ref();
        }
    }
}

/// How often a thread's counts are added to the process's.
const FLUSH: Duration = Duration::from_millis(250);

/// A thread's regular work, until the thread's state is gone.
pub(super) async fn housekeep(
    thread: Weak<Thread>,
    mut drain: watch::Receiver<bool>,
    mut tuning: watch::Receiver<Arc<GatewayConfig>>,
) {
    let mut woken = false;
    loop {
        tokio::select! {
            Ok(()) = tuning.changed() => {
                let config = Arc::clone(&tuning.borrow_and_update());
                let Some(thread) = thread.upgrade() else { return };
                thread.tune(&config);
            }
            changed = drain.wait_for(|draining| *draining), if !woken => {
                woken = true;
                if let (Ok(_), Some(thread)) = (changed, thread.upgrade()) {
                    thread.wake_all();
                }
            }
            () = tokio::time::sleep(FLUSH) => {
                let Some(thread) = thread.upgrade() else { return };
                thread.metrics.flush();
                if let Some(noted) = thread.front.noted() {
                    noted.flush(Instant::now());
                }
            }
        }
    }
}

impl Limits {
    fn of(config: &GatewayConfig) -> Self {
        Self {
            max_head: config.max_head.as_usize().min(troupe_wire::head::MAX_RAW),
            max_body: config.max_body.bytes(),
            max_requests: config.max_requests_per_connection,
        }
    }
}

impl Timeouts {
    fn of(config: &GatewayConfig) -> Self {
        Self {
            head: config.head_timeout.get(),
            keep_alive: config.keep_alive.get(),
            disconnect: config.disconnect_timeout.get(),
            request: config.request_timeout.get(),
            stream_idle: config.stream_idle.get(),
        }
    }

    /// How often a connection looks at the clock at least: the shortest of its waits, so that none is ever overslept.
    /// Not below a quarter of a second, which is as exact as a backstop has to be.
    pub(super) fn tick(&self) -> Duration {
        self.head.min(self.keep_alive).min(self.request).min(self.stream_idle).max(Duration::from_millis(250))
    }
}
