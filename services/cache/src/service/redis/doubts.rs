//! Leases that nobody may know to have: Redis did not answer in time whether it granted one, or whoever asked is gone, or it did not
//! answer that one was given back. They are ended behind all else, as soon as Redis answers again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use troupe_contracts::cache::LeaseName;
use troupe_redis::Redis;

use super::{Shared, claims};

/// Leases in doubt at once; one beyond them ends by its time.
const MAX_DOUBTS: usize = 4096;
/// For how long it is tried to end one: as long as a lease lasts where the configuration says nothing else.
const TRIED_FOR: Duration = Duration::from_secs(10);
/// Pause after a try that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// The leases in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    list: Mutex<VecDeque<Doubt>>,
    more: Notify,
}

/// A lease that somebody may have, who does not know.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    name: LeaseName,
    known_by: KnownBy,
    until: Instant,
}

/// What tells the lease from later ones of its name.
#[derive(Debug, Clone, Copy)]
pub(super) enum KnownBy {
    /// The number that was drawn for the call that may have taken it.
    Nonce(u64),
    Token(u64),
}

impl Doubts {
    pub(super) fn add(&self, name: LeaseName, known_by: KnownBy) {
        self.put(Doubt { name, known_by, until: Instant::now() + TRIED_FOR });
    }

    fn put(&self, doubt: Doubt) {
        let mut list = self.list.lock();
        if list.len() < MAX_DOUBTS {
            list.push_back(doubt);
            self.more.notify_one();
        }
    }

    async fn next(&self) -> Doubt {
        loop {
            if let Some(doubt) = self.list.lock().pop_front() {
                return doubt;
            }
            self.more.notified().await;
        }
    }
}

/// A call that takes a lease. Where it is not known what came of it, the lease is in doubt.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    shared: &'a Shared,
    name: LeaseName,
    nonce: u64,
    settled: bool,
}

impl<'a> Claim<'a> {
    pub(super) fn new(shared: &'a Shared, name: LeaseName) -> Self {
        Self { shared, name, nonce: fastrand::u64(..), settled: false }
    }

    pub(super) fn nonce(&self) -> u64 {
        self.nonce
    }

    /// There is no lease, or somebody knows to have it.
    pub(super) fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.shared.doubts.add(self.name, KnownBy::Nonce(self.nonce));
        }
    }
}

/// Ends leases in doubt for as long as the thread lives.
pub(super) async fn resolve(redis: &Redis, shared: &Shared) {
    loop {
        let doubt = shared.doubts.next().await;
        let ended = match doubt.known_by {
            KnownBy::Nonce(nonce) => claims::withdraw(redis, shared, doubt.name, nonce).await,
            KnownBy::Token(token) => claims::give(redis, shared, doubt.name, token, false).await,
        };
        match ended {
            Ok(()) => shared.waiting.over(doubt.name),
            Err(_) => {
                if Instant::now() < doubt.until {
                    shared.doubts.put(doubt);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
