//! Are the services there that this process would dial?
//!
//! A peer that is away is a warning: services start in any order, and find each other once they are there.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use troupe_mesh::config::Discovery;
use troupe_mesh::discovery::{Address, MAX_ENDPOINTS, MAX_WAYS, Peer, Resolve, SystemResolver, Take};

use super::{Finding, Outcome};
use crate::config::Config;
use crate::failure::{Code, CommandError};
use crate::services::{Service, Services};
use crate::stack;

/// How long a name may take to be resolved, and an address to accept.
const PATIENCE: Duration = Duration::from_secs(1);
/// Addresses that are dialled at once. Nobody has more peers, except by a name that answers too many addresses.
const AT_ONCE: usize = 128;
/// What each peer should do.
const SHOULD: &str = "accepts connections";

pub(super) fn check(config: &Config, services: Services) -> Result<Vec<Finding>, CommandError> {
    let dialled = stack::dialled(config, services);
    if dialled.is_empty() {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::failed(format!("cannot start a runtime: {error}")))?;
    Ok(runtime.block_on(look(config.mesh.discovery, &dialled, Arc::new(SystemResolver))))
}

async fn look(discovery: Discovery, dialled: &[(Service, &[String])], resolver: Arc<dyn Resolve>) -> Vec<Finding> {
    let take = if discovery == Discovery::Static { Take::One } else { Take::All };
    let mut findings = Vec::new();
    if discovery == Discovery::Redis {
        findings.push(by_redis(dialled));
    }
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut looks = Vec::new();
    for &(service, listed) in dialled {
        if discovery == Discovery::Redis && stack::is_unlisted(listed, service) {
            continue;
        }
        if listed.is_empty() && discovery != Discovery::Redis {
            findings.push(nobody(service));
        }
        for peer in listed {
            let (peer, resolver, permits) = (peer.clone(), Arc::clone(&resolver), Arc::clone(&permits));
            looks.push(tokio::spawn(async move { find(service, &peer, take, &*resolver, permits).await }));
        }
    }
    for look in looks {
        findings.extend(look.await.unwrap_or_default());
    }
    findings
}

/// What is to be said where Redis, and not the configuration, names who is there.
fn by_redis(dialled: &[(Service, &[String])]) -> Finding {
    let names: Vec<&str> = dialled.iter().map(|(service, _)| service.name()).collect();
    let listed = dialled.iter().any(|(service, listed)| !stack::is_unlisted(listed, *service));
    let until = if listed { "; what mesh.peers lists is used until it has named one" } else { "" };
    Finding::ok("peer", format!("Redis names those of {} (mesh.discovery = \"redis\"){until}", names.join(", ")))
}

fn nobody(service: Service) -> Finding {
    let name = service.name();
    Finding::warn(
        "peer",
        format!("mesh.peers.{name} is empty, and this process calls a {name}"),
        format!("name one: `--set 'mesh.peers.{name}=[\"address:port\"]'`"),
    )
}

/// One entry of `mesh.peers`: the address, or those of the name that would be dialled.
async fn find(
    service: Service,
    peer: &str,
    take: Take,
    resolver: &dyn Resolve,
    permits: Arc<Semaphore>,
) -> Vec<Finding> {
    let named = format!("{} at {peer}", service.name());
    let addresses = match peer.parse() {
        Ok(Peer::Address(address)) => vec![address],
        Ok(Peer::Name { host, port }) => match resolve(&host, port, take, resolver).await {
            Ok(addresses) => addresses,
            Err(error) => return vec![unresolved(service, &named, &host, &error)],
        },
        Err(error) => return vec![Finding::fail("peer", Code::Configuration, error.to_string(), "see mesh.peers")],
    };
    let dials: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            let permits = Arc::clone(&permits);
            let who = if address.to_string() == peer { named.clone() } else { format!("{named} ({address})") };
            tokio::spawn(async move {
                let _permit = permits.acquire().await;
                judge(service, &who, &address, dial(&address).await)
            })
        })
        .collect();
    let mut findings = Vec::new();
    for dial in dials {
        findings.extend(dial.await);
    }
    // Of one instance, the others are dialled only where the one that answers does so no more.
    if take == Take::One
        && let Some(accepts) = findings.iter().position(|finding| finding.outcome == Outcome::Ok)
    {
        findings = vec![findings.swap_remove(accepts)];
    }
    findings
}

