//! A fetch: the call for what is not stored, with all who ask for the same, and what is made of its reply.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use troupe_cache::cache_status::Forward;
use troupe_cache::entry::Entry;
use troupe_cache::freshness::Times;
use troupe_cache::object::Whose;
use troupe_cache::policy::Policy;
use troupe_cache::reuse::Reuse;
use troupe_cache::store::Stamp;
use troupe_cache::storing::{Refusal, Terms, is_for_one, judge};
use troupe_cache::time::Moment;
use troupe_contracts::invoke::{Invoke, Reply};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome as Ended, Stage};
use troupe_mesh::port::Port;
use troupe_wire::head::RequestHead;
use troupe_wire::trace::TraceContext;

use super::filler::{Filler, Landing};
use super::filling::Filling;
use super::flight::{Joined, Leader, Party, Settled};
use super::l2::{L2, Second};
use super::lookup::{Known, Lack, Miss};
use super::origin::Own;
use super::others::{APART, is_shared, settle};
use super::outcome::{CacheResult, Outcome, Response};
use super::route::RouteCaching;
use super::spent::{Clock, Spent};
use super::{Cache, now, origin};

/// How often a request waits for another's fetch that turns out not to be for it, before it fetches for itself.
const ATTEMPTS: usize = 3;

/// A fetch under way. Dropping it gives it up, unless the response is already on its way into the store.
pub(crate) struct Fetching {
    run: Pin<Box<dyn Future<Output = Outcome>>>,
    fetch: Fetch,
}

/// All that a fetch needs, beside the store.
#[derive(Clone)]
pub(crate) struct Fetch(pub(super) Rc<Parts>);

pub(super) struct Parts {
    pub(super) cache: Arc<Cache>,
    pub(super) caching: Arc<RouteCaching>,
    pub(super) miss: Miss,
    /// The tier that gateways share, where there is one.
    pub(super) l2: Option<L2>,
    port: Port<Invoke>,
    /// The call without its body; its head is the client's.
    pub(super) call: Invoke,
    trace: Option<TraceContext>,
    timeouts: Timeouts,
    pub(super) clock: Clock,
}

/// How long a fetch may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// When the request's own time is spent.
    pub(crate) deadline: Deadline,
    /// The time of a refresh that nobody waits for.
    pub(crate) request: Duration,
    /// Longest pause between two pieces of a body.
    pub(crate) stream_idle: Duration,
}

impl Fetching {
    /// Where its time went up to now.
    pub(crate) fn spent(&self) -> Spent {
        self.fetch.0.clock.spent()
    }
}

impl Future for Fetching {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        self.run.as_mut().poll(context)
    }
}

impl Fetch {
    pub(crate) fn new(
        cache: Arc<Cache>,
        caching: Arc<RouteCaching>,
        miss: Miss,
        (port, l2): (Port<Invoke>, Option<L2>),
        (call, trace): (Invoke, Option<TraceContext>),
        timeouts: Timeouts,
    ) -> Self {
        let clock = Clock::after(miss.looked());
        Self(Rc::new(Parts { cache, caching, miss, l2, port, call, trace, timeouts, clock }))
    }

    /// Begins.
    pub(crate) fn start(self) -> Fetching {
        let fetch = self.clone();
        let run = Box::pin(async move {
            let outcome = self.run().await;
            let Parts { caching, miss, clock, .. } = &*self.0;
            Outcome { cdn_ttl: caching.cdn_ttl(), key: Some(Arc::clone(&miss.key)), spent: clock.spent(), ..outcome }
        });
        Fetching { run, fetch }
    }

