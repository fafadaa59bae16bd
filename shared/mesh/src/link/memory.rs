//! What links hold together for readers that are behind, and from when on that is too much.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::driver::TICK;
use crate::rate_limit::RateLimit;

/// Body bytes that all links of this process may hold for readers that are behind. Beyond it links grant credit only as
/// bytes are taken.
const PROCESS_BUDGET: u64 = 256 * 1024 * 1024;

/// Ticks for which a reader may take nothing while memory runs short. A slow client's takes something more often; that
/// of a client that has stopped never does.
const PATIENCE: u32 = ticks(Duration::from_secs(5));
/// The same while the budget is spent: long replies of other readers wait for as long.
const SHORT_PATIENCE: u32 = ticks(Duration::from_secs(1));

/// Pause between two lines about readers that were given up: an attack is one burst.
const LOG_EVERY: Duration = Duration::from_secs(10);

static PROCESS: LazyLock<Memory> = LazyLock::new(|| Memory::of(PROCESS_BUDGET));

const fn ticks(time: Duration) -> u32 {
    (time.as_millis() / TICK.as_millis()) as u32
}

/// Memory for body bytes, shared by links. Clones are the same memory.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    budget: u64,
    held: AtomicU64,
    reports: RateLimit,
}

impl Memory {
    /// What all links of this process share, unless they are told otherwise.
    pub fn process() -> Self {
        PROCESS.clone()
    }

    /// Memory of its own, with a budget of `bytes`.
    pub fn of(bytes: u64) -> Self {
        Self(Arc::new(Shared { budget: bytes, held: AtomicU64::new(0), reports: RateLimit::new(LOG_EVERY) }))
    }

    /// Bytes that lie here now.
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Whether a link may be given a whole window.
    pub(super) fn is_left(&self) -> bool {
        self.held() < self.0.budget
    }

    /// Whether there is enough for streams to have wider windows, which makes each reader that then stops dearer; and
    /// where giving readers up ends.
    pub(super) fn is_plenty(&self) -> bool {
        self.held() <= self.0.budget / 2
    }

    /// For how many ticks a reader may take nothing; `None` while there is memory for it to take its time.
    pub(super) fn patience(&self) -> Option<u32> {
        let held = self.held();
        if held >= self.0.budget {
            Some(SHORT_PATIENCE)
        } else if held >= self.0.budget / 4 * 3 {
            Some(PATIENCE)
        } else {
            None
        }
    }

    /// Says that `readers` of a link to `peer` were given up, unless that was said a moment ago.
    pub(super) fn report(&self, peer: &str, readers: u64) {
        if let Some(lines) = self.0.reports.allow() {
            let (held, budget) = (self.held(), self.0.budget);
            tracing::warn!(
                peer,
                readers,
                held,
                budget,
                suppressed = lines,
                "gave up bodies whose readers took nothing: links hold too much for them"
            );
        }
    }
}

/// Counts what one link holds in and out of the memory.
pub(super) struct Held {
    memory: Memory,
    bytes: u64,
}

impl Held {
    pub(super) fn new(memory: Memory) -> Self {
        Self { memory, bytes: 0 }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.memory.0.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.memory.0.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}
