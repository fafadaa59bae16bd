//! Purges that are passed on to the cache service, and leases that are given back: from any thread, carried out on one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use troupe_cache::entry::Entry;
use troupe_cache::key::Key;
use troupe_cache::store::Selector;
use troupe_contracts::cache::lease::Lease;
use troupe_contracts::cache::purge::{Purge, Purged, Target};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome};
use troupe_mesh::port::Port;

use super::Tier;

/// Orders that may wait.
const MAX_ORDERS: usize = 4096;
/// How long a purge may take: as long as a gateway may give what it has stored, the service's own claim on the store, and
/// time enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long giving back a lease may take.
const GIVING: Duration = Duration::from_secs(1);
/// For how long the invalidation by an unsafe request is tried again while the service is away.
const TRIES: u32 = 20;
/// Pause between two of these.
const PAUSE: Duration = Duration::from_millis(500);

/// What is to be carried out.
#[derive(Debug)]
pub(super) enum Order {
    /// Somebody waits for it.
    Purge(Purge, oneshot::Sender<Result<Purged, Failure>>),
    /// Nobody waits.
    Tell(Purge, Told),
    Give(Lease),
}

/// What this gateway has forgotten and the second tier may not have yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    list: Mutex<Vec<Arc<Selector>>>,
    count: AtomicUsize,
}

/// A part of it, until it is told or given up.
#[derive(Debug)]
pub(super) struct Told {
    untold: Arc<Untold>,
    selector: Arc<Selector>,
}

impl Untold {
    fn add(self: &Arc<Self>, selector: Selector) -> Told {
        let selector = Arc::new(selector);
        let mut list = self.list.lock();
        list.push(Arc::clone(&selector));
        self.count.store(list.len(), Ordering::Release);
        Told { untold: Arc::clone(self), selector }
    }

    /// What it is now; to be asked before a look-up whose answer is compared with it.
    pub(super) fn now(&self) -> Vec<Arc<Selector>> {
        match self.count.load(Ordering::Acquire) {
            0 => Vec::new(),
            _ => self.list.lock().clone(),
        }
    }
}

/// Whether an answer of the second tier is one of those that are to be forgotten there.
pub(super) fn is_untold(untold: &[Arc<Selector>], key: &Key, entry: &Entry) -> bool {
    untold.iter().any(|selector| selector.matches(key, &entry.terms().groups))
}

impl Drop for Told {
    fn drop(&mut self) {
        let mut list = self.untold.list.lock();
        list.retain(|other| !Arc::ptr_eq(other, &self.selector));
        self.untold.count.store(list.len(), Ordering::Release);
    }
}

/// What was ordered and not carried out yet.
#[derive(Debug)]
pub struct Orders(pub(super) mpsc::Receiver<Order>);

/// Why a purge is not known to be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::cache) enum PurgeFailed {
    /// Too many wait.
    #[error("too many purges wait for the cache service")]
    TooMany,
    /// Whatever one service confirms, what others store is still given.
    #[error(
        "there are several cache services, each with a store of its own: stop all but one, or set cache.l2 to \"redis\""
    )]
    Contested,
    /// The service is away, or its store.
    #[error("the cache service did not confirm it: {0}")]
    Unconfirmed(Failure),
}

pub(super) fn channel() -> (mpsc::Sender<Order>, Orders) {
    let (sender, receiver) = mpsc::channel(MAX_ORDERS);
    (sender, Orders(receiver))
}

impl Tier {
    /// Takes out what `selector` is about, in every tier and at every gateway; returns when none gives it any more.
    pub(in crate::cache) async fn purge(&self, selector: &Selector, soft: bool) -> Result<Purged, PurgeFailed> {
        if self.contested.load(Ordering::Acquire) {
            return Err(PurgeFailed::Contested);
        }
        let (reply, answer) = oneshot::channel();
        let purge = Purge { target: Target::from(selector), soft, source: None };
        self.orders.try_send(Order::Purge(purge, reply)).map_err(|_| PurgeFailed::TooMany)?;
        match answer.await {
            Ok(Ok(purged)) => Ok(purged),
            Ok(Err(failure)) => Err(PurgeFailed::Unconfirmed(failure)),
            Err(_) => Err(PurgeFailed::TooMany),
        }
    }

    /// Has the other gateways forget what this one has just forgotten. Nobody waits for it.
    pub(in crate::cache) fn tell(&self, selector: &Selector) {
        let purge = Purge { target: Target::from(selector), soft: false, source: Some(self.uid) };
        let told = self.untold.add(selector.clone());
        if self.orders.try_send(Order::Tell(purge, told)).is_err() {
            self.meters.invalidations_lost.increment(1);
        }
    }

    /// Gives a lease back. One that cannot be is over when its time is.
    pub(super) fn give(&self, lease: Lease) {
        let _ = self.orders.try_send(Order::Give(lease));
    }
}

/// Carries out what is ordered, many at once.
pub(super) async fn carry_out(tier: &Tier, mut orders: Orders, purge: Port<Purge>, lease: Port<Lease>) {
    while let Some(order) = orders.0.recv().await {
        match order {
            Order::Purge(call, reply) => {
                let port = purge.clone();
                // Whoever asked may be gone.
                actix_rt::spawn(async move { drop(reply.send(confirmed(&port, call).await)) });
            }
            Order::Tell(call, untold) => {
                let (port, lost) = (purge.clone(), tier.meters.invalidations_lost.clone());
                actix_rt::spawn(async move {
                    if let Err(failure) = told(&port, call).await {
                        lost.increment(1);
                        tracing::warn!(%failure, "an invalidation could not be told to the other gateways");
                    }
                    drop(untold);
                });
            }
            Order::Give(call) => {
                let port = lease.clone();
                actix_rt::spawn(async move {
                    let call = port.call(Envelope::new(call, Deadline::after(GIVING)));
                    // A lease that is not given back is over when its time is.
                    let _ = tokio::time::timeout(GIVING, call).await;
                });
            }
        }
    }
}

async fn confirmed(port: &Port<Purge>, call: Purge) -> Result<Purged, Failure> {
    let deadline = Deadline::after(PATIENCE);
    let call = port.call(Envelope::new(call, deadline));
    // A service that is frozen answers nothing, not even that the time is up.
    tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(late()))
}

/// The same again and again while nothing was begun.
async fn told(port: &Port<Purge>, call: Purge) -> Result<Purged, Failure> {
    let mut outcome = Err(late());
    for _ in 0..TRIES {
        outcome = confirmed(port, call.clone()).await;
        // Twice is as good as once: what is purged again is only fetched again.
        if outcome.is_ok() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    outcome
}

fn late() -> Failure {
    Failure::new(Outcome::Deadline, troupe_mesh::failure::Stage::Cache, "it did not answer in time")
}