    async fn run(&self) -> Outcome {
        let Parts { cache, caching, miss, call: Invoke { head, .. }, timeouts, clock, .. } = &*self.0;
        let Miss { key, asked, .. } = miss;
        // What began before this request may be from before a purge that this process has not heard of.
        let mut late = !cache.is_live();
        let mut alone = asked.control.no_store && caching.policy.obey_requests;
        let mut collapsed = false;
        let began = now();
        for attempt in 0..ATTEMPTS {
            let mut lack = match attempt {
                // Whoever fetches looks again before it does.
                0 if miss.unknown.is_some() => {
                    let party =
                        Party { variant: Box::default(), personal: asked.personal, authorized: asked.authorized };
                    Lack::new(Forward::UriMiss, None, false, false, party)
                }
                _ => match cache.known(miss, head, caching) {
                    Known::Answer { entry, stale, refresh } => return self.answer(entry, stale, refresh, collapsed),
                    Known::Nothing(lack) => lack,
                },
            };
            if asked.control.only_if_cached && caching.policy.obey_requests {
                return match self.0.only_stored(&mut lack).await {
                    Some((entry, reuse)) => Outcome::shared(entry, lack.forward, reuse != Reuse::Fresh),
                    None => {
                        Outcome::forwarded(Response::Absent, lack.forward, CacheResult::Pass).after_second(lack.second)
                    }
                };
            }
            if alone || lack.apart {
                return self.lead(None, lack, timeouts.deadline).await;
            }
            match cache.flights.join(key, lack.party.clone()) {
                Joined::Leader(leader) => {
                    // Stored between the look-up and the place in front: then the fetch is over already.
                    if !cache.is_unknown(miss)
                        && let Known::Answer { entry, stale, refresh } = cache.known(miss, head, caching)
                    {
                        drop(leader);
                        return self.answer(entry, stale, refresh, true);
                    }
                    let leader = match self.0.second_tier(&mut lack, timeouts.deadline).await {
                        Second::Answer(entry, reuse) => return self.shared(leader, &lack, entry, reuse),
                        Second::Fetch => Some(leader),
                        Second::Apart => {
                            cache.store.put_uncacheable(key, Whose::All, now().after(APART));
                            leader.settle(Settled::Apart);
                            None
                        }
                    };
                    let second = lack.second.take();
                    return self.lead(leader, lack, timeouts.deadline).await.after_second(second);
                }
                Joined::Waiter(flight) => match clock
                    .count(|spent| &mut spent.flight, Arc::clone(&flight).settled())
                    .await
                {
                    _ if std::mem::take(&mut late) => {}
                    // From before this request: it is one that it could have found stored.
                    Settled::Stored(entry) if self.is_too_old(&entry, began) => alone = true,
                    Settled::Filling(filling) if self.is_too_old(&filling.entry, began) => {
                        cache.flights.give_way(key, &lack.party, &flight);
                    }
                    Settled::Stored(entry) if entry.terms().selection.fits(head) => {
                        return Outcome::collapsed(Response::Stored(entry, None), lack.forward);
                    }
                    Settled::Filling(filling) if filling.entry.terms().selection.fits(head) => match filling.follow() {
                        Some(follower) => {
                            let response = Response::Stored(Arc::clone(&filling.entry), Some(follower));
                            return Outcome::collapsed(response, lack.forward);
                        }
                        None => alone = true,
                    },
                    Settled::Failed(failure) => {
                        return match lack.stale.filter(|_| lack.on_error) {
                            Some(entry) => Outcome::hit(entry, true).because("origin-failed"),
                            None => Outcome::collapsed(Response::Failed(failure), lack.forward),
                        };
                    }
                    Settled::Apart => alone = true,
                    // Another variant, or whoever fetched is gone.
                    Settled::Stored(_) | Settled::Filling(_) | Settled::Left => {}
                },
            }
            collapsed = true;
        }
        match cache.known(miss, head, caching) {
            Known::Answer { entry, stale, refresh } => self.answer(entry, stale, refresh, true),
            Known::Nothing(lack) => self.lead(None, lack, timeouts.deadline).await,
        }
    }

    /// Whether what others fetched came before this request `began`, and would not answer it if it were stored.
    fn is_too_old(&self, entry: &Entry, began: Moment) -> bool {
        let Parts { cache, caching, miss, .. } = &*self.0;
        entry.terms().times.received < began && cache.reuse(&miss.asked, entry, now(), caching) != Reuse::Fresh
    }

