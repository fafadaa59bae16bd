//! DNS discovery: every address of a name is one instance, looked up again every few seconds.
//!
//! This is what `docker compose up --scale` and Kubernetes headless services publish.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use metrics::Gauge;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::resolver::{Answer, Resolve, Resolved};
use super::{Address, Discovery, Endpoint, Endpoints, Peer, PeerError, distinct};

/// Pause between two look-ups of a name.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(5);

/// A look-up that takes longer is late, which is told like a failure, and told again each time that it takes as long once
/// more. The system's resolver waits 5 s before it asks its second server: a first one that is dead makes look-ups slow, and
/// is no outage.
const LATE_AFTER: Duration = Duration::from_secs(6);

/// While a name is unresolved and nothing is known of it, it is tried this often: the start of a stack waits for it.
const RESOLVE_FIRST_EVERY: Duration = Duration::from_millis(500);

/// Addresses that are used of a name that stands for one instance. It has one per family and network, which is a few, and
/// each that is silent takes two seconds of a round of dials.
pub const MAX_WAYS: usize = 8;

/// How many instances a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Every address is one.
    All,
    /// All addresses lead to one, [`MAX_WAYS`] of them at most: the first, and its alternatives. Those that the name has had for
    /// longer come first, so that a resolver that gives them in turns changes nothing.
    One,
}

/// Names looked up every [`RESOLVE_EVERY`]; a name that cannot be looked up keeps the addresses it had.
#[derive(Debug)]
pub struct DnsDiscovery {
    endpoints: watch::Receiver<Endpoints>,
    task: JoinHandle<()>,
}

impl DnsDiscovery {
    /// Starts looking up the peers of `service`: names, and addresses and Unix paths, which stand for themselves.
    ///
    /// Needs a tokio event loop on this thread, where the look-ups are driven. The set is empty until the first answer.
    ///
    /// # Errors
    ///
    /// For the first peer that cannot be read.
    pub fn start<'text>(
        service: &str,
        peers: impl IntoIterator<Item = &'text str>,
        take: Take,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, PeerError> {
        let peers: Vec<Peer> = peers.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        let mut fixed = Vec::new();
        let mut names = Vec::new();
        for peer in peers {
            match peer {
                Peer::Address(address) => fixed.push(Endpoint::from(address)),
                Peer::Name { host, port } => names.push(Name::new(host, port)),
            }
        }
        let (published, endpoints) = watch::channel(distinct(fixed.clone()));
        let stale = metrics::gauge!("troupe_discovery_stale_seconds", "peer" => service.to_owned());
        stale.set(0.0);
        let service = service.to_owned();
        let task = tokio::spawn(async move {
            if names.is_empty() {
                return;
            }
            Lookups { service, fixed, names, take, resolver, published, stale }.run().await;
        });
        Ok(Self { endpoints, task })
    }
}

impl Discovery for DnsDiscovery {
    fn watch(&self) -> watch::Receiver<Endpoints> {
        self.endpoints.clone()
    }
}

impl Drop for DnsDiscovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Name {
    host: String,
    port: u16,
    addresses: Vec<SocketAddr>,
    /// When the name was looked up with success last, or when the first try was made.
    fresh: Instant,
    failing: bool,
}

impl Name {
    fn new(host: String, port: u16) -> Self {
        Self { host, port, addresses: Vec::new(), fresh: Instant::now(), failing: false }
    }

    /// The next look-up, and the time after which it is late.
    fn begin(&self, resolver: &Arc<dyn Resolve>, pause: Duration) -> (Resolved, Duration) {
        let (resolver, host, port) = (Arc::clone(resolver), self.host.clone(), self.port);
        let lookup = async move {
            sleep(pause).await;
            resolver.resolve(&host, port).await
        };
        (Box::pin(lookup), pause + LATE_AFTER)
    }

