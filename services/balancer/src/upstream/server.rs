//! One upstream server as all threads see it: its connections, counted, and those that lie idle.
//!
//! Idle connections lie on shelves, one per thread, each behind a lock that nobody else takes but once a second, or when
//! the server has as many connections as it may have: then a thread without one takes another's.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use troupe_contracts::report::Load;
use troupe_mesh::deadline::Deadline;

use super::config::{KeepAliveConfig, ServerConfig, TimeoutsConfig, UpstreamConfig};
use super::connection::{Connection, Idle};
use super::fault::Fault;
use super::meters::Meters;

/// Connections that one look opens to have `min_idle` of them: a server that comes up is not stormed.
const OPENED_AT_ONCE: usize = 8;

/// See the module.
pub(super) struct Server {
    /// The pool it belongs to.
    pub(super) pool: Arc<str>,
    /// What people see.
    pub(super) name: Arc<str>,
    pub(super) address: SocketAddr,
    pub(super) meters: Arc<Meters>,
    /// Replaced whole by a reload.
    settings: ArcSwap<Settings>,
    /// It is no longer configured: what its calls leave behind is closed.
    leaving: AtomicBool,
    open: CachePadded<AtomicU32>,
    calls: CachePadded<AtomicU32>,
    waiting: AtomicU32,
    freed: Notify,
    /// The last attempt to connect failed.
    unreachable: AtomicBool,
    shelves: Box<[CachePadded<Mutex<Vec<Idle>>>]>,
}

/// Which connections will do for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A kept one. A call that may be sent again finds out by itself whether the server has closed it just now.
    Kept,
    /// A kept one, if the kernel knows nothing against it: a call that may not be sent again should not find it closed.
    Sure,
    /// None that was kept.
    New,
}

/// What the configuration says of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Host and port as configured: the `Host` of a request that came without.
    pub(super) host: String,
    pub(super) weight: u32,
    pub(super) timeouts: TimeoutsConfig,
    pub(super) keep_alive: KeepAliveConfig,
    /// The most connections there may be.
    pub(super) cap: u32,
}

impl Settings {
    pub(super) fn new(server: &ServerConfig, config: &UpstreamConfig) -> Self {
        Self {
            host: server.address.clone(),
            weight: server.weight,
            timeouts: config.timeouts,
            keep_alive: config.keep_alive,
            cap: server.max_connections.unwrap_or(config.max_connections).max(1),
        }
    }
}

/// One connection counted, until this is dropped.
pub(super) struct Seat {
    server: Arc<Server>,
    counted: bool,
}

/// One call counted.
pub(super) struct Inside(Arc<Server>);

impl Server {
    pub(super) fn new(
        (pool, name, address): (Arc<str>, Arc<str>, SocketAddr),
        settings: Settings,
        meters: Arc<Meters>,
        threads: usize,
    ) -> Self {
        Self {
            pool,
            name,
            address,
            meters,
            settings: ArcSwap::from_pointee(settings),
            leaving: AtomicBool::new(false),
            open: CachePadded::default(),
            calls: CachePadded::default(),
            waiting: AtomicU32::new(0),
            freed: Notify::new(),
            unreachable: AtomicBool::new(false),
            shelves: (0..threads.max(1)).map(|_| CachePadded::default()).collect(),
        }
    }

    pub(super) fn settings(&self) -> Guard<Arc<Settings>> {
        self.settings.load()
    }

    /// Takes other settings. Calls that are under way go on with what they have read.
    pub(super) fn tune(&self, settings: Settings) {
        self.leaving.store(false, Ordering::Relaxed);
        if **self.settings.load() != settings {
            self.settings.store(Arc::new(settings));
            // There may be more connections now.
            self.freed.notify_waiters();
        }
    }

    /// It is no longer configured. Calls that it has go on, and so may calls of threads that have not heard of it yet; no
    /// connection is kept for later.
    pub(super) fn leave(self: &Arc<Self>) {
        self.leaving.store(true, Ordering::Relaxed);
        self.close_idle();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The most connections there may be.
    pub(super) fn cap(&self) -> u32 {
        self.settings.load().cap
    }

    /// Connections now, idle ones included.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn is_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed)
    }

    /// How loaded the server is, as far as this process is concerned.
    pub(super) fn load(&self) -> Load {
        let calls = self.calls.load(Ordering::Relaxed);
        Load {
            slots: self.cap(),
            in_flight: calls,
            waiting: self.waiting.load(Ordering::Relaxed),
            processes: self.open(),
            busy: calls.min(self.open()),
            ..Load::default()
        }
    }

    /// Counts a call in.
    pub(super) fn enter(self: &Arc<Self>) -> Inside {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Inside(Arc::clone(self))
    }

    // === connections for calls ===