    /// Answers from the store.
    fn answer(&self, entry: Arc<Entry>, stale: bool, refresh: bool, collapsed: bool) -> Outcome {
        if refresh {
            self.refresh(&entry);
        }
        match collapsed {
            true => Outcome::collapsed(Response::Stored(entry, None), Forward::UriMiss),
            false => Outcome::hit(entry, stale),
        }
    }

    /// Answers with what the second tier had, this request and those that wait.
    fn shared(&self, leader: Leader<'_>, lack: &Lack, entry: Arc<Entry>, reuse: Reuse) -> Outcome {
        match reuse {
            Reuse::Fresh => leader.settle(Settled::Stored(Arc::clone(&entry))),
            // Whether the others take it stale is theirs to say.
            _ => drop(leader),
        }
        if reuse == Reuse::WhileRevalidating {
            self.refresh(&entry);
        }
        Outcome::shared(entry, lack.forward, reuse != Reuse::Fresh)
    }

    /// Fetches a new version of `entry` while it is answered, unless that is being done (RFC 5861 §3).
    fn refresh(&self, entry: &Arc<Entry>) {
        let Parts { cache, miss, call: Invoke { head, .. }, timeouts, .. } = &*self.0;
        let Some(place) = cache.begin_refresh() else { return };
        // Whoever asks for it: it is stored, so it is for all.
        let party = match cache.store.get_key(&miss.key) {
            Some(object) => Party { variant: object.variant_of(head).into(), ..Party::default() },
            None => Party::default(),
        };
        // Asked here, so that most of those who get the stale version start no task.
        if cache.flights.is_under_way(&miss.key, &party) {
            return;
        }
        let (fetch, stale, deadline) = (self.clone(), Arc::clone(entry), Deadline::after(timeouts.request));
        actix_rt::spawn(async move {
            let cache = Arc::clone(&fetch.0.cache);
            let Joined::Leader(leader) = cache.flights.join(&fetch.0.miss.key, party.clone()) else { return };
            let mut lack = Lack::new(Forward::Stale, Some(Arc::clone(&stale)), true, false, party);
            if !fetch.0.may_refresh(&stale, &mut lack).await {
                return;
            }
            let in_time = tokio::time::timeout(deadline.remaining(), fetch.lead(Some(leader), lack, deadline));
            if let Ok(Outcome { response: Response::Failed(failure), .. }) = in_time.await {
                tracing::debug!(reason = &*failure.reason, "a stale response could not be refreshed");
            }
            drop(place);
        });
    }

    /// Calls, and makes of the reply what it is for this request, for those who wait, and for the store.
    async fn lead(&self, leader: Option<Leader<'_>>, lack: Lack, deadline: Deadline) -> Outcome {
        let cache = &self.0.cache;
        let mut stored = lack.stale.as_ref().filter(|entry| origin::can_validate(entry)).cloned();
        // A 304 that means something else than what was asked about is asked again, without conditions.
        loop {
            let began = cache.store.stamp();
            let requested = now();
            let result = self.call(stored.as_deref(), lack.apart, deadline).await;
            let times = Times { requested, received: now() };
            let reply = match result {
                Ok(reply) => reply,
                Err(failure) => return self.failed(leader, &lack, failure),
            };
            let status = reply.head.status();
            if status == 304
                && let Some(entry) = stored.take()
            {
                if entry.is_meant_by(&reply.head) {
                    return self.revalidated(leader, &lack, &entry, &reply, times, began);
                }
                continue;
            }
            if matches!(status, 500 | 502 | 503 | 504)
                && lack.on_error
                && let Some(entry) = &lack.stale
            {
                settle(leader, Settled::Apart);
                return Outcome::stood_in(Arc::clone(entry), lack.forward).after_status(status);
            }
            return self.received(leader, &lack, reply, times, began);
        }
    }

