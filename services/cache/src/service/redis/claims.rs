//! Leases in Redis. Whoever waits is woken by what happens in its own instance of the service, and looks for what happens in
//! others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use troupe_contracts::cache::{LeaseName, Leased};
use troupe_redis::redis::{RedisResult, cmd, pipe};
use troupe_redis::{Error, Redis};

use super::Shared;
use super::scripts::{GIVE, TAKE};
use super::value::digits;
use crate::service::leases::{APART_FOR, FENCED_FOR};

/// Pause between two looks at a lease that another instance may have ended.
const LOOK: Duration = Duration::from_millis(20);

/// For how long, in milliseconds, it is known who had a lease when its time is up.
const FENCED_MS: i64 = FENCED_FOR.as_millis() as i64;

/// Who waits in this instance, by lease.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<LeaseName, Arc<Notify>>>);

impl Waiting {
    /// The lease is over: whoever waits looks again.
    pub(super) fn over(&self, name: LeaseName) {
        if let Some(notify) = self.0.lock().remove(&name) {
            notify.notify_waiters();
        }
    }

    fn of(&self, name: LeaseName) -> Arc<Notify> {
        Arc::clone(self.0.lock().entry(name).or_default())
    }

    /// Forgets a lease for which nobody else waits.
    fn leave(&self, name: LeaseName, notify: Arc<Notify>) {
        let mut waiting = self.0.lock();
        // This one's, and the table's.
        if Arc::strong_count(&notify) <= 2 && waiting.get(&name).is_some_and(|other| Arc::ptr_eq(other, &notify)) {
            waiting.remove(&name);
        }
    }
}

/// For how long a lease is taken, in milliseconds.
pub(super) fn time(shared: &Shared) -> u64 {
    shared.config.lease.get().as_millis() as u64
}

/// Takes the lease, if nobody has it.
pub(super) async fn take(redis: &Redis, shared: &Shared, name: LeaseName) -> Result<Leased, Error> {
    let (key, time) = (shared.keys.lease(&name), time(shared));
    let answer: String =
        redis.query(async |to| TAKE.prepare_invoke().key(&key).arg(time).invoke_async(to).await).await?;
    Ok(read(name, &answer))
}

/// Reads what a script says of a lease that it was to take.
pub(super) fn read(name: LeaseName, answer: &str) -> Leased {
    match (answer, answer.parse()) {
        ("apart", _) => Leased::Apart,
        (_, Ok(token)) => Leased::Granted { name, token },
        _ => Leased::Held { name },
    }
}

/// Ends a lease without an answer.
pub(super) async fn give(
    redis: &Redis,
    shared: &Shared,
    name: LeaseName,
    token: u64,
    apart: bool,
) -> Result<(), Error> {
    let key = shared.keys.lease(&name);
    let apart = if apart { APART_FOR.as_millis() as u64 } else { 0 };
    redis
        .query(async |to| -> RedisResult<()> {
            GIVE.prepare_invoke().key(&key).arg(digits(token)).arg(apart).invoke_async(to).await
        })
        .await
}

/// Whether a later holder has the lease.
pub(super) async fn is_fenced(redis: &Redis, shared: &Shared, name: LeaseName, token: u64) -> Result<bool, Error> {
    let key = shared.keys.lease(&name);
    let held: Option<String> = redis.query(async |to| cmd("GET").arg(&key).query_async(to).await).await?;
    Ok(held.is_some_and(|held| held != "apart" && held > digits(token)))
}

/// Waits until the lease is over; for `wait` at most, and not for Redis.
pub(super) async fn wait(redis: &Redis, shared: &Shared, name: LeaseName, wait: Duration) -> Leased {
    let until = Instant::now() + wait;
    let key = shared.keys.lease(&name);
    loop {
        let notify = shared.waiting.of(name);
        // Before the look: what is told after it is not missed.
        let over = Arc::clone(&notify).notified_owned();
        let held: Result<(Option<String>, i64), _> =
            redis.query(async |to| pipe().get(&key).pttl(&key).query_async(to).await).await;
        let leased = match held.as_ref().map(|(held, left)| (held.as_deref(), *left)) {
            Ok((Some("apart"), _)) => Some(Leased::Apart),
            // What is left of a lease whose time is up says who had it last.
            Ok((None, _) | (_, ..=FENCED_MS)) => Some(Leased::Over),
            // Who waits for another's fetch does not wait for Redis to come back as well.
            Err(_) => Some(Leased::No),
            _ if Instant::now() >= until => Some(Leased::Held { name }),
            _ => None,
        };
        if leased.is_none() {
            // Early or not: the lease says which.
            let _ = tokio::time::timeout(LOOK, over).await;
        }
        shared.waiting.leave(name, notify);
        if let Some(leased) = leased {
            return leased;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_remembered_who_does_not_wait() {
        let waiting = Waiting::default();
        let (one, other) = (waiting.of([1; 16]), waiting.of([1; 16]));
        waiting.leave([1; 16], one);
        assert_eq!(waiting.0.lock().len(), 1, "another waits");
        waiting.leave([1; 16], other);
        assert!(waiting.0.lock().is_empty());
        let late = waiting.of([1; 16]);
        waiting.over([1; 16]);
        let _new = waiting.of([1; 16]);
        waiting.leave([1; 16], late);
        assert_eq!(waiting.0.lock().len(), 1, "one that came after the end");
    }
}
