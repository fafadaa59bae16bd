//! DNS discovery: every address of a name is one instance, looked up again every few seconds.
//!
//! This is what `docker compose up --scale` and Kubernetes headless services publish.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::Gauge;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Address, Discovery, Endpoint, Endpoints, Peer, PeerError, distinct};

/// Pause between two look-ups of a name.
pub const RESOLVE_EVERY: Duration = Duration::from_secs(5);

/// A look-up that takes longer has failed. The system resolver's own limit is 5 s per server and try.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(4);

/// While a name is unresolved and nothing is known of it, it is tried this often: the start of a stack waits for it.
const RESOLVE_FIRST_EVERY: Duration = Duration::from_millis(500);

/// What a look-up comes to.
pub type Resolved = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Looks names up. Tests bring their own.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// Every address of `host`, with `port`.
    fn resolve(&self, host: &str, port: u16) -> Resolved;
}

/// The system's resolver, on tokio's threads for blocking calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Resolved {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// How many instances a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Every address is one.
    All,
    /// All addresses are one: the one in use is kept as long as the name has it.
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

    fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.addresses.iter().map(|address| Endpoint {
            address: Address::Tcp(*address),
            name: format!("{}:{} ({})", self.host, self.port, address.ip()).into(),
            uid: None,
        })
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
    async fn run(mut self) {
        let mut tick = tokio::time::interval(RESOLVE_FIRST_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look_up().await;
            let next = if self.names.iter().any(|name| name.addresses.is_empty()) {
                RESOLVE_FIRST_EVERY
            } else {
                RESOLVE_EVERY
            };
            tick.reset_after(next);
        }
    }

    async fn look_up(&mut self) {
        for name in &mut self.names {
            let answer = tokio::time::timeout(RESOLVE_TIMEOUT, self.resolver.resolve(&name.host, name.port)).await;
            let (cause, failure) = match answer {
                // No addresses is what a scaled-to-zero or restarting service answers, and also what a resolver in
                // trouble answers: the links tell the two apart.
                Ok(Ok(addresses)) if addresses.is_empty() => ("empty", "the name has no address".to_owned()),
                Ok(Ok(mut addresses)) => {
                    if self.take == Take::One {
                        let kept = addresses.iter().find(|address| name.addresses.contains(address));
                        addresses = kept.or(addresses.first()).copied().into_iter().collect();
                    }
                    if name.failing {
                        tracing::info!(service = self.service, host = name.host, "peer name resolves again");
                    }
                    name.addresses = addresses;
                    name.fresh = Instant::now();
                    name.failing = false;
                    continue;
                }
                Ok(Err(error)) => ("dns", error.to_string()),
                Err(_) => ("timeout", format!("no answer within {RESOLVE_TIMEOUT:?}")),
            };
            metrics::counter!("troupe_discovery_failed_lookups_total", "peer" => self.service.clone(), "cause" => cause)
                .increment(1);
            // Once per outage; the gauge tells the rest.
            if !name.failing {
                tracing::warn!(
                    service = self.service,
                    host = name.host,
                    error = failure,
                    kept = name.addresses.len(),
                    "cannot look up a peer name; its last known addresses stay in use"
                );
            }
            name.failing = true;
        }
        let stale = self.names.iter().filter(|name| name.failing).map(|name| name.fresh.elapsed()).max();
        self.stale.set(stale.unwrap_or_default().as_secs_f64());

        let found = self.fixed.iter().cloned().chain(self.names.iter().flat_map(Name::endpoints));
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

#[cfg(test)]
mod tests {
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
        resolver.say(Some(vec!["10.0.0.1", "10.0.0.2"]));
        tokio::time::sleep(RESOLVE_EVERY * 2).await;
        assert!(!watched.has_changed().expect("the source lives"));
        resolver.say(Some(vec!["10.0.0.1"]));
        assert_eq!(settle(&mut watched).await, ["10.0.0.1:7401"]);
    }

    #[tokio::test]
    async fn the_system_resolves_localhost() {
        let dns =
            DnsDiscovery::start("balancer", ["localhost:7401"], Take::All, Arc::new(SystemResolver)).expect("valid");
        let found = settle(&mut dns.watch()).await;
        assert!(found.iter().all(|address| address.ends_with(":7401")), "{found:?}");
    }
}
