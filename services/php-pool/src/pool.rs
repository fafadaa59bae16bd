//! What all threads share of one pool.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::sync::watch;
use troupe_contracts::report::Load;
use troupe_mesh::supervise::{Handle, SendError, State};

use crate::config::Isolation;
use crate::control::{Note, PoolActor, Usage};
use crate::functions::{Functions, Pace};
use crate::lanes::Lanes;
use crate::metrics::{FunctionSeries, PoolMetrics};
use crate::printed::Prints;
use crate::process::{Fate, Process};
use crate::spool::Spool;
use crate::turn::SEATS;

/// Processes per core beyond which calls that only compute gain nothing: measured on 2 cores with 64 connections, 4 to 6
/// processes answered more requests a second than 2 did, and than 8 or 16 did.
const FAST_PER_CORE: usize = 2;

/// Calls that a process has left when its successor is started, at most: what a fast function takes while one is forked on a
/// busy machine.
const RETIRES_AT: u32 = 256;

/// One pool, for the data path.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) limits: Limits,
    pub(crate) lanes: Lanes,
    pub(crate) functions: ArcSwap<Functions>,
    /// How fast the pool's calls are, whatever the function: what [`Load::prefetch`] tells.
    pub(crate) pace: Pace,
    pub(crate) prints: Prints,
    pub(crate) condition: watch::Sender<Condition>,
    /// Told to people alone; no call looks at it.
    pub(crate) crash_loop: Mutex<Option<CrashLoop>>,
    pub(crate) processes: AtomicU32,
    /// Cores that the processes share.
    cores: usize,
    pub(crate) restarts: AtomicU32,
    pub(crate) memory_permille: AtomicU32,
    pub(crate) draining: AtomicBool,
    /// The configuration no longer names it.
    pub(crate) retired: AtomicBool,
    /// Another pool of this name serves, and tells the figures of which there can be one.
    silent: AtomicBool,
    pub(crate) metrics: PoolMetrics,
    pub(crate) usage: Usage,
    /// Where its functions are counted.
    pub(crate) series: Arc<FunctionSeries>,
    pub(crate) spool: Spool,
    pub(crate) control: OnceLock<Handle<PoolActor>>,
    streams: AtomicUsize,
    grow_asked: AtomicBool,
    clock: Clock,
}

/// What a configuration comes down to.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) timeout: Duration,
    pub(crate) max_streams: usize,
    pub(crate) max_requests: u32,
    pub(crate) isolation: Isolation,
    pub(crate) development: bool,
}

impl Limits {
    /// Whether processes are started before there is a call for them. Where each call reads the code anew and none has to be
    /// there, they are not: one that has read the code already would run what it was.
    pub(crate) fn starts_ahead(&self) -> bool {
        self.min > 0 || self.isolation != Isolation::Fresh
    }

    /// How many calls a process has left when its successor is started.
    pub(crate) fn retires_at(&self) -> u32 {
        (self.max_requests / 16).min(RETIRES_AT)
    }
}

/// Whether a pool can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The code is being loaded; calls wait.
    Booting,
    /// Processes can be had.
    Up,
    /// The code cannot be loaded; calls are answered at once. It is tried again.
    Down(Box<str>),
}

/// Processes that crash one after another, before they are of any use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CrashLoop {
    /// How many in a row ended before their first call.
    pub processes: u32,
    /// How the last of them ended, with the end of what it wrote to its standard error.
    pub last: String,
}

impl Pool {
    pub(crate) fn new(name: String, limits: Limits, threads: usize, spool: Spool, series: Arc<FunctionSeries>) -> Self {
        Self {
            metrics: PoolMetrics::new(&name),
            usage: Usage::default(),
            series,
            name,
            limits,
            lanes: Lanes::new(threads),
            functions: ArcSwap::default(),
            pace: Pace::default(),
            prints: Prints::default(),
            condition: watch::Sender::new(Condition::Booting),
            crash_loop: Mutex::new(None),
            processes: AtomicU32::new(0),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            restarts: AtomicU32::new(0),
            memory_permille: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            spool,
            control: OnceLock::new(),
            streams: AtomicUsize::new(0),
            grow_asked: AtomicBool::new(false),
            clock: Clock::new(),
        }
    }

    /// Takes the place of `old`: what people and balancers know of the pool goes on.
    pub(crate) fn succeed(&self, old: &Self) {
        self.restarts.fetch_add(old.restarts.load(Ordering::Relaxed), Ordering::Relaxed);
        self.usage.succeed(&old.usage);
        self.draining.store(old.draining.load(Ordering::Relaxed), Ordering::Relaxed);
        old.be_silent(true);
        self.be_silent(false);
        self.metrics.streams.set(0.0);
    }

