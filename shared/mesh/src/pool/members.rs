//! The links of a pool, by instance.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use troupe_wire::handshake::Uid;

use crate::discovery::Endpoint;
use crate::link::{Link, LinkState};

/// Up to this many links the least busy is looked for; among more, the less busy of two random ones is good enough.
const SCAN: usize = 8;

/// An instance that a link is up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// This start of its process.
    pub uid: Uid,
    /// Its own name for itself.
    pub name: Arc<str>,
    /// Where it was found.
    pub endpoint: Endpoint,
}

/// Links to one instance; stays while ports to it exist, also when it is away.
#[derive(Default)]
pub(super) struct InstanceLinks {
    links: RefCell<Vec<Link>>,
}

#[derive(Default)]
pub(super) struct Members {
    instances: BTreeMap<Uid, Rc<InstanceLinks>>,
    /// Every link that is up, with where it leads.
    all: Vec<(Link, Endpoint)>,
}

impl InstanceLinks {
    pub(super) fn pick(&self, contract: u16) -> Option<Link> {
        least_busy(self.links.borrow().iter(), contract)
    }
}

impl Members {
    /// The links to one instance, perhaps none.
    pub(super) fn instance(&mut self, uid: Uid) -> Rc<InstanceLinks> {
        Rc::clone(self.instances.entry(uid).or_default())
    }

    pub(super) fn add(&mut self, link: &Link, endpoint: &Endpoint) {
        self.instance(link.session().peer.uid).links.borrow_mut().push(link.clone());
        self.all.push((link.clone(), endpoint.clone()));
    }

    pub(super) fn remove(&mut self, link: &Link) {
        self.all.retain(|(other, _)| !other.is(link));
        let uid = link.session().peer.uid;
        if let Some(instance) = self.instances.get(&uid) {
            instance.links.borrow_mut().retain(|other| !other.is(link));
        }
        // An instance that is gone for good is forgotten once its last port is.
        self.instances.retain(|_, instance| Rc::strong_count(instance) > 1 || !instance.links.borrow().is_empty());
    }

    /// Whether any link is up.
    pub(super) fn is_up(&self) -> bool {
        self.all.iter().any(|(link, _)| link.state() == LinkState::Up)
    }

    pub(super) fn pick(&self, contract: u16) -> Option<Link> {
        if self.all.len() <= SCAN {
            return least_busy(self.all.iter().map(|(link, _)| link), contract);
        }
        let random = || self.all.get(fastrand::usize(..self.all.len())).map(|(link, _)| link);
        least_busy([random(), random()].into_iter().flatten(), contract)
            .or_else(|| least_busy(self.all.iter().map(|(link, _)| link), contract))
    }

    /// The instances, sorted by uid, each once.
    pub(super) fn instances(&self) -> Arc<[Instance]> {
        let mut instances: Vec<Instance> = Vec::with_capacity(self.all.len());
        for (link, endpoint) in &self.all {
            let peer = &link.session().peer;
            instances.push(Instance { uid: peer.uid, name: peer.instance.as_str().into(), endpoint: endpoint.clone() });
        }
        instances.sort_by(|a, b| (a.uid, &a.endpoint).cmp(&(b.uid, &b.endpoint)));
        instances.dedup_by_key(|instance| instance.uid);
        instances.into()
    }
}

fn least_busy<'a>(links: impl Iterator<Item = &'a Link>, contract: u16) -> Option<Link> {
    links.filter(|link| link.takes(contract)).min_by_key(|link| link.in_flight()).cloned()
}
