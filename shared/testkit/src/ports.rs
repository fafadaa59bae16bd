//! Ports that nobody listens on.

use std::net::{SocketAddr, TcpListener};

/// A loopback address with a port that was free a moment ago.
///
/// # Panics
/// When the machine has no port left.
pub fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a loopback port");
    listener.local_addr().expect("a bound socket has an address")
}
