//! From a socket to a link: options, the handshake and its time limit.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use troupe_wire::handshake::{
    ContractVersion, Handshake, HandshakeError, Hello, Keys, NONCE_LEN, RefusalCode, Role, Session, Uid,
};

use super::{Link, MAX_IN_FLIGHT, Memory, Services};
use crate::cause::IoCause;
use crate::discovery::Address;

/// Longest time from the connection to the end of the handshake.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(2);

/// Who this process is to its peers. One per process start: clones share the uid.
#[derive(Debug, Clone)]
pub struct Identity {
    /// This start of this process.
    pub uid: Uid,
    /// The service's name.
    pub service: String,
    /// The instance's name, as operators know it.
    pub instance: String,
    /// Its threads that own links.
    pub threads: u16,
}

impl Identity {
    /// An identity with a uid of its own.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new(service: &str, instance: &str, threads: u16) -> io::Result<Self> {
        let uid = Uid(random()?);
        Ok(Self { uid, service: service.to_owned(), instance: instance.to_owned(), threads: threads.max(1) })
    }
}

/// What this side brings to its links. It belongs to one thread, because the services do.
#[derive(Debug, Clone)]
pub struct LinkSetup {
    /// Who this process is.
    pub identity: Identity,
    /// The keys it knows.
    pub keys: Keys,
    /// What it serves; a caller serves nothing.
    pub services: Services,
    /// What it calls; a callee calls nothing.
    pub calls: Rc<[ContractVersion]>,
    /// Calls it serves at once per link.
    pub max_in_flight: u32,
    /// Where its links hold what readers that are behind have not taken.
    pub memory: Memory,
}

impl LinkSetup {
    /// The setup of a side that makes calls of the contracts in `calls`.
    pub fn caller(identity: Identity, keys: Keys, calls: impl IntoIterator<Item = ContractVersion>) -> Self {
        let calls = calls.into_iter().collect();
        Self {
            identity,
            keys,
            services: Services::new(),
            calls,
            max_in_flight: MAX_IN_FLIGHT,
            memory: Memory::process(),
        }
    }

    /// The setup of a side that serves.
    pub fn callee(identity: Identity, keys: Keys, services: Services) -> Self {
        Self { identity, keys, services, calls: Rc::new([]), max_in_flight: MAX_IN_FLIGHT, memory: Memory::process() }
    }

    /// The HELLO for one connection.
    pub(crate) fn hello(&self, role: Role) -> io::Result<Hello> {
        let Identity { uid, service, instance, threads } = &self.identity;
        let mut hello = Hello::new(*uid, service, instance, random::<NONCE_LEN>()?);
        hello.threads = *threads;
        hello.max_in_flight = self.max_in_flight;
        hello.contracts = match role {
            Role::Caller => self.calls.to_vec(),
            Role::Callee => self.services.contracts(),
        };
        Ok(hello)
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection was not made, or broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took longer than [`HANDSHAKE_TIME`].
    #[error("no handshake within {HANDSHAKE_TIME:?}")]
    Timeout,
    /// One of both sides refused.
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    /// Another service is there.
    #[error("a {there} is there, not a {wanted}")]
    Service {
        /// What is there.
        there: String,
        /// What should be.
        wanted: String,
    },
}

impl ConnectError {
    /// The name of what went wrong in metrics: of a closed set.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Io(error) => IoCause::from(error).as_str(),
            Self::Timeout => IoCause::Timeout.as_str(),
            Self::Handshake(refused) => match refused.code() {
                RefusalCode::Key => "key",
                RefusalCode::Draining | RefusalCode::Busy => "busy",
                RefusalCode::Magic | RefusalCode::Version | RefusalCode::Malformed => "protocol",
            },
            Self::Service { .. } => "stranger",
        }
    }

    /// Whether the peer answered and a person has to change something: a wrong key, version or port.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Handshake(refused) => !matches!(refused.code(), RefusalCode::Draining | RefusalCode::Busy),
            Self::Service { .. } => true,
            Self::Io(_) | Self::Timeout => false,
        }
    }
}

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// Connects to `address` and starts a link to whom is there.
///
/// # Errors
/// See [`ConnectError`].
pub async fn dial(address: &Address, setup: &LinkSetup) -> Result<Link, ConnectError> {
    let connect = async {
        let socket = match address {
            Address::Tcp(address) => Socket::Tcp(TcpStream::connect(address).await?),
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
        };
        meet(Role::Caller, socket, setup).await
    };
    timeout(HANDSHAKE_TIME, connect).await.map_err(|_| ConnectError::Timeout)?
}