    fn answered(&mut self, answer: Answer, take: Take, service: &str) {
        let mut addresses = match answer {
            // No addresses is what a scaled-to-zero or restarting service answers, and also what a resolver in trouble
            // answers: the links tell the two apart.
            Ok(addresses) if addresses.is_empty() => return self.failed("empty", "the name has no address", service),
            Ok(addresses) => addresses,
            Err(error) => return self.failed("dns", &error.to_string(), service),
        };
        if take == Take::One {
            addresses = self.ways(&addresses);
        }
        if self.failing {
            tracing::info!(service, host = self.host, "peer name resolves again");
        }
        self.addresses = addresses;
        self.fresh = Instant::now();
        self.failing = false;
    }

    /// Those of `found` that are used of one instance.
    fn ways(&self, found: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut ways: Vec<_> = self.addresses.iter().copied().filter(|address| found.contains(address)).collect();
        for address in found {
            if ways.len() < MAX_WAYS && !ways.contains(address) {
                ways.push(*address);
            }
        }
        ways
    }

    fn failed(&mut self, cause: &'static str, error: &str, service: &str) {
        metrics::counter!("troupe_discovery_failed_lookups_total", "peer" => service.to_owned(), "cause" => cause)
            .increment(1);
        // Once per outage; the gauge tells the rest.
        if !self.failing {
            tracing::warn!(
                service,
                host = self.host,
                error,
                kept = self.addresses.len(),
                "cannot look up a peer name; its last known addresses stay in use"
            );
        }
        self.failing = true;
    }

    fn endpoints(&self, take: Take) -> Vec<Endpoint> {
        let mut each = self.addresses.iter().map(|address| Endpoint {
            address: Address::Tcp(*address),
            name: format!("{}:{} ({})", self.host, self.port, address.ip()).into(),
            uid: None,
            alternatives: Arc::default(),
        });
        match take {
            Take::All => each.collect(),
            Take::One => {
                let first = each.next();
                first.map(|first| Endpoint { alternatives: each.collect(), ..first }).into_iter().collect()
            }
        }
    }
}

struct Lookups {
    service: String,
    fixed: Vec<Endpoint>,
    names: Vec<Name>,
    take: Take,
    resolver: Arc<dyn Resolve>,
    published: watch::Sender<Endpoints>,
    stale: Gauge,
}

impl Lookups {
    /// Each name has one look-up, due or on its way, and waits for no other name's. One that is late is waited for all the
    /// same: another would begin with the same dead server.
    async fn run(mut self) {
        let first = |name: &Name| name.begin(&self.resolver, Duration::ZERO);
        let mut lookups: FuturesUnordered<_> =
            self.names.iter().map(first).enumerate().map(|(of, begun)| watch_over(of, begun)).collect();
        while let Some((of, outcome)) = lookups.next().await {
            let Some(name) = self.names.get_mut(of) else { continue };
            let next = match outcome {
                Ok(answer) => {
                    name.answered(answer, self.take, &self.service);
                    let pause = if name.addresses.is_empty() { RESOLVE_FIRST_EVERY } else { RESOLVE_EVERY };
                    name.begin(&self.resolver, pause)
                }
                Err(late) => {
                    name.failed("timeout", &format!("no answer within {LATE_AFTER:?}"), &self.service);
                    (late, LATE_AFTER)
                }
            };
            lookups.push(watch_over(of, next));
            self.publish();
        }
    }

    fn publish(&self) {
        let stale = self.names.iter().filter(|name| name.failing).map(|name| name.fresh.elapsed()).max();
        self.stale.set(stale.unwrap_or_default().as_secs_f64());

        let found = self.fixed.iter().cloned().chain(self.names.iter().flat_map(|name| name.endpoints(self.take)));
        let found = distinct(found.collect());
        self.published.send_if_modified(|known| {
            let changed = *known != found;
            if changed {
                tracing::info!(service = self.service, instances = found.len(), "the set of instances changed");
                *known = Arc::clone(&found);
            }
            changed
        });
    }
}