    /// `apart`: nobody else is answered by the reply, so the client's own conditions and ranges are passed on.
    async fn call(&self, stored: Option<&Entry>, apart: bool, deadline: Deadline) -> Result<Reply, Failure> {
        let Parts { miss, port, call, trace, clock, .. } = &*self.0;
        let own = match apart && stored.is_none() {
            true => Own::Kept { range: miss.asked.range },
            false => Own::Dropped,
        };
        let call = call.with_head(origin::head(&call.head, miss.key.target(), stored, (own, miss.asked.narrowed)));
        let called = port.call(Envelope { call, deadline, trace: *trace });
        let reply = match clock.count(|spent| &mut spent.call, called).await {
            Ok(reply) => reply,
            Err(failure) => {
                clock.replied(failure.times);
                return Err(failure);
            }
        };
        clock.replied(reply.times);
        if reply.head.status() < 200 {
            return Err(Failure::new(Ended::Broken, Stage::Php, "the worker answered with a status that is not final"));
        }
        Ok(reply)
    }

    fn failed(&self, leader: Option<Leader<'_>>, lack: &Lack, failure: Failure) -> Outcome {
        // What every other request would meet too. Anything else may be this request's own doing.
        let shared = matches!(failure.outcome, Ended::Unreachable | Ended::Overloaded);
        settle(leader, if shared { Settled::Failed(failure.clone()) } else { Settled::Apart });
        match lack.stale.as_ref().filter(|_| lack.on_error && failure.outcome != Ended::Refused) {
            Some(entry) => Outcome::stood_in(Arc::clone(entry), lack.forward),
            None => Outcome::forwarded(Response::Failed(failure), lack.forward, CacheResult::Miss),
        }
    }

