//! Look-ups, waits and stores. A request waits for a look-up as long as it waits for Redis, and no longer.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::oneshot;
use tokio::time::timeout;
use troupe_cache::entry::Entry;
use troupe_cache::key::Key;
use troupe_cache::record;
use troupe_contracts::cache::lease::{Ask, Lease};
use troupe_contracts::cache::lookup::{Looked, Lookup, Stored, Want};
use troupe_contracts::cache::store::{About, Store};
use troupe_contracts::cache::{LeaseName, Leased, Url};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Stage};
use troupe_wire::head::RequestHead;

use super::grant::{Grant, Right};
use super::meters::Told;
use super::{L2, MAX_STORES};
use crate::cache::route::RouteCaching;
use crate::cache::{Counted, now};

/// How long a store may take; nobody waits for it.
const STORING: Duration = Duration::from_secs(5);

/// How often a request that waits for another's fetch looks whether the cache service is there still.
const HEARD: Duration = Duration::from_millis(100);

/// For how long a look-up is heard that nobody waits for any more: it may have been granted the right to fetch, and whoever asks next
/// would wait for that.
const OVERHEARD: Duration = Duration::from_secs(5);

/// What the second tier says to a request.
#[derive(Debug)]
pub(super) struct Answered {
    /// What is stored, fresh or not.
    pub(super) entry: Option<Arc<Entry>>,
    pub(super) leased: Leased,
    /// The right to fetch it, where that was granted.
    pub(super) grant: Option<Grant>,
}