/// Waits for the answer to a name's look-up, or until it is late; then the look-up comes back as it is.
async fn watch_over(of: usize, (mut lookup, limit): (Resolved, Duration)) -> (usize, Result<Answer, Resolved>) {
    let answer = timeout(limit, &mut lookup).await;
    (of, answer.map_err(|_| lookup))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};

    use metrics::{Counter, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use parking_lot::Mutex;

    use super::*;

    #[derive(Debug, Default)]
    struct Answers(Mutex<Option<Vec<&'static str>>>);

    impl Answers {
        fn say(&self, answer: Option<Vec<&'static str>>) {
            *self.0.lock() = answer;
        }
    }

    impl Resolve for Answers {
        fn resolve(&self, _host: &str, port: u16) -> Resolved {
            let answer = match &*self.0.lock() {
                Some(ips) => Ok(ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect()),
                None => Err(io::Error::other("resolver down")),
            };
            Box::pin(async move { answer })
        }
    }

    /// Knows each name by one address, and says so when the name's time has passed.
    #[derive(Debug)]
    struct Slow {
        takes: fn(&str) -> Duration,
        asked: AtomicU64,
    }

    impl Slow {
        fn new(takes: fn(&str) -> Duration) -> Arc<Self> {
            Arc::new(Self { takes, asked: AtomicU64::new(0) })
        }

        fn asked(&self) -> u64 {
            self.asked.load(Ordering::SeqCst)
        }
    }

    impl Resolve for Slow {
        fn resolve(&self, host: &str, port: u16) -> Resolved {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let takes = (self.takes)(host);
            Box::pin(async move {
                sleep(takes).await;
                Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))])
            })
        }
    }

    /// Counts look-ups that failed.
    #[derive(Default)]
    struct Failures(Arc<AtomicU64>);

    impl Failures {
        fn count(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl Recorder for Failures {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            match key.name() {
                "troupe_discovery_failed_lookups_total" => Counter::from_arc(Arc::clone(&self.0)),
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

    fn addresses(watched: &mut watch::Receiver<Endpoints>) -> Vec<String> {
        watched.borrow_and_update().iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    async fn settle(watched: &mut watch::Receiver<Endpoints>) -> Vec<String> {
        watched.changed().await.expect("the source lives");
        addresses(watched)
    }

    #[tokio::test(start_paused = true)]
    async fn all_addresses_of_a_name_are_published_and_followed() {
        let resolver = Arc::new(Answers::default());
        resolver.say(Some(vec!["10.0.0.2", "10.0.0.1"]));
        let dns =
            DnsDiscovery::start("balancer", ["balancer:7401", "unix:/b"], Take::All, resolver.clone()).expect("valid");
        let mut watched = dns.watch();
        assert_eq!(addresses(&mut watched), ["unix:/b"]);
        assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401", "10.0.0.2:7401", "unix:/b"]);
        let before = Instant::now();
        resolver.say(Some(vec!["10.0.0.3", "10.0.0.1"]));
        assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401", "10.0.0.3:7401", "unix:/b"]);
        assert!(before.elapsed() <= RESOLVE_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_keeps_the_last_set() {
        let resolver = Arc::new(Answers::default());
        resolver.say(Some(vec!["10.0.0.1"]));
        let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::All, resolver.clone()).expect("valid");
        let mut watched = dns.watch();
        assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401"]);
        for outage in [None, Some(vec![])] {
            resolver.say(outage);
            tokio::time::sleep(RESOLVE_EVERY * 10).await;
            assert!(!watched.has_changed().expect("the source lives"));
            assert_eq!(addresses(&mut watched), ["10.0.0.1:7401"]);
        }
        resolver.say(Some(vec!["10.0.0.9"]));
        assert_eq!(settle(&mut watched).await, ["10.0.0.9:7401"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_name_is_tried_often_at_first() {
        let resolver = Arc::new(Answers::default());
        let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::All, resolver.clone()).expect("valid");
        let mut watched = dns.watch();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = Instant::now();
        resolver.say(Some(vec!["10.0.0.1"]));
        assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401"]);
        assert!(before.elapsed() <= RESOLVE_FIRST_EVERY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_one_instance_keeps_its_address() {
        let resolver = Arc::new(Answers::default());
        resolver.say(Some(vec!["10.0.0.2", "10.0.0.1"]));
        let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::One, resolver.clone()).expect("valid");
        let mut watched = dns.watch();
        assert_eq!(settle(&mut watched).await, ["10.0.0.2:7401"]);
        let ways = |watched: &mut watch::Receiver<Endpoints>| -> Vec<String> {
            let found = watched.borrow_and_update();
            found.iter().flat_map(Endpoint::ways).map(|way| way.name.to_string()).collect()
        };
        assert_eq!(ways(&mut watched), ["balancer:7401 (10.0.0.2)", "balancer:7401 (10.0.0.1)"]);
        resolver.say(Some(vec!["10.0.0.1", "10.0.0.2"]));
        sleep(RESOLVE_EVERY * 2).await;
        assert!(!watched.has_changed().expect("the source lives"));
        resolver.say(Some(vec!["10.0.0.3", "10.0.0.1"]));
        assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401"]);
        assert_eq!(ways(&mut watched), ["balancer:7401 (10.0.0.1)", "balancer:7401 (10.0.0.3)"]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_name_with_a_flood_of_addresses_a_few_lead_to_one_instance() {
        let resolver = Arc::new(Answers::default());
        resolver.say(Some(["10.0.0.1"].into_iter().chain((0..1000).map(|_| "10.0.0.2")).collect()));
        let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::One, resolver.clone()).expect("valid");
        let mut watched = dns.watch();
        settle(&mut watched).await;
        assert_eq!(watched.borrow_and_update().iter().flat_map(Endpoint::ways).count(), 2, "each once");
        let all: Vec<String> = (1..=200).map(|last| format!("10.0.1.{last}")).collect();
        resolver.say(Some(all.into_iter().map(|ip| &*ip.leak()).collect()));
        settle(&mut watched).await;
        assert_eq!(watched.borrow().iter().flat_map(Endpoint::ways).count(), MAX_WAYS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_whose_first_server_is_dead_is_found_by_the_second_and_nothing_is_told() {
        let failures = Failures::default();
        let _recorder = metrics::set_default_local_recorder(&failures);
        let resolver = Slow::new(|_| Duration::from_secs(5));
        let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::All, resolver.clone()).expect("valid");
        let mut watched = dns.watch();
        let found = timeout(Duration::from_secs(60), settle(&mut watched)).await;
        assert_eq!(found.expect("an answer that takes 5 s is an answer"), ["10.0.0.1:7401"]);
        sleep(Duration::from_secs(60)).await;
        assert!(resolver.asked() > 1, "it is looked up again");
        assert_eq!(failures.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_is_late_is_told_and_waited_for_all_the_same() {
        let failures = Failures::default();
        let _recorder = metrics::set_default_local_recorder(&failures);
        let resolver = Slow::new(|_| LATE_AFTER * 10 + Duration::from_secs(1));
        let dns = DnsDiscovery::start("balancer", ["balancer:7401"], Take::All, resolver.clone()).expect("valid");
        let mut watched = dns.watch();
        let found = timeout(LATE_AFTER * 20, settle(&mut watched)).await;
        assert_eq!(found.expect("its answer is taken whenever it comes"), ["10.0.0.1:7401"]);
        assert_eq!((resolver.asked(), failures.count()), (1, 10), "one look-up, told again and again");
    }

    #[tokio::test(start_paused = true)]
    async fn names_do_not_wait_for_each_other() {
        let resolver = Slow::new(|host| if host == "slow" { RESOLVE_EVERY * 1000 } else { Duration::ZERO });
        let dns = DnsDiscovery::start("balancer", ["slow:1", "fast:2"], Take::All, resolver.clone()).expect("valid");
        let before = Instant::now();
        assert_eq!(settle(&mut dns.watch()).await, ["10.0.0.1:2"]);
        assert!(before.elapsed() < RESOLVE_FIRST_EVERY, "{:?}", before.elapsed());
        sleep(RESOLVE_EVERY * 10).await;
        assert!((8..=11).contains(&resolver.asked()), "one look-up of the slow, {} in all", resolver.asked());
    }
}
