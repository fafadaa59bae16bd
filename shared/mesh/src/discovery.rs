//! Where the instances of a service are: a static list, DNS names or Redis, published as it changes.
//!
//! Discovery names candidates; whether one is alive is what its link's pings say. A source that fails keeps the set it
//! had (fail-static): an outage of DNS or Redis must not take down what works.

mod dns;
mod redis;
mod resolver;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::watch;
use troupe_wire::handshake::Uid;

pub use self::redis::{Advertise, BEAT_EVERY, BEAT_LASTS, Membership, POLL_EVERY, RedisDiscovery, Registration};
pub use dns::{DnsDiscovery, MAX_WAYS, RESOLVE_EVERY, Take};
pub use resolver::{Resolve, Resolved, SystemResolver};

/// More instances of one service than this are cut off, with a warning: a name that answers thousands of addresses is a
/// mistake, and each would cost a link per thread.
pub const MAX_ENDPOINTS: usize = 1024;

/// The instances of one service, sorted, each once.
pub type Endpoints = Arc<[Endpoint]>;

/// A source of instances.
///
/// Dropping the source ends its work; receivers keep the last set.
pub trait Discovery: fmt::Debug {
    /// The set now, and each change of it.
    fn watch(&self) -> watch::Receiver<Endpoints>;
}

/// The source for the instances of `service` at `peers`, which the configuration lists.
///
/// Names are looked up, which needs a tokio event loop on this thread; `take` says what their addresses are. Where none is
/// a name, the set never changes.
///
/// # Errors
///
/// For the first peer that cannot be read.
pub fn discover(take: Take, service: &str, peers: &[String]) -> Result<Box<dyn Discovery>, PeerError> {
    let written = || peers.iter().map(String::as_str);
    let parsed: Vec<Peer> = written().map(str::parse).collect::<Result<_, _>>()?;
    if parsed.iter().all(|peer| matches!(peer, Peer::Address(_))) {
        return Ok(Box::new(StaticDiscovery::parse(written())?));
    }
    Ok(Box::new(DnsDiscovery::start(service, written(), take, Arc::new(SystemResolver))?))
}

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where to dial.
    pub address: Address,
    /// What people see: the name it was found under, and the address if that differs.
    pub name: Arc<str>,
    /// Which start of a process is there, where the source knows.
    pub uid: Option<Uid>,
    /// Other ways to the same instance, dialled in turn while this one leads nowhere: the further addresses of a name that
    /// stands for one instance. Empty elsewhere, and theirs always.
    pub alternatives: Arc<[Endpoint]>,
}

impl Endpoint {
    /// Every way to the instance by itself, this one first.
    pub(crate) fn ways(&self) -> impl Iterator<Item = Self> {
        let this = Self { alternatives: Arc::default(), ..self.clone() };
        std::iter::once(this).chain(self.alternatives.iter().cloned())
    }
}

/// What a link dials.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = PeerError;

    /// Reads `127.0.0.1:7401`, `[::1]:7401` or `unix:/run/troupe/balancer.sock`.
    fn from_str(text: &str) -> Result<Self, PeerError> {
        match text.parse()? {
            Peer::Address(address) => Ok(address),
            Peer::Name { .. } => {
                Err(PeerError::new(text, "it is a name; set mesh.discovery = \"dns\", or write an IP address"))
            }
        }
    }
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Self {
        let name = Arc::from(address.to_string());
        Self { address, name, uid: None, alternatives: Arc::default() }
    }
}

/// A peer as it is written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// An address to dial as it stands.
    Address(Address),
    /// A name whose every address is one instance.
    Name {
        /// The host name.
        host: String,
        /// The port, the same for every address.
        port: u16,
    },
}

/// A peer that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use peer {text:?}: {reason}")]
pub struct PeerError {
    text: String,
    reason: &'static str,
}

impl PeerError {
    fn new(text: &str, reason: &'static str) -> Self {
        Self { text: text.to_owned(), reason }
    }
}

impl FromStr for Peer {
    type Err = PeerError;

