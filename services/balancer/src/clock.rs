//! Microseconds since the process began to balance: small enough for an atomic, and a number that a simulation can set.

use std::sync::OnceLock;
use std::time::Instant;

static EPOCH: OnceLock<Instant> = OnceLock::new();

/// Microseconds from the epoch to `at`; 0 for anything before it.
pub(crate) fn micros(at: Instant) -> u64 {
    let epoch = *EPOCH.get_or_init(Instant::now);
    at.saturating_duration_since(epoch).as_micros() as u64
}

/// Microseconds from the epoch to now.
pub(crate) fn now() -> u64 {
    #[cfg(test)]
    if let Some(now) = virtual_time::NOW.get() {
        return now;
    }
    micros(Instant::now())
}

/// Time that stands still until a simulation moves it.
#[cfg(test)]
pub(crate) mod virtual_time {
    use std::cell::Cell;

    thread_local! {
        pub(super) static NOW: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// Sets this thread's time.
    pub(crate) fn set(now_us: u64) {
        NOW.set(Some(now_us));
    }
}