    /// A connection for a call of the thread with this index: a kept one, the last that was used, if that will do; else a
    /// new one; else, when there may be no more, whichever is free first.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        thread: usize,
        wanted: Wanted,
        deadline: Deadline,
    ) -> Result<Connection, Fault> {
        if wanted != Wanted::New
            && let Some(connection) = self.take_idle(thread, thread, wanted)
        {
            return Ok(connection);
        }
        if let Some(seat) = self.take_seat() {
            return self.connect(seat).await;
        }
        Box::pin(self.await_seat(thread, wanted, deadline)).await
    }

    async fn await_seat(
        self: &Arc<Self>,
        thread: usize,
        wanted: Wanted,
        deadline: Deadline,
    ) -> Result<Connection, Fault> {
        let until = (Instant::now() + self.settings().keep_alive.wait.get()).min(deadline.instant());
        let _counted = Waiting::new(&self.waiting);
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            for shelf in 0..self.shelves.len() {
                if let Some(connection) = self.take_idle(shelf, thread, wanted)
                    && wanted != Wanted::New
                {
                    return Ok(connection);
                }
            }
            if let Some(seat) = self.take_seat() {
                return self.connect(seat).await;
            }
            if tokio::time::timeout_at(until.into(), freed).await.is_err() {
                return Err(Fault::Full);
            }
        }
    }

    /// Opens a connection.
    async fn connect(self: &Arc<Self>, seat: Seat) -> Result<Connection, Fault> {
        let limit = self.settings().timeouts.connect.get();
        let connected = match tokio::time::timeout(limit, TcpStream::connect(self.address)).await {
            Ok(connected) => connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)),
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        };
        match connected {
            Ok(stream) => {
                if self.is_unreachable() {
                    self.unreachable.store(false, Ordering::Relaxed);
                }
                self.meters.connects.increment(1);
                Ok(Connection::new(stream, seat))
            }
            Err(error) => {
                self.unreachable.store(true, Ordering::Relaxed);
                self.meters.failed_connects.increment(1);
                Err(Fault::Connect(error))
            }
        }
    }

    /// Whether the server accepts connections, tried with one that is closed again.
    pub(super) async fn probe(&self, limit: Duration) -> bool {
        let limit = limit.min(self.settings().timeouts.connect.get());
        let connected = matches!(tokio::time::timeout(limit, TcpStream::connect(self.address)).await, Ok(Ok(_)));
        self.unreachable.store(!connected, Ordering::Relaxed);
        connected
    }

    fn take_seat(self: &Arc<Self>) -> Option<Seat> {
        let cap = self.cap();
        let more = |open: u32| (open < cap).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Seat::counted(self))
    }

    // === shelves ===

    /// The connection that was put on a shelf last, if it still stands.
    fn take_idle(self: &Arc<Self>, shelf: usize, thread: usize, wanted: Wanted) -> Option<Connection> {
        loop {
            let idle = self.shelf(shelf).lock().pop()?;
            // It counts still; a seat that is dropped counts it out.
            let seat = Seat::counted(self);
            let quiet = if wanted == Wanted::Sure { idle.is_surely_quiet() } else { idle.is_quiet() };
            if quiet && !is_spent(&idle, &self.settings().keep_alive, Instant::now()) {
                if let Ok(connection) = Connection::revive(idle, seat, thread) {
                    return Some(connection);
                }
            } else {
                self.meters.stale.increment(1);
            }
        }
    }

    /// Keeps a connection for later.
    pub(super) fn put_idle(&self, idle: Idle, shelf: usize) {
        self.shelf(shelf).lock().push(idle);
        self.tell_waiting();
    }

    fn shelf(&self, index: usize) -> &Mutex<Vec<Idle>> {
        &self.shelves[index % self.shelves.len()]
    }

    fn tell_waiting(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }

    /// Closes what has ended, is too old, has been idle for too long or is more than there may be; opens what `min_idle` wants.
    /// Once a second.
    pub(super) async fn tend(self: &Arc<Self>) {
        let now = Instant::now();
        let Settings { keep_alive, cap, .. } = **self.settings();
        let mut excess = self.open().saturating_sub(cap);
        let mut closed = Vec::new();
        let mut left = 0;
        for shelf in &self.shelves {
            let mut shelf = shelf.lock();
            let (kept, gone) = shelf.drain(..).partition::<Vec<Idle>, _>(|idle| {
                let rested = now.saturating_duration_since(idle.since) >= keep_alive.idle.get();
                let spare = rested && left >= keep_alive.min_idle as usize;
                let mut keep = idle.is_quiet() && !is_spent(idle, &keep_alive, now) && !spare;
                if keep && excess > 0 {
                    excess -= 1;
                    keep = false;
                }
                left += usize::from(keep);
                keep
            });
            *shelf = kept;
            closed.extend(gone);
        }
        self.close(closed);
        let missing = (keep_alive.min_idle as usize).saturating_sub(left).min(OPENED_AT_ONCE);
        for shelf in 0..missing {
            let Some(seat) = self.take_seat() else { return };
            let Ok(connection) = self.connect(seat).await else { return };
            // Of no thread yet: whoever takes it registers it.
            connection.put_back(usize::MAX, shelf);
        }
    }

    fn close_idle(self: &Arc<Self>) {
        for shelf in &self.shelves {
            let idle = std::mem::take(&mut *shelf.lock());
            self.close(idle);
        }
    }

    fn close(self: &Arc<Self>, connections: Vec<Idle>) {
        for idle in connections {
            drop(idle);
            drop(Seat::counted(self));
        }
    }

    /// Idle connections now.
    pub(super) fn idle(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.lock().len()).sum()
    }
}

impl Seat {
    /// For a connection that counts already.
    fn counted(server: &Arc<Server>) -> Self {
        Self { server: Arc::clone(server), counted: true }
    }

    pub(super) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The connection stays counted: it goes on a shelf.
    pub(super) fn keep(mut self) -> Arc<Server> {
        self.counted = false;
        Arc::clone(&self.server)
    }
}

fn is_spent(idle: &Idle, keep_alive: &KeepAliveConfig, now: Instant) -> bool {
    let rested = now.saturating_duration_since(idle.since);
    let old = now.saturating_duration_since(idle.born) >= keep_alive.age.get();
    old || (rested >= keep_alive.idle.get() && keep_alive.min_idle == 0)
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.counted {
            self.server.open.fetch_sub(1, Ordering::SeqCst);
            self.server.tell_waiting();
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
