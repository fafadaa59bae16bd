//! Waiting for something to become true, within a bound far above what it takes.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` yields something.
///
/// # Panics
/// When `bound` passes first; the message names `what` was waited for.
pub fn until<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < bound, "waited {bound:?} in vain for {what}");
        std::thread::sleep(PAUSE);
    }
}
