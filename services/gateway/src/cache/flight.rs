//! Flights: one fetch per key, and all who wait for it, on whatever thread.

use std::collections::HashMap;
use std::collections::hash_map::Entry as HashEntry;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use slab::Slab;
use troupe_cache::entry::Entry;
use troupe_cache::key::{Key, KeyHasher};
use troupe_cache::store::Selector;
use troupe_mesh::failure::Failure;

use super::filling::Filling;

/// Parts of the table, each with a lock of its own, held for one look-up.
const PARTS: usize = 64;

/// The URL, and who may fly together.
type FlightKey = (Arc<Key>, Party);

/// Requests that one response may answer, as far as that is known before it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Party {
    /// What of the request the URL's known variants are told apart by.
    pub(super) variant: Box<[u8]>,
    /// It has a cookie or credentials: what it is answered may be for it alone, and what others are answered not for it.
    pub(super) personal: bool,
    /// It has credentials, to which what is stored by configuration alone is never given.
    pub(super) authorized: bool,
}

/// A part of the fetches under way.
type Part = Mutex<HashMap<FlightKey, Arc<Flight>, KeyHasher>>;

/// The fetches under way.
#[derive(Debug)]
pub(super) struct Flights {
    parts: Box<[Part]>,
}

/// A fetch under way.
#[derive(Debug, Default)]
pub(super) struct Flight {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    settled: Option<Settled>,
    waiting: Slab<Option<Waker>>,
}

/// What a fetch has come to, for those who wait.
#[derive(Debug, Clone)]
pub(super) enum Settled {
    /// It is stored.
    Stored(Arc<Entry>),
    /// Its head is there and its body on its way into the store.
    Filling(Arc<Filling>),
    /// Its response is for the one who fetched it alone: the others fetch for themselves, all at once.
    Apart,
    /// It failed in a way that would be the same for everyone.
    Failed(Failure),
    /// Whoever fetched is gone: another takes over.
    Left,
}

/// What a request for something is, among others for the same.
#[derive(Debug)]
pub(super) enum Joined<'a> {
    /// The one that fetches.
    Leader(Leader<'a>),
    /// One that waits for it.
    Waiter(Arc<Flight>),
}

/// The place of the one that fetches. Dropped before it is settled, it makes way for another.
#[derive(Debug)]
pub(super) struct Leader<'a> {
    /// Taken when the fetch goes on by itself.
    place: Option<Place>,
    flights: &'a Flights,
}

/// The same for a fetch that goes on by itself.
#[derive(Debug)]
pub(super) struct Place {
    key: FlightKey,
    flight: Arc<Flight>,
}

impl Default for Flights {
    fn default() -> Self {
        Self { parts: (0..PARTS).map(|_| Mutex::default()).collect() }
    }
}

