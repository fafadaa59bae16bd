//! Who may fetch what, in this process's memory.
//!
//! A lease ends when its holder has stored what it fetched or gives it back, or when its time is up; then another may
//! have it, under a higher token. What an earlier holder brings after that is refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use troupe_contracts::cache::{LeaseName, Leased};

/// Leases that are known at once. Where there are more, whoever asks fetches without one, and nothing of that is stored.
const MAX_LEASES: usize = 65_536;
/// How long a token is remembered after its lease, for holders that come too late.
pub(crate) const FENCED_FOR: Duration = Duration::from_secs(60);
/// For how long nobody waits for another after an answer that could not be stored.
pub(crate) const APART_FOR: Duration = Duration::from_secs(60);

/// The leases of the embedded store.
#[derive(Debug)]
pub(crate) struct Leases {
    time: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_token: u64,
    list: HashMap<LeaseName, Lease>,
}

#[derive(Debug)]
struct Lease {
    /// Of the last holder.
    token: u64,
    phase: Phase,
    /// Until when the phase lasts.
    until: Instant,
    over: Arc<Notify>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Held,
    Done,
    Apart,
}

impl Lease {
    fn end(&mut self, phase: Phase, until: Instant) {
        (self.phase, self.until) = (phase, until);
        self.over.notify_waiters();
    }
}

impl Leases {
    /// Leases of `time` each.
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, state: Mutex::default() }
    }

    /// Takes the lease, if nobody has it.
    pub(crate) fn take(&self, name: LeaseName, now: Instant) -> Leased {
        let mut state = self.state.lock();
        if let Some(lease) = state.list.get(&name).filter(|lease| lease.until > now) {
            match lease.phase {
                Phase::Held => return Leased::Held { name },
                Phase::Apart => return Leased::Apart,
                Phase::Done => {}
            }
        } else if state.list.len() >= MAX_LEASES {
            state.list.retain(|_, lease| lease.until > now);
            if state.list.len() >= MAX_LEASES {
                return Leased::No;
            }
        }
        state.last_token += 1;
        let (token, until) = (state.last_token, now + self.time);
        match state.list.get_mut(&name) {
            Some(lease) => (lease.token, lease.phase, lease.until) = (token, Phase::Held, until),
            None => {
                let lease = Lease { token, phase: Phase::Held, until, over: Arc::default() };
                state.list.insert(name, lease);
            }
        }
        Leased::Granted { name, token }
    }

    /// Ends the lease of `token` with `put`, which stores its answer: nobody has the lease, or hears of its end, before that is
    /// done. `None` when a later holder has it, or had it.
    pub(crate) fn store<T>(&self, name: LeaseName, token: u64, now: Instant, put: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.state.lock();
        let lease = state.list.get_mut(&name).filter(|lease| lease.token == token && lease.phase == Phase::Held)?;
        let put = put();
        lease.end(Phase::Done, now + FENCED_FOR);
        Some(put)
    }

    /// Gives the lease back without an answer; with `apart`, nobody waits for another for a while.
    pub(crate) fn give(&self, name: LeaseName, token: u64, apart: bool, now: Instant) {
        match apart {
            true => self.end(name, token, Phase::Apart, now + APART_FOR),
            false => self.end(name, token, Phase::Done, now + FENCED_FOR),
        }
    }

    fn end(&self, name: LeaseName, token: u64, phase: Phase, until: Instant) {
        let mut state = self.state.lock();
        let lease = state.list.get_mut(&name);
        if let Some(lease) = lease.filter(|lease| lease.token == token && lease.phase == Phase::Held) {
            lease.end(phase, until);
        }
    }

    /// Waits until the lease is over or its holder's time is up; for `wait` at most.
    pub(crate) async fn wait(&self, name: LeaseName, wait: Duration) -> Leased {
        let give_up = Instant::now() + wait;
        loop {
            let (over, until) = {
                let state = self.state.lock();
                let now = Instant::now();
                match state.list.get(&name).filter(|lease| lease.until > now) {
                    Some(lease) if lease.phase == Phase::Held => {
                        (Arc::clone(&lease.over).notified_owned(), lease.until)
                    }
                    Some(lease) if lease.phase == Phase::Apart => return Leased::Apart,
                    _ => return Leased::Over,
                }
            };
            if tokio::time::timeout_at(until.min(give_up).into(), over).await.is_err() && Instant::now() >= give_up {
                return Leased::Held { name };
            }
        }
    }

    /// Leases that are held.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.state.lock().list.values().filter(|lease| lease.phase == Phase::Held).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: LeaseName = [1; 16];
    const TIME: Duration = Duration::from_secs(10);

    fn token(leased: Leased) -> u64 {
        match leased {
            Leased::Granted { token, .. } => token,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_has_it_and_the_next_gets_it_with_a_higher_token() {
        let (leases, now) = (Leases::new(TIME), Instant::now());
        let first = token(leases.take(NAME, now));
        assert_eq!(leases.take(NAME, now), Leased::Held { name: NAME });
        assert!(token(leases.take([2; 16], now)) > first);
        assert_eq!(leases.store(NAME, first, now, || 7), Some(7));
        assert!(token(leases.take(NAME, now)) > first);
    }

    #[test]
    fn who_comes_too_late_is_fenced_off() {
        let (leases, now) = (Leases::new(TIME), Instant::now());
        let slow = token(leases.take(NAME, now));
        let next = token(leases.take(NAME, now + TIME));
        assert_eq!(leases.store(NAME, slow, now + TIME, || ()), None, "another holds it");
        leases.give(NAME, slow, true, now + TIME);
        assert_eq!(leases.held(), 1, "what is not held cannot be given back");
        assert_eq!(leases.store(NAME, next, now + TIME, || ()), Some(()));
        assert_eq!(leases.store(NAME, slow, now + TIME, || ()), None, "another has stored later");
        assert_eq!(leases.store(NAME, next, now + TIME, || ()), None, "once");
    }

    #[test]
    fn what_is_not_stored_is_waited_for_by_nobody_for_a_while() {
        let (leases, now) = (Leases::new(TIME), Instant::now());
        leases.give(NAME, token(leases.take(NAME, now)), true, now);
        assert_eq!(leases.take(NAME, now), Leased::Apart);
        token(leases.take(NAME, now + APART_FOR));
    }

    #[tokio::test]
    async fn waiters_are_woken_by_the_end() {
        let leases = Leases::new(TIME);
        let held = token(leases.take(NAME, Instant::now()));
        assert_eq!(leases.wait(NAME, Duration::ZERO).await, Leased::Held { name: NAME });
        let waiting = leases.wait(NAME, TIME * 10);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        leases.give(NAME, held, false, Instant::now());
        assert_eq!(waiting.await, Leased::Over);
        assert_eq!(leases.wait([9; 16], TIME).await, Leased::Over, "nobody has it");
    }

    #[tokio::test]
    async fn waiters_do_not_outlast_a_holder_that_is_lost() {
        let leases = Leases::new(Duration::from_millis(30));
        let lost = token(leases.take(NAME, Instant::now()));
        assert_eq!(leases.wait(NAME, TIME).await, Leased::Over);
        assert!(token(leases.take(NAME, Instant::now())) > lost);
    }
}
