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

use super::doubts::Claim;
use super::scripts::{GIVE, TAKE, WITHDRAW};
use super::value::digits;
use super::{Shared, is_full};
use crate::service::leases::{APART_FOR, FENCED_FOR};

/// Pause between two looks at a lease that another instance may have ended.
const LOOK: Duration = Duration::from_millis(20);

/// For how long, in milliseconds, a call that was withdrawn is refused: it was on its way for longer than anybody waited, and comes
/// about when word of its withdrawal does.
const WITHDRAWN_MS: u64 = 10_000;

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

/// What came of a call that was to take a lease; with the claim, where it did.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    pub(super) leased: Leased,
    pub(super) claim: Option<Claim<'a>>,
}

impl Taken<'_> {
    /// Whoever asked will know.
    pub(super) fn settle(self) -> Leased {
        if let Some(claim) = self.claim {
            claim.settle();
        }
        self.leased
    }
}

/// Takes the lease, if nobody has it.
pub(super) async fn take<'a>(redis: &Redis, shared: &'a Shared, name: LeaseName) -> Result<Taken<'a>, Error> {
    let claim = Claim::new(shared, name);
    let (key, withdrawn) = (shared.keys.lease(&name), shared.keys.withdrawn(&name, claim.nonce()));
    let (time, nonce) = (time(shared), nonce(claim.nonce()));
    let answer = redis
        .query(async |to| -> RedisResult<String> {
            TAKE.prepare_invoke().key(&key).key(&withdrawn).arg(time).arg(&nonce).invoke_async(to).await
        })
        .await;
    match answer {
        Ok(answer) => Ok(read(claim, name, &answer)),
        Err(error) => Err(failed(claim, error)),
    }
}

/// Reads what a script says of a lease that it was to take.
pub(super) fn read<'a>(claim: Claim<'a>, name: LeaseName, answer: &str) -> Taken<'a> {
    let leased = match (answer, answer.parse()) {
        ("apart", _) => Leased::Apart,
        (_, Ok(token)) => return Taken { leased: Leased::Granted { name, token }, claim: Some(claim) },
        _ => Leased::Held { name },
    };
    claim.settle();
    Taken { leased, claim: None }
}

/// A call failed that was to take a lease.
pub(super) fn failed(claim: Claim<'_>, error: Error) -> Error {
    // It did not reach Redis, or Redis had no room for it.
    if matches!(error, Error::Connect(_) | Error::ConnectTimeout(_)) || is_full(&error) {
        claim.settle();
    }
    error
}

/// A nonce as scripts compare it.
pub(super) fn nonce(nonce: u64) -> String {
    format!("{nonce:016x}")
}

/// Ends the lease that the call with this nonce took, or will take.
pub(super) async fn withdraw(redis: &Redis, shared: &Shared, name: LeaseName, of: u64) -> Result<(), Error> {
    let (key, withdrawn, nonce) = (shared.keys.lease(&name), shared.keys.withdrawn(&name, of), nonce(of));
    redis
        .query(async |to| -> RedisResult<()> {
            WITHDRAW.prepare_invoke().key(&key).key(&withdrawn).arg(&nonce).arg(WITHDRAWN_MS).invoke_async(to).await
        })
        .await
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
    // The nonce of whoever has it follows its token.
    Ok(held.is_some_and(|held| held != "apart" && held.get(..16).is_some_and(|held| *held > *digits(token))))
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
