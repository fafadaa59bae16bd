//! WebSocket from both ends, by an implementation that is not ours.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tungstenite::handshake::client::Response;
pub use tungstenite::{Error, Message, WebSocket};
use tungstenite::{client::IntoClientRequest as _, protocol::Role};

use crate::upstream::Exchange;

/// Longest wait for a byte: far above anything a test expects.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client's end of a tunnel.
pub type Client = WebSocket<TcpStream>;

/// Opens a tunnel at a path, with fields beside those of the handshake.
///
/// # Errors
/// When the handshake is refused or malformed.
///
/// # Panics
/// When nobody listens.
pub fn connect(
    address: SocketAddr,
    target: &str,
    fields: &[(&'static str, &str)],
) -> Result<(Client, Response), Error> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connect to the gateway");
    stream.set_nodelay(true).expect("set nodelay");
    stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
    let mut request = format!("ws://{address}{target}").into_client_request()?;
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().expect("a field's value"));
    }
    tungstenite::client(request, stream).map_err(|error| match error {
        tungstenite::HandshakeError::Failure(error) => error,
        tungstenite::HandshakeError::Interrupted(_) => Error::ConnectionClosed,
    })
}

/// The fields of a handshake, for clients that write it themselves.
pub const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];

/// A server's end of the connection that a request came by.
pub struct Duplex<'a>(pub(crate) &'a mut BufReader<TcpStream>);

impl Read for Duplex<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for Duplex<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.get_mut().flush()
    }
}

/// Answers a handshake with 101 and these further field lines, each ended by CRLF.
///
/// # Errors
/// When the connection is gone.
pub fn accept<'a>(exchange: &'a mut Exchange<'_>, fields: &str) -> io::Result<WebSocket<Duplex<'a>>> {
    let key = exchange.request.field("sec-websocket-key").to_owned();
    let proof = tungstenite::handshake::derive_accept_key(key.as_bytes());
    exchange.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {proof}\r\n{fields}\r\n"
    ))?;
    Ok(WebSocket::from_raw_socket(exchange.duplex(), Role::Server, None))
}

/// Agrees to whatever protocol is asked for, and sends every message back, until either side closes.
///
/// # Errors
/// When the connection breaks.
pub fn echo(exchange: &mut Exchange<'_>) -> io::Result<()> {
    let agreed = match exchange.request.field("sec-websocket-protocol") {
        "" => String::new(),
        asked => format!("Sec-WebSocket-Protocol: {asked}\r\n"),
    };
    let mut socket = accept(exchange, &agreed)?;
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                socket.send(message).map_err(io::Error::other)?;
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}
