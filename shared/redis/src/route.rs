//! By which address this machine reaches Redis.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{UdpSocket, lookup_host};

use crate::error::Error;
use crate::settings::{Node, Place, Topology};

/// The first address that `wanted` takes, over all servers that are known by name.
pub(crate) async fn local_address(topology: &Topology, wanted: impl Fn(IpAddr) -> bool) -> Result<IpAddr, Error> {
    let nodes: Vec<&Node> = match topology {
        Topology::Single(server) => match &server.place {
            Place::Tcp(node) => vec![node],
            Place::Unix(_) => {
                let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
                let found = loopback.into_iter().find(|address| wanted(*address));
                return found.ok_or_else(|| Error::Route("a unix socket has no address".to_owned()));
            }
        },
        Topology::Sentinel { sentinels: nodes, .. } | Topology::Cluster { nodes } => nodes.iter().collect(),
    };
    let mut failure = "no server is configured".to_owned();
    for node in nodes {
        match towards(node, &wanted).await {
            Ok(Some(address)) => return Ok(address),
            Ok(None) => failure = format!("no address of {node} is of the family that is listened on"),
            Err(error) => failure = format!("{node}: {error}"),
        }
    }
    Err(Error::Route(failure))
}

/// Connecting a datagram socket sends nothing; it has the kernel choose the way and with it the source address.
async fn towards(node: &Node, wanted: impl Fn(IpAddr) -> bool) -> std::io::Result<Option<IpAddr>> {
    let mut failure = None;
    for address in lookup_host((node.host.as_str(), node.port)).await? {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let route = async {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            socket.local_addr()
        };
        match route.await {
            Ok(local) if wanted(local.ip()) => return Ok(Some(local.ip())),
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(None), Err)
}
