//! Dials what discovery names, and dials again what is lost.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use troupe_wire::handshake::{Session, Uid};

use super::Links;
use super::ways::Ways;
use crate::discovery::{Address, Endpoint, Endpoints};
use crate::link::{Link, LinkSetup, LinkState};

/// The first pause before an endpoint is dialled again.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest: short enough that an instance serves again within a second of its listener.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A link that lasted this long was a good one: after it the pauses start anew.
const STABLE: Duration = Duration::from_secs(10);
/// Most links of one thread to one instance, whatever number of threads it announces.
const MAX_LINKS_PER_INSTANCE: u16 = 64;

/// Pauses between dials: doubled from the first to the longest, each shortened by up to a half at random, so that those who lost
/// the same peer do not come back together.
struct Pauses {
    next: Duration,
}

impl Pauses {
    fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    fn take(&mut self) -> Duration {
        let pause = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        pause
    }
}

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

/// Where a connector's link leads to, or led to last: the start of a process, and the way there. None before the first.
type Reached = Rc<RefCell<Option<(Uid, Address)>>>;

/// An endpoint as its source names it now.
type Named = Rc<RefCell<Endpoint>>;

/// A connector of an endpoint.
struct Connector {
    named: Named,
    reached: Reached,
    _task: Task,
}

impl Connector {
    fn start(links: &Rc<Links>, setup: &Rc<LinkSetup>, endpoint: &Endpoint) -> Self {
        let (named, reached) = (Rc::new(RefCell::new(endpoint.clone())), Reached::default());
        let dials = keep_connected(Rc::clone(links), Rc::clone(setup), Rc::clone(&named), true, Rc::clone(&reached));
        Self { named, reached, _task: Task(actix_rt::spawn(dials)) }
    }

    /// Whether another process has started at the endpoint than the one that the link leads to. The link to the old one
    /// ends with its calls, or by its pings.
    fn is_outdated(&self, endpoint: &Endpoint) -> bool {
        let there = self.reached.borrow().as_ref().map(|(uid, _)| *uid);
        self.named.borrow().uid != endpoint.uid && endpoint.uid.is_some() && there != endpoint.uid
    }

    /// Whether the link leads by one of the endpoint's ways.
    fn leads_by_a_way_of(&self, endpoint: &Endpoint) -> bool {
        self.reached.borrow().as_ref().is_some_and(|(_, address)| endpoint.ways().any(|way| way.address == *address))
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
        let is_first = |address: &Address| named.iter().any(|endpoint| endpoint.address == *address);
        let mut left: Vec<Connector> =
            connectors.extract_if(.., |address, _| !is_first(address)).map(|(_, connector)| connector).collect();
        for endpoint in named.iter() {
            let start = || Connector::start(&links, &setup, endpoint);
            let connector = connectors.entry(endpoint.address.clone()).or_insert_with(|| {
                // A name's first address may have left it because it leads nowhere: what came by another one stays.
                let same = left.iter().position(|connector| connector.leads_by_a_way_of(endpoint));
                same.map_or_else(start, |place| left.swap_remove(place))
            });
            if connector.is_outdated(endpoint) {
                *connector = start();
            }
            // What is up stays: other ways to it matter where it is dialled again.
            connector.named.replace(endpoint.clone());
        }
        // Those that are named no more end now, and not with the next change.
        drop(left);
        if endpoints.changed().await.is_err() {
            // The source has ended: what it named last stays.
            std::future::pending::<()>().await;
        }
    }
}

/// Holds a link to the instance at `named`, whatever it takes. The first link of an instance with more threads than this process
/// has brings further ones, so that each of its threads has a part of the calls.
async fn keep_connected(links: Rc<Links>, setup: Rc<LinkSetup>, named: Named, first: bool, reached: Reached) {
    let mut pauses = Pauses::new();
    let mut ways = Ways::new(&links.service);
    loop {
        ways.follow(&named.borrow());
        if let Some((link, endpoint)) = ways.dial(&setup).await {
            reached.replace(Some((link.session().peer.uid, endpoint.address.clone())));
            let since = Instant::now();
            let further = if first { further_links(&link, &setup) } else { 0 };
            let listed = Listed::new(&links, link, &endpoint);
            let further: Vec<Task> = (0..further)
                .map(|_| {
                    // By the way that led there: another one may lead to another instance.
                    let (named, reached) = (Rc::new(RefCell::new(endpoint.clone())), Reached::default());
                    keep_connected(Rc::clone(&links), Rc::clone(&setup), named, false, reached)
                })
                .map(|connector| Task(actix_rt::spawn(connector)))
                .collect();
            listed.until_not_up().await;
            drop((listed, further));
            if since.elapsed() >= STABLE {
                pauses = Pauses::new();
            }
        }
        sleep(pauses.take()).await;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use troupe_wire::handshake::{ContractVersion, Keys};

    use super::*;
    use crate::discovery::{Discovery as _, StaticDiscovery};
    use crate::link::Identity;
    use crate::pool::Pool;

    /// Counts dials that fail.
    struct Dials(Arc<AtomicU64>);

    impl Recorder for Dials {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            match key.name() {
                "troupe_mesh_failed_dials_total" => Counter::from_arc(Arc::clone(&self.0)),
                _ => Counter::noop(),
            }
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn pauses_double_up_to_half_a_second_and_differ() {
        let mut pauses = Pauses::new();
        for doubled in [20, 40, 80, 160, 320] {
            let pause = pauses.take();
            let full = Duration::from_millis(doubled);
            assert!((full / 2..=full).contains(&pause), "{pause:?} of {full:?}");
        }
        let capped: BTreeSet<Duration> = (0..1_000).map(|_| pauses.take()).collect();
        assert!(capped.first() >= Some(&(LONGEST_PAUSE / 2)) && capped.last() <= Some(&LONGEST_PAUSE), "{capped:?}");
        assert!(capped.len() > 500, "only {} of 1000 pauses differ", capped.len());
    }

    /// On a clock that jumps from pause to pause, dials take no time: a minute holds as many as the pauses let it.
    #[test]
    fn a_peer_that_is_away_is_dialled_twice_a_second_at_least_and_never_in_a_hurry() {
        let dials = Arc::new(AtomicU64::new(0));
        let counting = Dials(Arc::clone(&dials));
        let _recorder = metrics::set_default_local_recorder(&counting);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        actix_rt::System::with_tokio_rt(|| runtime).block_on(async {
            let nowhere = Address::Unix(tempfile::tempdir().unwrap().path().join("nobody.sock"));
            let source = StaticDiscovery::new([Endpoint::from(nowhere)]);
            let identity = Identity::new("caller", "a", 1).unwrap();
            let setup = LinkSetup::caller(identity, Keys::none(), [ContractVersion { id: 1, version: 1 }]);
            let _pool = Pool::start(setup, "callee", Duration::from_secs(1), source.watch());
            sleep(Duration::from_secs(60)).await;
            let count = dials.load(Ordering::SeqCst);
            assert!((120..=250).contains(&count), "{count} dials in a minute");
        });
    }
}
