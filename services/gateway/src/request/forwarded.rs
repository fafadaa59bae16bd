//! What proxies in front say about the client. Only those in `trusted_proxies` are believed.

use std::net::IpAddr;

use ipnet::IpNet;
use troupe_wire::head::Scheme;

use super::Seen;

/// Whether the peer is trusted, and whom else to trust.
pub(super) struct Forwarded<'a> {
    proxies: &'a [IpNet],
    trusted: bool,
}

/// The client as trusted proxies describe it; `None` where they do not.
#[derive(Debug, Default)]
pub(super) struct Client<'a> {
    pub(super) remote: Option<Box<str>>,
    pub(super) scheme: Option<Scheme>,
    pub(super) host: Option<&'a [u8]>,
}

impl<'a> Forwarded<'a> {
    pub(super) fn new(proxies: &'a [IpNet], peer: IpAddr) -> Self {
        Self { proxies, trusted: is_trusted(proxies, peer) }
    }

    pub(super) fn trusted(&self) -> bool {
        self.trusted
    }

    pub(super) fn resolve<'b>(&self, seen: &Seen<'b>) -> Client<'b> {
        if !self.trusted {
            return Client::default();
        }
        let scheme = match seen.forwarded_proto {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
            _ => None,
        };
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
        let host = seen.forwarded_host.filter(|host| !host.is_empty() && host.iter().all(plain));
        Client { remote: self.client(&seen.forwarded_for), scheme, host }
    }

    /// The right-most address that is not a trusted proxy: what stands left of it, anyone may have written.
    fn client(&self, lines: &[&[u8]]) -> Option<Box<str>> {
        let mut nearest = None;
        for line in lines.iter().rev() {
            for hop in line.rsplit(|&byte| byte == b',') {
                let Some(address) = address(hop) else { return nearest };
                nearest = Some(address.to_string().into_boxed_str());
                if !is_trusted(self.proxies, address) {
                    return nearest;
                }
            }
        }
        nearest
    }
}

fn is_trusted(proxies: &[IpNet], address: IpAddr) -> bool {
    !proxies.is_empty() && proxies.iter().any(|network| network.contains(&address.to_canonical()))
}

/// An address with or without a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let plain =
        text.parse::<IpAddr>().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
    plain.map(|address| address.to_canonical())
}
