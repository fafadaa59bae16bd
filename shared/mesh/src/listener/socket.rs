//! Listening sockets, and connections on their way between threads.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::discovery::Address;
use crate::link::Socket;

/// Connections that the kernel keeps for us while the accept task is busy: every thread of every peer at once.
const BACKLOG: i32 = 1024;

/// A listening socket.
pub(super) enum BoundSocket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A connection that belongs to no thread's event loop yet.
pub(super) enum RawSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// Removed with its socket.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl BoundSocket {
    pub(super) fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = socket2::Socket::new(Domain::for_address(*address), Type::STREAM, Some(Protocol::TCP))?;
                // A restart must not wait for the last links' TIME_WAIT.
                socket.set_reuse_address(true)?;
                socket.bind(&SockAddr::from(*address))?;
                socket.listen(BACKLOG)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Tcp(TcpListener::from_std(socket.into())?))
            }
            Address::Unix(path) => {
                remove_dead(path)?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile(path.clone());
                // Who may connect is who may act as this user; the key decides the rest.
                std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
                Ok(Self::Unix(listener, file))
            }
        }
    }

    pub(super) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?)),
            Self::Unix(_, file) => Ok(Address::Unix(file.0.clone())),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<RawSocket> {
        match self {
            Self::Tcp(listener) => Ok(RawSocket::Tcp(listener.accept().await?.0.into_std()?)),
            Self::Unix(listener, _) => Ok(RawSocket::Unix(listener.accept().await?.0.into_std()?)),
        }
    }
}

impl RawSocket {
    /// Registers the connection with this thread's event loop.
    pub(super) fn adopt(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(socket) => Ok(Socket::Tcp(TcpStream::from_std(socket)?)),
            Self::Unix(socket) => Ok(Socket::Unix(UnixStream::from_std(socket)?)),
        }
    }
}

/// Removes a socket that nobody listens on any more; anything else at `path` stays, and makes the bind fail.
fn remove_dead(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Ok(()),
    }
}