    /// Reads `address:port`, `name:port` or `unix:/path`.
    fn from_str(text: &str) -> Result<Self, PeerError> {
        let error = |reason| Err(PeerError::new(text, reason));
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return error("a Unix socket needs an absolute path, as in unix:/run/troupe.sock");
            }
            // The kernel's address holds 108 bytes with the zero at the end.
            if path.len() > 107 || path.contains('\0') {
                return error("a Unix socket's path has 107 bytes at most, none of them zero");
            }
            return Ok(Self::Address(Address::Unix(PathBuf::from(path))));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            if address.port() == 0 {
                return error("the port must not be 0");
            }
            return Ok(Self::Address(Address::Tcp(address)));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return error("write address:port, name:port or unix:/path");
        };
        let Some(port) = port.parse().ok().filter(|port| *port != 0) else {
            return error("the port must be a number from 1 to 65535");
        };
        let sane = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(sane) {
            return error("the host must be an IP address ([..] around IPv6) or a DNS name");
        }
        Ok(Self::Name { host: host.to_owned(), port })
    }
}

/// A list that never changes.
#[derive(Debug)]
pub struct StaticDiscovery {
    endpoints: watch::Sender<Endpoints>,
}

impl StaticDiscovery {
    /// Endpoints as given, sorted and each once.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self { endpoints: watch::channel(distinct(endpoints.into_iter().collect())).0 }
    }

    /// Reads the peers of the configuration; every one must be an address or a Unix path.
    ///
    /// # Errors
    ///
    /// For the first peer that is neither.
    pub fn parse<'text>(peers: impl IntoIterator<Item = &'text str>) -> Result<Self, PeerError> {
        let addresses: Vec<Address> = peers.into_iter().map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self::new(addresses.into_iter().map(Endpoint::from)))
    }
}

impl Discovery for StaticDiscovery {
    fn watch(&self) -> watch::Receiver<Endpoints> {
        self.endpoints.subscribe()
    }
}

/// Sorted by address, each address once, [`MAX_ENDPOINTS`] at most.
fn distinct(mut endpoints: Vec<Endpoint>) -> Endpoints {
    endpoints.sort();
    endpoints.dedup_by(|one, other| one.address == other.address);
    if endpoints.len() > MAX_ENDPOINTS {
        tracing::warn!(
            found = endpoints.len(),
            kept = MAX_ENDPOINTS,
            "too many instances of one service; the rest is not used"
        );
        endpoints.truncate(MAX_ENDPOINTS);
    }
    endpoints.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_addresses_names_and_paths() {
        assert_eq!("127.0.0.1:7401".parse(), Ok(Peer::Address(Address::Tcp("127.0.0.1:7401".parse().unwrap()))));
        assert_eq!("[::1]:7401".parse(), Ok(Peer::Address(Address::Tcp("[::1]:7401".parse().unwrap()))));
        assert_eq!("unix:/run/b.sock".parse(), Ok(Peer::Address(Address::Unix("/run/b.sock".into()))));
        assert_eq!("balancer:7401".parse(), Ok(Peer::Name { host: "balancer".into(), port: 7401 }));
        for bad in ["", ":1", "a", "a:", "a:0", "127.0.0.1:0", "a:65536", "a b:1", "::1:7401", "unix:relative", "unix:"]
        {
            let error = bad.parse::<Peer>().expect_err(bad).to_string();
            assert!(error.starts_with("cannot use peer"), "{error}");
        }
        let error = "balancer:7401".parse::<Address>().expect_err("a name").to_string();
        assert!(error.contains("mesh.discovery"), "{error}");
        for text in ["127.0.0.1:7401", "[::1]:7401", "unix:/run/b.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_static_list_is_there_at_once_each_address_once() {
        let found = StaticDiscovery::parse(["127.0.0.1:2", "unix:/a", "127.0.0.1:1", "127.0.0.1:2"]).expect("valid");
        let names: Vec<String> = found.watch().borrow().iter().map(|endpoint| endpoint.name.to_string()).collect();
        assert_eq!(names, ["127.0.0.1:1", "127.0.0.1:2", "unix:/a"]);
    }

    #[actix_rt::test]
    async fn the_configuration_chooses() {
        let peers = ["localhost:7401".to_owned(), "unix:/a".to_owned()];
        let found = discover(Take::One, "balancer", &peers).expect("valid");
        let mut watched = found.watch();
        watched.wait_for(|found| found.len() == 2).await.expect("localhost has an address, and one is used");
        let found = discover(Take::One, "balancer", &peers[1..]).expect("valid");
        assert_eq!(found.watch().borrow().len(), 1);
        assert!(discover(Take::All, "balancer", &["bad".to_owned()]).is_err());
    }

    #[test]
    fn a_flood_of_endpoints_is_cut() {
        let many = (1..=2000_u16).map(|port| Endpoint::from(Address::Tcp(([127, 0, 0, 1], port).into())));
        assert_eq!(StaticDiscovery::new(many).watch().borrow().len(), MAX_ENDPOINTS);
    }
}