/// Lets a peer in that has connected, and serves it.
///
/// # Errors
/// See [`ConnectError`].
pub async fn accept(socket: Socket, setup: &LinkSetup) -> Result<Link, ConnectError> {
    let meeting = meet(Role::Callee, socket, setup);
    timeout(HANDSHAKE_TIME, meeting).await.map_err(|_| ConnectError::Timeout)?
}

/// Tells a peer that has connected why it is not let in.
pub(crate) async fn refuse(socket: Socket, setup: &LinkSetup, code: RefusalCode, reason: &str) {
    let Ok(hello) = setup.hello(Role::Callee) else {
        return;
    };
    let mut output = BytesMut::new();
    Handshake::new(Role::Callee, hello, setup.keys.clone(), &mut output).refuse(code, reason, &mut output);
    let send = async {
        match socket {
            Socket::Tcp(mut socket) => socket.write_all_buf(&mut output).await,
            Socket::Unix(mut socket) => socket.write_all_buf(&mut output).await,
        }
    };
    // Whether or not the peer hears it, it is refused.
    let _ = timeout(HANDSHAKE_TIME, send).await;
}

async fn meet(role: Role, socket: Socket, setup: &LinkSetup) -> Result<Link, ConnectError> {
    match socket {
        Socket::Tcp(socket) => {
            socket.set_nodelay(true)?;
            let (reader, writer) = socket.into_split();
            meet_over(role, reader, writer, setup).await
        }
        Socket::Unix(socket) => {
            let (reader, writer) = socket.into_split();
            meet_over(role, reader, writer, setup).await
        }
    }
}

/// Shakes hands over any pair of streams and starts the link.
pub(crate) async fn meet_over<R, W>(
    role: Role,
    mut reader: R,
    mut writer: W,
    setup: &LinkSetup,
) -> Result<Link, ConnectError>
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let mut output = BytesMut::new();
    let mut input = BytesMut::new();
    let mut handshake = Handshake::new(role, setup.hello(role)?, setup.keys.clone(), &mut output);
    let session = loop {
        let advanced = handshake.advance(&mut input, &mut output);
        let sent = writer.write_all_buf(&mut output).await;
        match advanced {
            Ok(Some(session)) => {
                sent?;
                break session;
            }
            Ok(None) => sent?,
            Err(refused) => {
                linger(&mut reader, &mut writer, &mut input).await;
                return Err(refused.into());
            }
        }
        if reader.read_buf(&mut input).await? == 0 {
            let reason = "the peer closed the connection during the handshake";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason).into());
        }
    };
    warn_of_disabled(&session);
    Ok(Link::start(role, setup, session, reader, writer, input))
}

/// Lets the peer read the refusal: closing with bytes unread would reset the connection under it.
async fn linger<R, W>(reader: &mut R, writer: &mut W, input: &mut BytesMut)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    /// How long a refused peer may take to hang up.
    const LINGER: Duration = Duration::from_millis(200);
    let drain = async {
        let _ = writer.shutdown().await;
        while let Ok(1..) = reader.read_buf(input).await {
            input.advance(input.len());
            input.clear();
        }
    };
    let _ = timeout(LINGER, drain).await;
}

fn warn_of_disabled(session: &Session) {
    for disabled in &session.disabled {
        tracing::warn!(
            peer = %session.peer.service,
            instance = %session.peer.instance,
            contract = disabled.id,
            here = disabled.local,
            there = disabled.peer,
            "peer speaks another version of a contract, which is disabled on this link; upgrade the older of both"
        );
    }
}

/// Random bytes from the kernel.
fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_a_dial_fails_has_a_cause_of_its_own() {
        let io = |kind: io::ErrorKind| ConnectError::Io(kind.into());
        let service = ConnectError::Service { there: "cache".into(), wanted: "balancer".into() };
        let causes = [
            io(io::ErrorKind::ConnectionRefused),
            ConnectError::Timeout,
            io(io::ErrorKind::HostUnreachable),
            io(io::ErrorKind::UnexpectedEof),
            io(io::ErrorKind::OutOfMemory),
            service,
        ]
        .map(|error| error.cause());
        assert_eq!(causes, ["refused", "timeout", "unreachable", "reset", "other", "stranger"]);
    }
}
