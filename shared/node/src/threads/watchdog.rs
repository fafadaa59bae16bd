//! The watchdog: an OS thread that asks every data thread for a sign of life.
//!
//! A blocking call or an endless loop on a data thread stalls every connection it owns, and nothing on that thread can
//! say so. The watchdog hands each thread a no-op and measures how long it takes to run. At most one no-op is under way
//! per thread, so a stalled thread gathers none.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix_rt::{Arbiter, ArbiterHandle};
use metrics::{Counter, Gauge};
use parking_lot::Mutex;

/// How the watchdog looks.
#[derive(Debug, Clone, Copy)]
pub struct WatchdogOptions {
    /// Pause between two looks. A ping goes out at each look at which none is under way.
    pub every: Duration,
    /// A ping that ran later than this is a stall: counted, logged and shown.
    pub expect_within: Duration,
}

impl Default for WatchdogOptions {
    fn default() -> Self {
        // Four wake-ups a second and thread cost nothing measurable; a quarter of a second is what people notice.
        Self { every: Duration::from_millis(250), expect_within: Duration::from_millis(250) }
    }
}

/// A thread that has not answered for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stalled {
    /// The thread's name.
    pub thread: String,
    /// Since when, at least.
    pub since: Duration,
    /// Whether the thread's event loop is gone for good.
    pub ended: bool,
}

/// Pings every registered thread. Cloning shares it; its OS thread ends with the last clone.
#[derive(Debug, Clone)]
pub struct Watchdog {
    shared: Arc<Shared>,
    /// Ends the OS thread when the last clone is dropped.
    _stop: Arc<Stop>,
}

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    /// When the last look ended, in microseconds since `epoch`: a watchdog that is stuck itself must not look healthy.
    looked: AtomicU64,
    threads: Mutex<Vec<Arc<Watched>>>,
    expect_within: Duration,
}

#[derive(Debug)]
struct Watched {
    name: String,
    arbiter: ArbiterHandle,
    /// When the ping under way was sent, in microseconds since the epoch; 0: none is under way.
    asked: AtomicU64,
    ended: AtomicBool,
    /// Whether the stall under way has been logged.
    reported: AtomicBool,
    gauge: Gauge,
    lag: Gauge,
    stalls: Counter,
}

#[derive(Debug)]
struct Stop {
    // Dropped before the join below, which disconnects the thread's receiver.
    signal: Mutex<Option<SyncSender<()>>>,
    join: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.signal.lock().take();
        if let Some(join) = self.join.lock().take() {
            // It only ever waits for the channel that has just been closed.
            let _ = join.join();
        }
    }
}

/// Keeps a thread watched; dropping it ends that.
#[derive(Debug)]
#[must_use = "the thread is watched as long as this lives"]
pub struct Registration {
    shared: Weak<Shared>,
    watched: Arc<Watched>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.watched.gauge.set(0.0);
        self.watched.lag.set(0.0);
        if let Some(shared) = self.shared.upgrade() {
            shared.threads.lock().retain(|watched| !Arc::ptr_eq(watched, &self.watched));
        }
    }
}

impl Watchdog {
    /// Starts the watchdog's thread.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the thread.
    pub fn start(options: WatchdogOptions) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            looked: AtomicU64::new(0),
            threads: Mutex::new(Vec::new()),
            expect_within: options.expect_within,
        });
        let (signal, stopped) = sync_channel::<()>(1);
        let looked_at = Arc::clone(&shared);
        let join = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            while stopped.recv_timeout(options.every) == Err(RecvTimeoutError::Timeout) {
                looked_at.look();
            }
        })?;
        Ok(Self { shared, _stop: Arc::new(Stop { signal: Mutex::new(Some(signal)), join: Mutex::new(Some(join)) }) })
    }

    /// Watches the thread of `arbiter` under `name` until the registration is dropped.
    pub fn register(&self, name: &str, arbiter: ArbiterHandle) -> Registration {
        let thread = name.to_owned();
        let watched = Arc::new(Watched {
            name: name.to_owned(),
            arbiter,
            asked: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            gauge: metrics::gauge!("troupe_node_stall_seconds", "thread" => thread.clone()),
            lag: metrics::gauge!("troupe_node_loop_lag_seconds", "thread" => thread.clone()),
            stalls: metrics::counter!("troupe_node_stalls_total", "thread" => thread),
        });
        watched.gauge.set(0.0);
        self.shared.threads.lock().push(Arc::clone(&watched));
        Registration { shared: Arc::downgrade(&self.shared), watched }
    }

    /// Watches the calling thread; `None` when it runs no actix event loop.
    ///
    /// For threads that a server of actix's own started.
    pub fn register_current(&self, name: &str) -> Option<Registration> {
        Some(self.register(name, Arbiter::try_current()?))
    }

    /// The threads that have not answered for `limit` or longer, and those whose event loop is gone.
    pub fn stalled(&self, limit: Duration) -> Vec<Stalled> {
        let now = self.shared.now();
        let mut stalled: Vec<Stalled> = self
            .shared
            .threads
            .lock()
            .iter()
            .filter_map(|watched| {
                let ended = watched.ended.load(Ordering::Acquire);
                let since = watched.waiting(now);
                (ended || since >= limit).then(|| Stalled { thread: watched.name.clone(), since, ended })
            })
            .collect();
        let since = Duration::from_micros(now.saturating_sub(self.shared.looked.load(Ordering::Acquire)));
        if since >= limit.max(Duration::from_secs(1)) {
            stalled.push(Stalled { thread: "watchdog".to_owned(), since, ended: false });
        }
        stalled
    }

    /// Number of threads under watch.
    pub fn watched(&self) -> usize {
        self.shared.threads.lock().len()
    }
}

