//! Dials what discovery names, and dials again what is lost.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use troupe_wire::handshake::{Session, Uid};

use super::Links;
use super::reports::Reports;
use crate::discovery::{Address, Endpoint, Endpoints};
use crate::link::{ConnectError, Link, LinkSetup, LinkState, dial};

/// The first pause before an endpoint is dialled again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest: short enough that an instance serves again within a second of its listener.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A link that lasted this long was a good one: after it the pauses start anew.
const STABLE: Duration = Duration::from_secs(10);
/// Most links of one thread to one instance, whatever number of threads it announces.
const MAX_LINKS_PER_INSTANCE: u16 = 64;

/// The tasks that dial; they end with it.
pub(super) struct Connectors {
    watcher: JoinHandle<()>,
}

impl Connectors {
    pub(super) fn start(links: Rc<Links>, setup: LinkSetup, endpoints: watch::Receiver<Endpoints>) -> Self {
        Self { watcher: actix_rt::spawn(follow(links, Rc::new(setup), endpoints)) }
    }
}

impl Drop for Connectors {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

/// The start of a process that a connector's link leads to, once it has one.
type Peer = Rc<Cell<Option<Uid>>>;

/// A connector of an endpoint.
struct Connector {
    /// Which start of a process the source named last.
    named: Option<Uid>,
    peer: Peer,
    _task: Task,
}

impl Connector {
    fn start(links: &Rc<Links>, setup: &Rc<LinkSetup>, endpoint: &Endpoint) -> Self {
        let peer = Peer::default();
        let dials = keep_connected(Rc::clone(links), Rc::clone(setup), endpoint.clone(), true, Rc::clone(&peer));
        Self { named: endpoint.uid, peer, _task: Task(actix_rt::spawn(dials)) }
    }

    /// Whether another process has started at the endpoint than the one that the link leads to. The link to the old one
    /// ends with its calls, or by its pings.
    fn is_outdated(&self, endpoint: &Endpoint) -> bool {
        self.named != endpoint.uid && endpoint.uid.is_some() && self.peer.get() != endpoint.uid
    }
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps one connector per endpoint.
async fn follow(links: Rc<Links>, setup: Rc<LinkSetup>, mut endpoints: watch::Receiver<Endpoints>) {
    let mut connectors: BTreeMap<Address, Connector> = BTreeMap::new();
    loop {
        let named = endpoints.borrow_and_update().clone();
        connectors.retain(|address, _| named.iter().any(|endpoint| endpoint.address == *address));
        for endpoint in named.iter() {
            let start = || Connector::start(&links, &setup, endpoint);
            let connector = connectors.entry(endpoint.address.clone()).or_insert_with(start);
            if connector.is_outdated(endpoint) {
                *connector = start();
            }
            connector.named = endpoint.uid;
        }
        if endpoints.changed().await.is_err() {
            // The source has ended: what it named last stays.
            std::future::pending::<()>().await;
        }
    }
}

/// Holds a link to `endpoint`, whatever it takes. The first link of an instance with more threads than this process
/// has brings further ones, so that each of its threads has a part of the calls.
async fn keep_connected(links: Rc<Links>, setup: Rc<LinkSetup>, endpoint: Endpoint, first: bool, peer: Peer) {
    let mut pause = FIRST_PAUSE;
    let reports = Reports::about(&links.service, &endpoint);
    loop {
        match dial(&endpoint.address, &setup).await {
            // The address of an instance that is gone may have become another service's.
            Ok(link) if link.session().peer.service.as_str() != &*links.service => {
                let there = link.session().peer.service.clone();
                reports.failed(&ConnectError::Service { there, wanted: links.service.to_string() });
            }
            Ok(link) => {
                peer.set(Some(link.session().peer.uid));
                let since = Instant::now();
                let further = if first { further_links(&link, &setup) } else { 0 };
                let listed = Listed::new(&links, link, &endpoint);
                let further: Vec<Task> = (0..further)
                    .map(|_| {
                        let peer = Peer::default();
                        keep_connected(Rc::clone(&links), Rc::clone(&setup), endpoint.clone(), false, peer)
                    })
                    .map(|connector| Task(actix_rt::spawn(connector)))
                    .collect();
                listed.until_not_up().await;
                drop((listed, further));
                if since.elapsed() >= STABLE {
                    pause = FIRST_PAUSE;
                }
            }
            Err(error) => reports.failed(&error),
        }
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// How many links more than one this thread needs, so that its process has one to each thread of the peer.
fn further_links(link: &Link, setup: &LinkSetup) -> u16 {
    let theirs = link.session().peer.threads.clamp(1, MAX_LINKS_PER_INSTANCE);
    theirs.div_ceil(setup.identity.threads.max(1)).saturating_sub(1)
}

/// A link that calls may take, until this is dropped.
struct Listed<'a> {
    links: &'a Rc<Links>,
    link: Link,
}

impl<'a> Listed<'a> {
    fn new(links: &'a Rc<Links>, link: Link, endpoint: &Endpoint) -> Self {
        let Session { protocol, peer, .. } = link.session();
        let newest = peer.protocol_max;
        tracing::info!(peer = %peer.service, instance = %peer.instance, uid = %peer.uid, build = %peer.build, protocol, newest, endpoint = %endpoint.name, "link up");
        links.members.borrow_mut().add(&link, endpoint);
        links.publish();
        links.up.notify_waiters();
        Self { links, link }
    }

    async fn until_not_up(&self) {
        // An error means that the link is gone altogether.
        let _ = self.link.states().wait_for(|state| *state != LinkState::Up).await;
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.links.members.borrow_mut().remove(&self.link);
        self.links.publish();
    }
}

impl Links {
    fn publish(&self) {
        let instances = self.members.borrow().instances();
        self.instances.send_if_modified(|known| {
            let changed = **known != *instances;
            *known = instances;
            changed
        });
    }
}