/// The addresses of a name that would be dialled: all that discovery takes for instances, or for ways to one.
async fn resolve(host: &str, port: u16, take: Take, resolver: &dyn Resolve) -> io::Result<Vec<Address>> {
    let mut addresses = in_time(resolver.resolve(host, port)).await?;
    match take {
        Take::One => addresses.truncate(MAX_WAYS),
        Take::All => {
            addresses.sort();
            addresses.dedup();
            addresses.truncate(MAX_ENDPOINTS);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::other("it has no address"));
    }
    Ok(addresses.into_iter().map(Address::Tcp).collect())
}

async fn dial(address: &Address) -> io::Result<()> {
    match address {
        Address::Tcp(address) => in_time(TcpStream::connect(address)).await.map(drop),
        Address::Unix(path) => in_time(UnixStream::connect(path)).await.map(drop),
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(PATIENCE, step).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

fn unresolved(service: Service, who: &str, host: &str, error: &io::Error) -> Finding {
    let is = match error.kind() {
        ErrorKind::TimedOut => format!("the resolver says nothing of {host} within {} s", PATIENCE.as_secs()),
        _ => format!("{host} does not resolve: {error}"),
    };
    let help = format!(
        "is the name right in mesh.peers.{}? `getent hosts {host}` asks the same resolver; Compose and Kubernetes know a name \
         once something runs behind it",
        service.name()
    );
    let said = format!("{who}: {is}");
    Finding { is: Some(is), should_be: Some("resolves".to_owned()), ..Finding::warn("peer", said, help) }
}

/// What became of dialling `address`, what should have, and what to do.
fn judge(service: Service, who: &str, address: &Address, dialled: io::Result<()>) -> Finding {
    let name = service.name();
    let Err(error) = dialled else {
        let (is, should_be) = (Some(SHOULD.to_owned()), Some(SHOULD.to_owned()));
        return Finding { is, should_be, ..Finding::ok("peer", format!("{who} {SHOULD}")) };
    };
    let (is, help) = match (error.kind(), address) {
        (ErrorKind::ConnectionRefused, _) => (
            "refuses connections".to_owned(),
            format!(
                "is it running (`troupe run --service {name}`), and does it listen there? Its mesh.listen says where; by \
                 default only on its own machine's loopback"
            ),
        ),
        (ErrorKind::TimedOut, Address::Tcp(address)) => (
            format!("does not answer within {} s", PATIENCE.as_secs()),
            format!(
                "a firewall drops what is sent to TCP port {} there, or the machine is down: let it through",
                address.port()
            ),
        ),
        (ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable, Address::Tcp(address)) => (
            format!("cannot be reached: {error}"),
            format!("a firewall rejects it, or no route leads there: see `ip route get {}`", address.ip()),
        ),
        (ErrorKind::NotFound, Address::Unix(path)) => (
            "is not there".to_owned(),
            format!("is it running on this machine, with mesh.listen = \"unix:{}\"?", path.display()),
        ),
        _ => (format!("cannot be dialled: {error}"), format!("see mesh.peers.{name}, and who may go there")),
    };
    let said = format!("{who} {is}; should accept connections");
    Finding { is: Some(is), should_be: Some(SHOULD.to_owned()), ..Finding::warn("peer", said, help) }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::os::fd::OwnedFd;

    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    use troupe_mesh::discovery::Resolved;

    use super::*;

    /// Knows one name, by these addresses, and says nothing of another.
    #[derive(Debug)]
    struct Names(Vec<SocketAddr>);

    impl Resolve for Names {
        fn resolve(&self, host: &str, _port: u16) -> Resolved {
            let (known, addresses) = (host == "known", self.0.clone());
            let silent = host == "silent";
            Box::pin(async move {
                match (known, silent) {
                    (true, _) => Ok(addresses),
                    (_, true) => std::future::pending().await,
                    _ => Err(io::Error::other("no such name")),
                }
            })
        }
    }

    async fn found(discovery: Discovery, peers: &[&str], names: Vec<SocketAddr>) -> Vec<Finding> {
        let peers: Vec<String> = peers.iter().map(|peer| (*peer).to_owned()).collect();
        look(discovery, &[(Service::Balancer, &peers)], Arc::new(Names(names))).await
    }

    fn said(findings: &[Finding]) -> Vec<(Outcome, &str)> {
        findings.iter().map(|finding| (finding.outcome, finding.said.as_str())).collect()
    }

    #[test]
    fn only_what_is_elsewhere_and_called_is_dialled() {
        let dialled = |config: &Config, services: &[Service]| -> Vec<&'static str> {
            stack::dialled(config, Services::named(services)).into_iter().map(|(service, _)| service.name()).collect()
        };
        let mut config = Config::default();
        assert_eq!(dialled(&config, &[]), [""; 0]);
        assert_eq!(dialled(&config, &[Service::Gateway]), ["balancer", "cache", "metrics"]);
        assert_eq!(dialled(&config, &[Service::Balancer, Service::Metrics]), ["php-pool"]);
        assert_eq!(dialled(&config, &[Service::PhpPool]), ["metrics"]);
        config.cache.l2 = troupe_cache::service::config::SecondTier::Off;
        config.mesh.peers.metrics.clear();
        assert_eq!(dialled(&config, &[Service::Gateway]), ["balancer"]);
        config.php.clear();
        assert_eq!(dialled(&config, &[Service::Balancer]), [""; 0]);
    }

    #[tokio::test]
    async fn of_a_name_what_discovery_takes_is_dialled() {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        let addresses = vec![([127, 0, 0, 2], port).into(), ([127, 0, 0, 1], port).into()];
        let peer = format!("known:{port}");
        let refused = format!("balancer at {peer} (127.0.0.2:{port}) refuses connections; should accept connections");
        let accepts = format!("balancer at {peer} (127.0.0.1:{port}) accepts connections");
        let findings = found(Discovery::Dns, &[&peer], addresses.clone()).await;
        assert_eq!(said(&findings), [(Outcome::Ok, &*accepts), (Outcome::Warn, &*refused)]);
        let findings = found(Discovery::Static, &[&peer], addresses.clone()).await;
        assert_eq!(said(&findings), [(Outcome::Ok, &*accepts)], "one that answers is enough");
        drop(one);
        let findings = found(Discovery::Static, &[&peer], addresses).await;
        let other = format!("balancer at {peer} (127.0.0.1:{port}) refuses connections; should accept connections");
        assert_eq!(said(&findings), [(Outcome::Warn, &*refused), (Outcome::Warn, &*other)]);
    }

    #[tokio::test]
    async fn names_that_do_not_resolve_are_told_from_a_resolver_that_is_away() {
        let findings = found(Discovery::Dns, &["unknown:1", "silent:1", "known:1"], Vec::new()).await;
        let expected = [
            "balancer at unknown:1: unknown does not resolve: no such name",
            "balancer at silent:1: the resolver says nothing of silent within 1 s",
            "balancer at known:1: known does not resolve: it has no address",
        ];
        assert_eq!(said(&findings), expected.map(|said| (Outcome::Warn, said)));
        assert!(findings[0].help.as_ref().unwrap().contains("`getent hosts unknown`"));
    }

    #[tokio::test]
    async fn who_does_not_answer_is_behind_a_firewall_or_gone() {
        // A listener that takes nobody, and whose queue is full: the kernel drops what comes, as a firewall does.
        let listener: OwnedFd = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        listen(&listener, 0).unwrap();
        let address: SocketAddr = getsockname(&listener).unwrap().try_into().unwrap();
        let mut queued = Vec::new();
        for _ in 0..4 {
            queued.extend(in_time(TcpStream::connect(address)).await);
        }
        let findings = found(Discovery::Static, &[&address.to_string()], Vec::new()).await;
        let expected = format!("balancer at {address} does not answer within 1 s; should accept connections");
        assert_eq!(said(&findings), [(Outcome::Warn, &*expected)]);
        assert!(findings[0].help.as_ref().unwrap().contains("firewall"));
    }

    #[tokio::test]
    async fn sockets_that_are_not_there_and_lists_that_are_empty_are_told() {
        let findings = found(Discovery::Static, &["unix:/nowhere/troupe.sock"], Vec::new()).await;
        assert!(findings[0].help.as_ref().unwrap().contains("mesh.listen = \"unix:/nowhere/troupe.sock\""));
        let findings = found(Discovery::Static, &[], Vec::new()).await;
        assert_eq!(
            said(&findings),
            [(Outcome::Warn, "mesh.peers.balancer is empty, and this process calls a balancer")]
        );
    }

    #[tokio::test]
    async fn where_redis_names_peers_only_listed_ones_are_dialled() {
        let findings = found(Discovery::Redis, &["127.0.0.1:7401"], Vec::new()).await;
        let redis = "Redis names those of balancer (mesh.discovery = \"redis\")";
        assert_eq!(said(&findings), [(Outcome::Ok, redis)], "the default is no list");
        let findings = found(Discovery::Redis, &["unknown:1"], Vec::new()).await;
        assert_eq!(findings.len(), 2);
        assert!(findings[0].said.ends_with("; what mesh.peers lists is used until it has named one"));
    }
}