impl L2 {
    /// Looks a request up.
    ///
    /// # Errors
    /// A word for why nothing is known.
    pub(super) async fn look_up(
        &self,
        caching: &RouteCaching,
        key: &Key,
        head: &RequestHead,
        want: Want,
    ) -> Result<Answered, &'static str> {
        let tier = &self.tier;
        if tier.contested.load(Ordering::Acquire) || !tier.breaker.lets_through() {
            tier.meters.asked(caching, Told::Unasked, Duration::ZERO);
            return Err("away");
        }
        let began = Instant::now();
        let call = Lookup { url: Url::from(key), want, head: head.clone(), source: tier.uid };
        let answers = Cell::new(false);
        let asked = async {
            let (looked, grant) = self.looked(call).await?;
            answers.set(true);
            Ok(self.read(looked, grant, head).await)
        };
        let (told, answer) = match timeout(tier.timeout, asked).await {
            Ok(Ok(answer)) => (said(&answer), Ok(answer)),
            Ok(Err(failure)) => {
                let failure: Failure = failure;
                tracing::debug!(%failure, "the second tier of the cache does not answer");
                (Told::Away, Err("away"))
            }
            Err(_) => (Told::Late, Err("late")),
        };
        // A body that takes longer than a request may wait is large, and says nothing about who sends it.
        if answers.get() {
            tier.breaker.answered();
        } else if tier.breaker.failed() {
            tracing::warn!("the second tier of the cache does not answer; it is asked once a second from now on");
        }
        tier.meters.asked(caching, told, began.elapsed());
        answer
    }

    /// Asks, and hears what is said even where the request does not wait for that: nobody loses a right to fetch.
    async fn looked(&self, call: Lookup) -> Result<(Looked, Option<Grant>), Failure> {
        let patience = self.tier.timeout + OVERHEARD;
        let call = self.ports.lookup.call(Envelope::new(call, Deadline::after(patience)));
        let (reply, answer) = oneshot::channel();
        let l2 = self.clone();
        actix_rt::spawn(async move {
            let Ok(looked) = timeout(patience, call).await else { return };
            // Whoever asked may be gone; the grant is given back then.
            drop(reply.send(looked.map(|looked| {
                let grant = Grant::of(&l2, &looked);
                (looked, grant)
            })));
        });
        answer.await.unwrap_or_else(|_| Err(Failure::deadline(Stage::Cache)))
    }

    /// What a reply comes to for this request. What does not fit is nothing, whatever the service thought.
    async fn read(&self, looked: Looked, grant: Option<Grant>, head: &RequestHead) -> Answered {
        let Looked { found, leased, born } = looked;
        let watched = self.tier.coherence.position();
        if watched.is_some_and(|watched| watched.generation != born.generation) {
            // Purges that this gateway hears of say nothing about what is stored there: a service that has just started, or
            // a second one with a store of its own, which the configuration forbids.
            return Answered { entry: None, leased: Leased::No, grant: None };
        }
        let entry = match found {
            Some(stored) => self.entry(stored, head).await,
            None => None,
        };
        Answered { entry, leased, grant }
    }

    async fn entry(&self, stored: Stored, head: &RequestHead) -> Option<Arc<Entry>> {
        let Stored { age_ms, stale, record, body } = stored;
        let max = self.tier.max_object;
        let mut whole =
            BytesMut::with_capacity(usize::try_from(body.len().unwrap_or(0)).ok().filter(|len| *len <= max)?);
        let mut body = body;
        while let Some(piece) = body.next().await {
            let piece = piece.ok()?;
            if whole.len() + piece.len() > max {
                return None;
            }
            whole.extend_from_slice(&piece);
        }
        let now = now();
        let entry = record::decode(&record, whole.freeze(), age_ms, now)?;
        if stale {
            entry.make_stale(now);
        }
        entry.terms().selection.fits(head).then(|| Arc::new(entry))
    }

    /// Waits for whoever fetches. Whether it is worth to look again.
    pub(super) async fn wait(&self, name: LeaseName, wait: Duration) -> Leased {
        let began = Instant::now();
        let millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let call = Lease { name, ask: Ask::Await { millis } };
        let patience = wait + self.tier.timeout;
        let mut call = pin!(self.ports.lease.call(Envelope::new(call, Deadline::after(patience))));
        let leased = loop {
            match timeout(HEARD, &mut call).await {
                Ok(answer) => break answer.unwrap_or(Leased::No),
                // A service that is not heard of any more will not say when the lease is over.
                Err(_) if !self.tier.is_live() => break Leased::No,
                Err(_) if began.elapsed() >= patience => break Leased::No,
                Err(_) => {}
            }
        };
        self.tier.meters.waited(began.elapsed());
        leased
    }

    /// Brings an answer to the tier, behind whatever else goes on. False where too many are on their way.
    pub(super) fn keep(&self, right: Right, key: &Key, entry: &Arc<Entry>) -> bool {
        let Some(place) = Counted::take(&self.tier.stores, 1, MAX_STORES) else {
            self.tier.meters.skipped_store();
            return false;
        };
        let now = now();
        let fresh_ms = u64::try_from(entry.fresh_for(now)).unwrap_or(0);
        let about = About {
            url: Url::from(key),
            born: right.born,
            lease: right.name,
            token: right.token,
            age_ms: entry.age(now),
            fresh_ms,
            keep_ms: entry.keep_for(now),
            len: entry.body().len() as u64,
            digest: entry.digest(),
            source: self.tier.uid,
        };
        let call = Store { about, record: record::encode(entry), body: Body::full(entry.body().clone()) };
        let call = self.ports.store.call(Envelope::new(call, Deadline::after(STORING)));
        actix_rt::spawn(async move {
            match timeout(STORING, call).await {
                Ok(Ok(kept)) => tracing::trace!(?kept, "an answer was brought to the second tier"),
                Ok(Err(failure)) => tracing::debug!(%failure, "an answer could not be brought to the second tier"),
                Err(_) => tracing::debug!("an answer could not be brought to the second tier in time"),
            }
            drop(place);
        });
        true
    }
}

fn said(answer: &Answered) -> Told {
    match (&answer.entry, answer.leased) {
        (None, _) => Told::Nothing,
        (Some(_), Leased::No) => Told::Fresh,
        (Some(_), _) => Told::Stale,
    }
}

#[cfg(test)]
mod tests;
