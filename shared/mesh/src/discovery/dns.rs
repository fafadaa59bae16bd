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
mod tests;
