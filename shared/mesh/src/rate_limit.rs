//! Log lines that hostile or broken peers could repeat without end.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets one event pass per period and counts the others.
#[derive(Debug)]
pub(crate) struct RateLimit {
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, state: Mutex::new(State { last: None, suppressed: 0 }) }
    }

    /// How many events were suppressed since the last that passed; `None` when this one is too.
    pub(crate) fn allow(&self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < self.period) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_per_period_passes_and_the_next_tells_how_many_did_not() {
        let limit = RateLimit::new(Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(limit.allow_at(start), Some(0));
        assert_eq!(limit.allow_at(start), None);
        assert_eq!(limit.allow_at(start + Duration::from_millis(999)), None);
        assert_eq!(limit.allow_at(start + Duration::from_secs(1)), Some(2));
    }
}