    /// Whether another pool of this name serves.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(crate) fn be_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
        self.spool.be_silent(silent);
    }

    /// Calls that are too many, wherever in here they wait: with as many processes as there may be, none of them could sit down.
    pub(crate) fn most_calls(&self) -> u32 {
        let max = self.limits.max as u32;
        max.saturating_add(self.prefetch(max))
    }

    /// Calls beyond the slots that this many processes can hold in their pipes.
    ///
    /// No more than that: a call that found every seat taken would have to be called to one that gets free, and so would all
    /// that come behind it. In the balancer's queue it waits cheaper, and might still go elsewhere.
    fn prefetch(&self, processes: u32) -> u32 {
        if self.limits.isolation != Isolation::Shared || !self.pace.is_fast() {
            return 0;
        }
        // One at least, which says that there are seats.
        processes.saturating_mul(SEATS as u32 + 1).saturating_sub(self.limits.max as u32).max(1)
    }

    /// The load as it is now. Its parts are read one after the other, so they may differ by a call.
    pub(crate) fn load(&self) -> Load {
        let processes = self.processes.load(Ordering::Relaxed);
        Load {
            slots: self.limits.max as u32,
            prefetch: self.prefetch(processes),
            in_flight: self.lanes.in_flight(),
            waiting: self.lanes.waiting() as u32,
            processes,
            busy: processes.saturating_sub(self.lanes.idle() as u32),
            memory_permille: self.memory_permille.load(Ordering::Relaxed).min(u32::from(u16::MAX)) as u16,
            restarts: self.restarts.load(Ordering::Relaxed),
            draining: self.draining.load(Ordering::Relaxed),
        }
    }

    /// Whether its actor was given up, so that nothing becomes of its processes any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.control.get().is_some_and(|control| control.state() == State::Escalated)
    }

    /// Tells the pool's actor something. It is gone only when the pool is, or when it is given up and the pool is down.
    pub(crate) fn tell(&self, note: Note) {
        if let Some(control) = self.control.get()
            && control.try_send(note) == Err(SendError::Full)
        {
            tracing::error!(pool = %self.name, "the pool's actor has fallen far behind: a note to it is lost");
        }
    }

    /// Asks for one more process. Asking again before the actor has looked costs nothing.
    ///
    /// For a call that is as fast as far as is known, only up to [`FAST_PER_CORE`]: such calls do not wait for anything but
    /// a core, and beyond that the processes only take turns.
    pub(crate) fn ask_for_more(&self, fast: bool) {
        let most = if fast { self.enough_for_fast() } else { self.limits.max };
        if (self.processes.load(Ordering::Relaxed) as usize) < most && !self.grow_asked.swap(true, Ordering::AcqRel) {
            self.tell(Note::Grow);
        }
    }

    /// Processes that keep every core busy with calls that only compute.
    pub(crate) fn enough_for_fast(&self) -> usize {
        self.limits.max.min(FAST_PER_CORE * self.cores)
    }

    /// The actor looks at what was asked for: whoever asks from now on tells it again.
    pub(crate) fn hear_again(&self) {
        self.grow_asked.store(false, Ordering::Release);
    }

    /// Nobody who asks for more processes tells the actor.
    pub(crate) fn hear_nobody(&self) {
        self.grow_asked.store(true, Ordering::Release);
    }

    /// The process cannot serve any more: it is killed if it still lives, and replaced.
    pub(crate) fn discard(&self, process: Box<Process>, fate: Fate) {
        let fate = process.info.doom(fate);
        let id = process.info.id;
        // Closing its pipe ends a process that waits for a call; one that runs is killed by who knows why.
        drop(process);
        self.tell(Note::Gone { id, fate });
    }

    /// Takes one of the places for streams.
    pub(crate) fn enter_stream(&self) -> bool {
        let streams = self.streams.fetch_add(1, Ordering::AcqRel) + 1;
        if streams > self.limits.max_streams {
            self.streams.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        self.count_streams(streams);
        true
    }

    /// Gives it back.
    pub(crate) fn leave_stream(&self) {
        let streams = self.streams.fetch_sub(1, Ordering::AcqRel).saturating_sub(1);
        self.count_streams(streams);
    }

    fn count_streams(&self, streams: usize) {
        if !self.is_silent() {
            self.metrics.streams.set(streams as f64);
        }
    }

    /// `instant` on CLOCK_MONOTONIC, in nanoseconds: what PHP's `hrtime()` counts.
    pub(crate) fn monotonic_ns(&self, instant: Instant) -> u64 {
        self.clock.nanoseconds(instant)
    }
}

/// `Instant` is CLOCK_MONOTONIC but does not say so; the distance to it never changes.
#[derive(Debug)]
struct Clock {
    at: Instant,
    nanoseconds: u64,
}

impl Clock {
    fn new() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let nanoseconds = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        Self { at: Instant::now(), nanoseconds }
    }

    fn nanoseconds(&self, instant: Instant) -> u64 {
        match instant.checked_duration_since(self.at) {
            Some(after) => self.nanoseconds.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
            None => self.nanoseconds.saturating_sub(self.at.saturating_duration_since(instant).as_nanos() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_that_of_the_kernel() {
        let clock = Clock::new();
        let later = Instant::now() + Duration::from_secs(1);
        let now = clock_gettime(ClockId::Monotonic);
        let expected = (now.tv_sec as u64 + 1) * 1_000_000_000 + now.tv_nsec as u64;
        assert!(clock.nanoseconds(later).abs_diff(expected) < 100_000_000);
    }
}
