//! Where an instance says that it is.

use std::net::{IpAddr, SocketAddr};

use troupe_redis::{Error, Redis};

use super::record::can_be_dialled;
use crate::discovery::Address;

/// Where an instance is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advertise {
    /// There, as it stands.
    Address(Address),
    /// It listens on all addresses of its machine: it is dialled at the one by which the machine reaches Redis.
    Reachable {
        /// Its port.
        port: u16,
        /// Whether only IPv4 is listened on.
        only_v4: bool,
    },
}

impl Advertise {
    /// What a listener at `bound` is dialled at: there, unless it is a wildcard.
    pub fn listener(bound: &Address) -> Self {
        match bound {
            Address::Tcp(address) if address.ip().is_unspecified() => {
                Self::Reachable { port: address.port(), only_v4: address.is_ipv4() }
            }
            other => Self::Address(other.clone()),
        }
    }

    /// The address to write.
    pub(super) async fn resolve(&self, redis: &Redis) -> Result<Address, Error> {
        let address = match self {
            Self::Address(address) => address.clone(),
            Self::Reachable { port, only_v4 } => {
                let wanted = |ip: IpAddr| (ip.is_ipv4() || !only_v4) && !ip.is_unspecified();
                Address::Tcp(SocketAddr::new(redis.local_address(wanted).await?, *port))
            }
        };
        if can_be_dialled(&address) {
            Ok(address)
        } else {
            Err(Error::Route(format!("{address} is no address that others can dial; set mesh.advertise")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_not_advertised() {
        let listener = |text: &str| Advertise::listener(&text.parse::<SocketAddr>().map(Address::Tcp).expect("valid"));
        assert_eq!(listener("0.0.0.0:7402"), Advertise::Reachable { port: 7402, only_v4: true });
        assert_eq!(listener("[::]:7402"), Advertise::Reachable { port: 7402, only_v4: false });
        let fixed = "10.0.0.7:7402".parse().map(Address::Tcp).expect("valid");
        assert_eq!(listener("10.0.0.7:7402"), Advertise::Address(fixed));
    }
}
