//! Moving a body into the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use troupe_cache::entry::Entry;
use troupe_cache::key::Key;
use troupe_cache::object::Whose;
use troupe_cache::store::Stamp;
use troupe_cache::storing::Terms;
use troupe_mesh::body::Body;
use troupe_wire::head::{RequestHead, ResponseHead};

use super::filling::Filling;
use super::flight::Place;
use super::l2::Grant;
use super::others::APART;
use super::patience::Patience;
use super::route::RouteCaching;
use super::{Cache, Counted, now};

/// Moves a body into the store, whether or not anybody reads it.
pub(super) struct Filler {
    pub(super) landing: Landing,
    pub(super) caching: Arc<RouteCaching>,
    pub(super) key: Arc<Key>,
    pub(super) request: RequestHead,
    pub(super) terms: Terms,
    pub(super) head: ResponseHead,
    pub(super) announced: Option<u64>,
    pub(super) room: Counted,
    pub(super) began: Stamp,
    /// The right to bring it to the second tier.
    pub(super) grant: Option<Grant>,
    pub(super) idle: Duration,
}

/// However filling ends, those who read learn of it and nobody else joins.
pub(super) struct Landing {
    pub(super) cache: Arc<Cache>,
    pub(super) filling: Arc<Filling>,
    pub(super) place: Option<Place>,
}

impl Filler {
    pub(super) async fn run(mut self, mut body: Body) {
        let Landing { cache, filling, .. } = &self.landing;
        let (mut bytes, mut fits) = (0usize, true);
        let mut patience = Patience::new(Instant::now());
        let complete = loop {
            match tokio::time::timeout(self.idle, body.next()).await {
                Ok(Some(Ok(piece))) => {
                    let before = bytes;
                    bytes = bytes.saturating_add(piece.len());
                    let reserved = usize::try_from(self.announced.unwrap_or(0)).unwrap_or(usize::MAX);
                    let more = bytes.saturating_sub(reserved.max(before));
                    if fits && (bytes > cache.max_object() || !self.room.add(more)) {
                        // Too large: no entry any more, only passed on.
                        fits = false;
                        self.landing.leave();
                        cache.store.put_uncacheable(&self.key, Whose::All, now().after(APART));
                        filling.pass(before);
                        if let Some(grant) = self.grant.take() {
                            grant.apart();
                        }
                    }
                    filling.push(piece);
                    if !fits && !filling.room(&mut patience).await {
                        break false;
                    }
                }
                Ok(None) => break self.announced.is_none_or(|announced| announced == bytes as u64),
                Ok(Some(Err(_))) | Err(_) => break false,
            }
        };
        if complete && fits {
            let entry = Arc::new(Entry::new(self.terms, &self.head, filling.whole()));
            cache.put(&self.caching, &self.key, &self.request, Arc::clone(&entry), self.began);
            if let Some(grant) = self.grant {
                grant.keep(&self.key, &entry);
            }
        }
        // In the store first: who has read it whole finds it there.
        filling.finish(complete);
    }
}

impl Landing {
    fn leave(&self) {
        if let Some(place) = &self.place {
            self.cache.flights.land(place);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.leave();
        self.filling.finish(false);
    }
}