impl Shared {
    /// Microseconds since the epoch, from 1 on: 0 means "none".
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn look(&self) {
        // The list is copied so that neither a registration nor a scrape waits for the pings.
        let threads = self.threads.lock().clone();
        for watched in &threads {
            watched.look(self.now(), self.expect_within, self.epoch);
        }
        self.looked.store(self.now(), Ordering::Release);
    }
}

impl Watched {
    fn waiting(&self, now: u64) -> Duration {
        match self.asked.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            asked => Duration::from_micros(now.saturating_sub(asked)),
        }
    }

    fn look(self: &Arc<Self>, now: u64, expect_within: Duration, epoch: Instant) {
        let waiting = self.waiting(now);
        if waiting >= expect_within {
            self.gauge.set(waiting.as_secs_f64());
            if !self.reported.swap(true, Ordering::AcqRel) {
                self.stalls.increment(1);
                tracing::warn!(
                    thread = self.name,
                    stalled_ms = u64::try_from(waiting.as_millis()).unwrap_or(u64::MAX),
                    "a data thread does not answer: something blocks it, and every connection it owns waits"
                );
            }
        } else if waiting.is_zero() {
            self.gauge.set(0.0);
            self.reported.store(false, Ordering::Release);
        }
        if !waiting.is_zero() || self.ended.load(Ordering::Acquire) {
            return;
        }
        self.asked.store(now, Ordering::Release);
        let answering = Arc::clone(self);
        let sent = self.arbiter.spawn(async move {
            let asked = answering.asked.swap(0, Ordering::AcqRel);
            let took = epoch.elapsed().saturating_sub(Duration::from_micros(asked));
            answering.lag.set(took.as_secs_f64());
            if took >= expect_within {
                tracing::info!(
                    thread = answering.name,
                    stalled_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    "the data thread answers again"
                );
            }
        });
        if !sent {
            self.ended.store(true, Ordering::Release);
            tracing::warn!(thread = self.name, "a data thread's event loop is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::{Pinning, spawn_data_threads};

    const FAST: WatchdogOptions =
        WatchdogOptions { every: Duration::from_millis(5), expect_within: Duration::from_millis(50) };

    fn wait_until(what: &str, mut seen: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !seen() {
            assert!(Instant::now() < deadline, "never seen: {what}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_blocked_thread_is_seen_and_forgiven() {
        let watchdog = Watchdog::start(FAST).expect("a thread");
        let mut threads = spawn_data_threads("dog", 1, &Pinning::Off, |_| async {}).expect("starts");
        assert!(threads.ready_blocking()[0].is_ok());
        let registered = threads.watch(&watchdog);
        assert_eq!((registered.len(), watchdog.watched()), (1, 1));

        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let arbiter = threads.arbiters().next().expect("one").clone();
        assert!(arbiter.spawn_fn(move || {
            let _ = blocked.recv();
        }));
        wait_until("the stall", || {
            watchdog.stalled(FAST.expect_within).iter().any(|stalled| stalled.thread == "dog-0" && !stalled.ended)
        });
        release.send(()).expect("still blocked");
        wait_until("the recovery", || watchdog.stalled(FAST.expect_within).is_empty());
        drop(registered);
        assert_eq!(watchdog.watched(), 0);
    }

    #[test]
    fn a_thread_that_is_gone_counts_as_stalled() {
        let watchdog = Watchdog::start(FAST).expect("a thread");
        let threads = spawn_data_threads("gone", 1, &Pinning::Off, |_| async {}).expect("starts");
        let registered = threads.watch(&watchdog);
        drop(threads);
        wait_until("the end", || {
            watchdog
                .stalled(Duration::from_secs(3600))
                .iter()
                .any(|stalled| stalled.thread == "gone-0" && stalled.ended)
        });
        drop(registered);
        assert!(watchdog.stalled(Duration::from_secs(3600)).is_empty());
    }
}