impl Flights {
    /// Joins the fetch of `key`, or begins it.
    pub(super) fn join(&self, key: &Arc<Key>, party: Party) -> Joined<'_> {
        let key = (Arc::clone(key), party);
        let mut part = self.part(&key).lock();
        match part.entry(key) {
            HashEntry::Occupied(under_way) => Joined::Waiter(Arc::clone(under_way.get())),
            HashEntry::Vacant(place) => {
                let (key, flight) = (place.key().clone(), Arc::new(Flight::default()));
                place.insert(Arc::clone(&flight));
                Joined::Leader(Leader { place: Some(Place { key, flight }), flights: self })
            }
        }
    }

    /// Whether `key` is being fetched.
    pub(super) fn is_under_way(&self, key: &Arc<Key>, party: &Party) -> bool {
        let key = (Arc::clone(key), party.clone());
        self.part(&key).lock().contains_key(&key)
    }

    /// Takes the fetches that `selector` may be about out of the table: nobody joins them any more.
    pub(super) fn detach(&self, selector: &Selector) {
        for part in &self.parts {
            part.lock().retain(|(key, _), _| match selector {
                // What groups a response is in is not known before it is there.
                Selector::Group(_, origin) => origin.as_ref().is_some_and(|origin| !origin.same_origin(key)),
                selector => !selector.matches(key, &[]),
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.lock().is_empty())
    }

    /// The fetch is over: nobody joins it any more.
    pub(super) fn land(&self, place: &Place) {
        self.leave(&place.key, &place.flight);
    }

    /// What `flight` brings is too old for those who come now: they do not join it any more.
    pub(super) fn give_way(&self, key: &Arc<Key>, party: &Party, flight: &Arc<Flight>) {
        self.leave(&(Arc::clone(key), party.clone()), flight);
    }

    fn leave(&self, key: &FlightKey, flight: &Arc<Flight>) {
        if let HashEntry::Occupied(under_way) = self.part(key).lock().entry(key.clone())
            && Arc::ptr_eq(under_way.get(), flight)
        {
            under_way.remove();
        }
    }

    fn part(&self, (key, _): &FlightKey) -> &Part {
        let index = key.hashed() as usize % PARTS;
        // The remainder is always inside; the first one stands for what cannot happen.
        self.parts.get(index).unwrap_or(&self.parts[0])
    }
}

impl Flight {
    /// What the fetch comes to.
    pub(super) async fn settled(self: Arc<Self>) -> Settled {
        let mut waiting = Waiting { flight: &self, place: None };
        poll_fn(|context| {
            let mut state = self.state.lock();
            if let Some(settled) = &state.settled {
                return Poll::Ready(settled.clone());
            }
            let waker = Some(context.waker().clone());
            match waiting.place.and_then(|place| state.waiting.get_mut(place)) {
                Some(place) => *place = waker,
                None => waiting.place = Some(state.waiting.insert(waker)),
            }
            Poll::Pending
        })
        .await
    }

    fn settle(&self, settled: Settled) {
        let wakers: Vec<Waker> = {
            let mut state = self.state.lock();
            state.settled = Some(settled);
            state.waiting.iter_mut().filter_map(|(_, waker)| waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn is_settled(&self) -> bool {
        self.state.lock().settled.is_some()
    }
}

/// A waiter's place, given up when it stops waiting.
struct Waiting<'a> {
    flight: &'a Flight,
    place: Option<usize>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.flight.state.lock().waiting.try_remove(place);
        }
    }
}

impl Leader<'_> {
    /// The fetch is over.
    pub(super) fn settle(self, settled: Settled) {
        if let Some(place) = &self.place {
            place.flight.settle(settled);
        }
    }

    /// The head is there; whoever joins from now on follows the body as well, until [`Flights::land`].
    pub(super) fn fill(mut self, filling: &Arc<Filling>) -> Option<Place> {
        let place = self.place.take()?;
        place.flight.settle(Settled::Filling(Arc::clone(filling)));
        Some(place)
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let Some(place) = &self.place else { return };
        self.flights.land(place);
        if !place.flight.is_settled() {
            place.flight.settle(Settled::Left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use troupe_cache::key::{HostBuffer, Sought};
    use troupe_wire::head::Scheme;

    use super::*;

    fn key(target: &str) -> Arc<Key> {
        let mut buffer = HostBuffer::default();
        Arc::new(Sought::new(Scheme::Http, "a", target, &mut buffer).unwrap().to_key())
    }

    fn poll(waiting: &mut (impl Future<Output = Settled> + Unpin)) -> Poll<Settled> {
        std::pin::Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_first_fetches_and_the_others_wait() {
        let flights = Flights::default();
        let Joined::Leader(leader) = flights.join(&key("/"), Party::default()) else { panic!("not the first") };
        let Joined::Waiter(flight) = flights.join(&key("/"), Party::default()) else { panic!("not a waiter") };
        assert!(matches!(
            flights.join(&key("/"), Party { variant: (*b"de").into(), ..Party::default() }),
            Joined::Leader(_)
        ));
        let cookie = Party { personal: true, ..Party::default() };
        let credentials = Party { authorized: true, ..cookie.clone() };
        let with_cookie = flights.join(&key("/"), cookie);
        assert!(matches!(flights.join(&key("/"), credentials), Joined::Leader(_)));
        drop(with_cookie);
        assert!(matches!(flights.join(&key("/other"), Party::default()), Joined::Leader(_)));
        let mut waiting = Box::pin(Arc::clone(&flight).settled());
        assert!(poll(&mut waiting).is_pending());
        leader.settle(Settled::Apart);
        assert!(matches!(poll(&mut waiting), Poll::Ready(Settled::Apart)));
        assert!(flights.is_empty());
    }

    #[test]
    fn a_leader_that_leaves_makes_way() {
        let flights = Flights::default();
        let Joined::Leader(leader) = flights.join(&key("/"), Party::default()) else { panic!("not the first") };
        let Joined::Waiter(flight) = flights.join(&key("/"), Party::default()) else { panic!("not a waiter") };
        let mut waiting = Box::pin(flight.settled());
        assert!(poll(&mut waiting).is_pending());
        drop(leader);
        assert!(matches!(poll(&mut waiting), Poll::Ready(Settled::Left)));
        assert!(matches!(flights.join(&key("/"), Party::default()), Joined::Leader(_)));
    }

    #[test]
    fn a_waiter_that_leaves_leaves_nothing_behind() {
        let flights = Flights::default();
        let Joined::Leader(_leader) = flights.join(&key("/"), Party::default()) else { panic!("not the first") };
        let Joined::Waiter(flight) = flights.join(&key("/"), Party::default()) else { panic!("not a waiter") };
        let mut waiting = Box::pin(Arc::clone(&flight).settled());
        assert!(poll(&mut waiting).is_pending());
        assert_eq!(flight.state.lock().waiting.len(), 1);
        drop(waiting);
        assert!(flight.state.lock().waiting.is_empty());
    }

    #[test]
    fn nobody_joins_what_a_purge_is_about() {
        let flights = Flights::default();
        let first = flights.join(&key("/a"), Party::default());
        flights.detach(&Selector::Url(key("/b").as_ref().clone()));
        assert!(matches!(flights.join(&key("/a"), Party::default()), Joined::Waiter(_)));
        flights.detach(&Selector::Group("any".into(), None));
        let second = flights.join(&key("/a"), Party::default());
        assert!(matches!(second, Joined::Leader(_)));
        drop(first);
        // The first one's end does not take the second one's place.
        assert!(matches!(flights.join(&key("/a"), Party::default()), Joined::Waiter(_)));
    }
}
