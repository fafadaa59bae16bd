//! Answers the contracts of the cache on one thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;
use troupe_contracts::cache::Leased;
use troupe_contracts::cache::lease::{Ask, Lease};
use troupe_contracts::cache::lookup::{Looked, Lookup};
use troupe_contracts::cache::purge::Purge;
use troupe_contracts::cache::store::{Kept, Store};
use troupe_contracts::cache::watch::Watch;
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Service};

use super::holders::Holders;
use super::meters::Meters;
use super::stream;
use super::tier::Tier;

/// Longest pause between two pieces of a body that is to be stored.
const BODY_IDLE: Duration = Duration::from_secs(10);

/// The service on one thread.
#[derive(Clone)]
pub(crate) struct Face(Rc<Inner>);

struct Inner {
    tier: Tier,
    meters: Rc<Meters>,
    max_object: usize,
    holders: Arc<Holders>,
}

impl Face {
    pub(crate) fn new(tier: Tier, max_object: usize, holders: Arc<Holders>) -> Self {
        Self(Rc::new(Inner { tier, meters: Rc::new(Meters::new()), max_object, holders }))
    }
}

impl Service<Lookup> for Face {
    fn call(&self, envelope: Envelope<Lookup>) -> CallFuture<Lookup> {
        let inner = Rc::clone(&self.0);
        Box::pin(async move {
            let began = Instant::now();
            let holder = envelope.call.source;
            let looked = inner.tier.look_up(envelope.call).await;
            if let Ok(Looked { leased: Leased::Granted { name, token }, .. }) = looked {
                inner.holders.took(holder, name, token, Instant::now());
            }
            inner.meters.looked(&looked, began.elapsed());
            looked
        })
    }
}

impl Service<Store> for Face {
    fn call(&self, envelope: Envelope<Store>) -> CallFuture<Store> {
        let inner = Rc::clone(&self.0);
        Box::pin(async move {
            let Store { about, record, body } = envelope.call;
            let (lease, token) = (about.lease, about.token);
            let kept = match gathered(body, about.len, inner.max_object).await {
                Ok(Some(body)) => inner.tier.store(about, record, body).await,
                Ok(None) => Ok(Kept::NoRoom),
                Err(failure) => Err(failure),
            };
            if kept.is_ok() {
                inner.holders.gave(&lease, token);
            }
            inner.meters.stored(&kept);
            kept
        })
    }
}

impl Service<Lease> for Face {
    fn call(&self, envelope: Envelope<Lease>) -> CallFuture<Lease> {
        let inner = Rc::clone(&self.0);
        Box::pin(async move {
            if let Lease { name, ask: Ask::Give { token, .. } } = envelope.call {
                inner.holders.gave(&name, token);
            }
            let leased = inner.tier.lease(envelope.call).await;
            inner.meters.waited(&leased);
            leased
        })
    }
}

impl Service<Purge> for Face {
    fn call(&self, envelope: Envelope<Purge>) -> CallFuture<Purge> {
        let inner = Rc::clone(&self.0);
        Box::pin(async move {
            let began = Instant::now();
            let purged = inner.tier.purge(envelope.call).await;
            inner.meters.purged(&purged, began.elapsed());
            purged
        })
    }
}

impl Service<Watch> for Face {
    fn call(&self, envelope: Envelope<Watch>) -> CallFuture<Watch> {
        let (inner, uid) = (Rc::clone(&self.0), envelope.call.about.uid);
        let gone = async move { inner.holders.give_back(&inner.tier, uid).await };
        let begun = stream::begin(self.0.tier.hub(), envelope.call, gone);
        Box::pin(std::future::ready(begun))
    }
}

/// The whole body in memory of its own; `None` when it is longer than what is stored.
async fn gathered(mut body: Body, len: u64, max: usize) -> Result<Option<Bytes>, Failure> {
    let broken = |reason: &'static str| Failure::new(Outcome::Broken, Stage::Cache, reason).not_started();
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > max {
        return Ok(None);
    }
    let mut whole = BytesMut::with_capacity(len);
    loop {
        match timeout(BODY_IDLE, body.next()).await {
            Ok(Some(Ok(piece))) if whole.len() + piece.len() > len => {
                return Err(broken("the answer's body is longer than it was said to be"));
            }
            Ok(Some(Ok(piece))) => whole.extend_from_slice(&piece),
            Ok(None) if whole.len() == len => return Ok(Some(whole.freeze())),
            Ok(None | Some(Err(_))) => return Err(broken("the answer's body was cut short")),
            Err(_) => return Err(broken("the answer's body stopped")),
        }
    }
}

#[cfg(test)]
mod tests {
    use troupe_mesh::body::channel;

    use super::*;

    #[actix_rt::test]
    async fn a_body_is_gathered_whole_or_not_at_all() {
        let full = |text: &'static str| Body::full(Bytes::from_static(text.as_bytes()));
        assert_eq!(gathered(full("abc"), 3, 3).await.unwrap().as_deref(), Some(&b"abc"[..]));
        assert_eq!(gathered(Body::Empty, 0, 3).await.unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(gathered(full("abcd"), 4, 3).await.unwrap(), None);
        assert!(gathered(full("ab"), 3, 3).await.is_err() && gathered(full("abcd"), 3, 9).await.is_err());
        let (mut writer, reader) = channel(None);
        writer.push(Bytes::from_static(b"abc")).unwrap();
        drop(writer);
        assert!(gathered(Body::Stream(reader), 3, 9).await.is_err(), "it broke off");
    }
}
