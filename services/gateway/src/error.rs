//! Why a gateway does not start.

use std::io;
use std::net::SocketAddr;

use crate::router::Problem;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there: trying again later may help (exit code 75).
    #[error("listen on {0}: the address is in use; stop the other server or set gateway.listen to another address")]
    Busy(SocketAddr),
    /// The address cannot be had at all.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// No address is configured.
    #[error("gateway.listen names no address")]
    NoAddress,
    /// Routes are wrong; each problem names its own.
    #[error("{} of the routes are wrong; the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Routes(Vec<Problem>),
    /// The threads did not start.
    #[error("start the gateway's threads: {0}")]
    Threads(#[source] io::Error),
}

impl BindError {
    pub(crate) fn listen(address: SocketAddr, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AddrInUse { Self::Busy(address) } else { Self::Listen { address, source } }
    }
}
