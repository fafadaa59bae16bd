//! Which gateway holds which of the leases that were granted here. What a gateway was fetching when it went away is given back, so
//! that nobody waits for it until the lease's time is up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use troupe_contracts::cache::lease::{Ask, Lease};
use troupe_contracts::cache::{LeaseName, Uid};

use super::tier::Tier;
use super::watchers::WATCH_LEASE;

/// Leases whose holders are known at once; what is granted beyond them ends by its time.
const MAX_HELD: usize = 65_536;

/// The holders of the leases that this process granted.
#[derive(Debug)]
pub(crate) struct Holders {
    time: Duration,
    list: Mutex<HashMap<LeaseName, Held>>,
}

#[derive(Debug)]
struct Held {
    holder: Uid,
    token: u64,
    until: Instant,
}

impl Holders {
    /// Of leases of `time` each.
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, list: Mutex::default() }
    }

    /// A lease was granted.
    pub(crate) fn took(&self, holder: Uid, name: LeaseName, token: u64, now: Instant) {
        let mut list = self.list.lock();
        if list.len() >= MAX_HELD {
            list.retain(|_, held| held.until > now);
            if list.len() >= MAX_HELD {
                return;
            }
        }
        list.insert(name, Held { holder, token, until: now + self.time });
    }

    /// A lease is over.
    pub(crate) fn gave(&self, name: &LeaseName, token: u64) {
        let mut list = self.list.lock();
        if list.get(name).is_some_and(|held| held.token == token) {
            list.remove(name);
        }
    }

    /// Takes out what a gateway holds.
    fn take_of(&self, holder: &Uid) -> Vec<(LeaseName, u64)> {
        let taken = |(name, held): (LeaseName, Held)| (name, held.token);
        self.list.lock().extract_if(|_, held| held.holder == *holder).map(taken).collect()
    }

    /// Gives back what a gateway holds whose stream has ended. It has a moment to come anew: a link that broke is no end.
    pub(crate) async fn give_back(&self, tier: &Tier, holder: Uid) {
        tokio::time::sleep(WATCH_LEASE).await;
        let hub = tier.hub();
        // Where this process is about to end, gateways have turned to another one.
        if hub.is_over() || hub.is_watched_by(&holder) {
            return;
        }
        let held = self.take_of(&holder);
        if held.is_empty() {
            return;
        }
        tracing::warn!(leases = held.len(), "a gateway went away while it fetched; others may fetch that now");
        for (name, token) in held {
            // Where the store is away, their time ends them.
            if tier.lease(Lease { name, ask: Ask::Give { token, apart: false } }).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    fn name(number: usize) -> LeaseName {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&number.to_le_bytes());
        name
    }

    #[test]
    fn what_a_gateway_holds_is_known_until_it_is_over() {
        let (holders, now) = (Holders::new(TIME), Instant::now());
        holders.took([1; 16], name(1), 1, now);
        holders.took([1; 16], name(2), 2, now);
        holders.took([2; 16], name(3), 3, now);
        holders.gave(&name(1), 1);
        // Another has it by now.
        holders.gave(&name(3), 2);
        assert_eq!(holders.take_of(&[1; 16]), [(name(2), 2)]);
        assert_eq!(holders.take_of(&[1; 16]), []);
        assert_eq!(holders.take_of(&[2; 16]), [(name(3), 3)]);
    }

    #[test]
    fn those_whose_time_is_up_make_room() {
        let (holders, now) = (Holders::new(TIME), Instant::now());
        for number in 0..MAX_HELD {
            holders.took([1; 16], name(number), 1, now);
        }
        holders.took([2; 16], name(MAX_HELD), 1, now);
        assert_eq!(holders.take_of(&[2; 16]), [], "there is no room");
        holders.took([2; 16], name(MAX_HELD), 1, now + TIME);
        assert_eq!(holders.take_of(&[2; 16]).len(), 1);
        assert_eq!(holders.take_of(&[1; 16]), [], "they are over");
    }
}
