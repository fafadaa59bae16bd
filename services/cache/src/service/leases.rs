//! Who may fetch what, in this process's memory.
//!
//! A lease ends when its holder has stored what it fetched or gives it back, or when its time is up; then another may
//! have it, under a higher token. What an earlier holder brings after that is refused: nobody else has its token, and what is over
//! leaves nothing here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use troupe_contracts::cache::{LeaseName, Leased};

/// Leases that are known at once. Where there are more, whoever asks fetches without one, and nothing of that is stored.
const MAX_LEASES: usize = 65_536;
/// How long Redis remembers a token after its lease, for holders that come too late.
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
    Apart,
}

impl State {
    /// The lease of whoever has this token and has not ended it.
    fn held(&mut self, name: &LeaseName, token: u64) -> Option<&mut Lease> {
        self.list.get_mut(name).filter(|lease| lease.token == token && lease.phase == Phase::Held)
    }

    fn remove(&mut self, name: &LeaseName) {
        if let Some(lease) = self.list.remove(name) {
            lease.over.notify_waiters();
        }
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
            }
        }
        if state.list.len() >= MAX_LEASES {
            // Whoever is to wait for nobody is told so again by the next answer.
            state.list.retain(|_, lease| lease.until > now && lease.phase == Phase::Held);
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
    pub(crate) fn store<T>(&self, name: LeaseName, token: u64, put: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.state.lock();
        state.held(&name, token)?;
        let put = put();
        state.remove(&name);
        Some(put)
    }

    /// Gives the lease back without an answer; with `apart`, nobody waits for another for a while.
    pub(crate) fn give(&self, name: LeaseName, token: u64, apart: bool, now: Instant) {
        let mut state = self.state.lock();
        match state.held(&name, token) {
            Some(lease) if apart => {
                (lease.phase, lease.until) = (Phase::Apart, now + APART_FOR);
                lease.over.notify_waiters();
            }
            Some(_) => state.remove(&name),
            None => {}
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

    fn numbered(number: u64) -> LeaseName {
        let mut name = NAME;
        name[..8].copy_from_slice(&number.to_le_bytes());
        name
    }

    #[test]
    fn one_has_it_and_the_next_gets_it_with_a_higher_token() {
        let (leases, now) = (Leases::new(TIME), Instant::now());
        let first = token(leases.take(NAME, now));
        assert_eq!(leases.take(NAME, now), Leased::Held { name: NAME });
        assert!(token(leases.take([2; 16], now)) > first);
        assert_eq!(leases.store(NAME, first, || 7), Some(7));
        assert!(token(leases.take(NAME, now)) > first);
    }

    #[test]
    fn who_comes_too_late_is_fenced_off() {
        let (leases, now) = (Leases::new(TIME), Instant::now());
        let slow = token(leases.take(NAME, now));
        let next = token(leases.take(NAME, now + TIME));
        assert_eq!(leases.store(NAME, slow, || ()), None, "another holds it");
        leases.give(NAME, slow, true, now + TIME);
        assert_eq!(leases.held(), 1, "what is not held cannot be given back");
        assert_eq!(leases.store(NAME, next, || ()), Some(()));
        assert_eq!(leases.store(NAME, slow, || ()), None, "another has stored later");
        assert_eq!(leases.store(NAME, next, || ()), None, "once");
    }

    #[test]
    fn what_is_not_stored_is_waited_for_by_nobody_for_a_while() {
        let (leases, now) = (Leases::new(TIME), Instant::now());
        leases.give(NAME, token(leases.take(NAME, now)), true, now);
        assert_eq!(leases.take(NAME, now), Leased::Apart);
        token(leases.take(NAME, now + APART_FOR));
    }

    /// What was over was remembered for a minute: beyond a thousand misses a second nobody was granted anything.
    #[test]
    fn what_is_over_takes_no_room() {
        let (leases, now) = (Leases::new(TIME), Instant::now());
        for number in 0..MAX_LEASES as u64 + 1 {
            let name = numbered(number);
            let held = token(leases.take(name, now));
            match number % 2 {
                0 => assert_eq!(leases.store(name, held, || ()), Some(())),
                _ => leases.give(name, held, false, now),
            }
        }
        assert_eq!(leases.state.lock().list.len(), 0);
    }

    #[test]
    fn who_waits_for_nobody_makes_room_for_who_fetches() {
        let (leases, now) = (Leases::new(TIME), Instant::now());
        for number in 0..MAX_LEASES as u64 * 2 {
            let name = numbered(number);
            leases.give(name, token(leases.take(name, now)), true, now);
        }
        assert!(leases.state.lock().list.len() <= MAX_LEASES);
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