    /// What is stored is still good (RFC 9111 §4.3.4).
    fn revalidated(
        &self,
        leader: Option<Leader<'_>>,
        lack: &Lack,
        entry: &Arc<Entry>,
        reply: &Reply,
        times: Times,
        began: Stamp,
    ) -> Outcome {
        let Parts { cache, caching, miss, call: Invoke { head, .. }, .. } = &*self.0;
        let done = |response, stored| {
            Outcome::forwarded(response, lack.forward, CacheResult::Revalidated).after_status(304).stored(stored)
        };
        match entry.refreshed(head, &reply.head, times, &caching.policy) {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                let stored = cache.put(caching, &miss.key, head, Arc::clone(&fresh), began);
                self.share(leader, lack, &fresh);
                let own = fresh.with_withheld(&entry.updated_head(&reply.head)).map_or(fresh, Arc::new);
                done(Response::Stored(own, None), stored)
            }
            // As updated it may not be stored any more; this request it answers.
            Err(refusal) => {
                if !self.is_own_doing(refusal) {
                    cache.store.drop_entry(&miss.key, entry);
                }
                settle(leader, Settled::Apart);
                let body = Body::full(entry.body().clone());
                let reply = Reply { head: entry.updated_head(&reply.head), load: reply.load, times: reply.times, body };
                done(Response::Reply(reply), false).because(refusal.as_str())
            }
        }
    }

    /// A whole new response.
    fn received(&self, leader: Option<Leader<'_>>, lack: &Lack, reply: Reply, times: Times, began: Stamp) -> Outcome {
        let status = reply.head.status();
        if status == 206 {
            return self.part(leader, lack, reply, times, began);
        }
        let Parts { cache, caching, miss, call: Invoke { head, .. }, .. } = &*self.0;
        let result = if lack.apart { CacheResult::Pass } else { CacheResult::Miss };
        let answered = |response| Outcome::forwarded(response, lack.forward, result);
        let terms = match judge(head, &reply.head, times, &caching.policy) {
            Ok(terms) => terms,
            Err(refusal) => {
                // What its own request brought about, or its own conditions did, says nothing about others.
                let own_doing = is_for_one(status) || lack.apart && status == 304;
                if let Some(stale) = lack.stale.as_ref().filter(|_| !own_doing && !self.is_own_doing(refusal)) {
                    // It is not what the URL stands for any more.
                    cache.store.drop_entry(&miss.key, stale);
                }
                match own_doing {
                    true => settle(leader, Settled::Apart),
                    false => self.keep_apart(leader, lack, refusal, times),
                }
                return answered(Response::Reply(reply)).because(refusal.as_str());
            }
        };
        let announced = announced(&reply);
        match &reply.body {
            Body::Stream(_) => self.fill(leader, lack, terms, reply, began, answered),
            whole => {
                let bytes = match whole {
                    Body::Full(bytes) => &bytes[..],
                    _ => &[],
                };
                if bytes.len() > cache.max_object() || announced.is_some_and(|len| len != bytes.len() as u64) {
                    self.keep_apart(leader, lack, Refusal::NoFreshness, times);
                    return answered(Response::Reply(reply)).because("size");
                }
                // A copy: what came is a part of a larger buffer, which would be kept with it.
                let entry = Arc::new(Entry::copied(terms, &reply.head, bytes));
                let stored = cache.put(caching, &miss.key, head, Arc::clone(&entry), began);
                self.share(leader, lack, &entry);
                let own = entry.with_withheld(&reply.head).map_or(entry, Arc::new);
                answered(Response::Stored(own, None)).stored(stored)
            }
        }
    }

    /// What a response is judged by.
    pub(super) fn judged_by(&self) -> (&RequestHead, &Policy) {
        (&self.0.call.head, &self.0.caching.policy)
    }

    /// Stores a response; whether it is there.
    pub(super) fn store(&self, entry: Entry, began: Stamp) -> bool {
        self.0.cache.put(&self.0.caching, &self.0.miss.key, &self.0.call.head, Arc::new(entry), began)
    }

    /// Passes a stream on to all who read it, and into the store.
    pub(super) fn fill(
        &self,
        leader: Option<Leader<'_>>,
        lack: &Lack,
        terms: Terms,
        reply: Reply,
        began: Stamp,
        answered: impl Fn(Response) -> Outcome,
    ) -> Outcome {
        let Parts { cache, caching, miss, call: Invoke { head, .. }, timeouts, .. } = &*self.0;
        let announced = announced(&reply);
        let expected = usize::try_from(announced.unwrap_or(0)).unwrap_or(usize::MAX);
        let room = cache.begin_filling(expected).filter(|_| expected <= cache.max_object());
        let Some(room) = room else {
            self.keep_apart(leader, lack, Refusal::NoFreshness, terms.times);
            return answered(Response::Reply(reply)).because("size");
        };
        let entry = Arc::new(Entry::new(terms.clone(), &reply.head, Bytes::new()));
        let filling = Filling::new(Arc::clone(&entry), announced);
        let Some(follower) = filling.follow() else { return answered(Response::Reply(reply)) };
        let shared = is_shared(&entry);
        let place = match leader {
            Some(leader) if shared => leader.fill(&filling),
            leader => {
                self.keep_apart(leader, lack, Refusal::NoFreshness, terms.times);
                None
            }
        };
        let landing = Landing { cache: Arc::clone(cache), filling, place };
        let own = entry.with_withheld(&reply.head).map_or(entry, Arc::new);
        let filler = Filler {
            landing,
            caching: Arc::clone(caching),
            key: Arc::clone(&miss.key),
            request: head.clone(),
            terms,
            head: reply.head,
            announced,
            room,
            began,
            grant: lack.grant.take(),
            idle: timeouts.stream_idle,
        };
        actix_rt::spawn(filler.run(reply.body));
        answered(Response::Stored(own, Some(follower))).stored(true)
    }
}

/// The length of the body that the reply's head or stream announces.
fn announced(reply: &Reply) -> Option<u64> {
    let written = reply.head.field("content-length").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    written.or(match &reply.body {
        Body::Stream(_) => reply.body.len(),
        Body::Empty | Body::Full(_) => None,
    })
}
