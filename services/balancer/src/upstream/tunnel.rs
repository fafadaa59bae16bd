//! WebSocket (RFC 6455): what goes on behind a reply of 101 is bytes, both ways, that nobody here looks into.
//!
//! The call's body is what the client sends, the reply's body what the server sends, so a tunnel has the back-pressure of
//! bodies and goes wherever they go. It has a task of its own, keeps the connection and the call's place for its life, and
//! the connection is never used again.

use std::cell::Cell;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use metrics::Gauge;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::WriteHalf;
use troupe_contracts::invoke::{Reply, Times};
use troupe_mesh::body::{self, Body, BodyWriter};
use troupe_wire::head::ResponseHead;

use super::connection::{self, Connection, Reading};
use super::server::Inside;

/// Pieces below this are copied: a message of a few bytes must not hold the room of a whole read while its client is slow.
const COPIED: usize = 8 * 1024;

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client ended its side and then the server its own, or the client is gone.
    Client,
    /// The server ended its side first.
    Server,
    /// Nothing was said for too long.
    Idle,
    /// The server took no bytes for too long.
    Stalled,
    /// The server's connection broke.
    Broken,
}

impl End {
    /// All of them, in their order.
    pub(super) const ALL: [Self; 5] = [Self::Client, Self::Server, Self::Idle, Self::Stalled, Self::Broken];

    /// The name in metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Broken => "broken",
        }
    }
}

/// Makes the reply of the server's 101; from here on the tunnel runs by itself. `upward` is what the client sends.
pub(super) fn open(connection: Connection, head: ResponseHead, upward: Body, inside: Inside) -> Reply {
    let load = connection.server().load();
    let (downward, reader) = body::channel(None);
    actix_rt::spawn(run(connection, upward, downward, inside));
    Reply { head, load, times: Times::default(), body: Body::Stream(reader) }
}

async fn run(mut connection: Connection, upward: Body, mut downward: BodyWriter, inside: Inside) {
    let counted = Open::new(&connection.server().meters.tunnels);
    let (end, whole) = pass(&mut connection, upward, &mut downward).await;
    let server = connection.server();
    server.meters.tunnel_ended(end);
    if !whole && end != End::Client {
        tracing::info!(pool = %server.pool, worker = %server.name, reason = end.as_str(), "a tunnel was cut off");
    }
    // Connection and place are free before the client learns of the end, so that who comes next finds them.
    drop((counted, connection, inside));
    if whole {
        downward.finish();
    }
}

/// Passes bytes until the tunnel is over. With how it ended comes whether all that the server sent has gone on.
async fn pass(connection: &mut Connection, upward: Body, downward: &mut BodyWriter) -> (End, bool) {
    let timeouts = connection.server().settings().timeouts;
    let (stream, mut reading) = connection.split();
    let last = Cell::new(Instant::now());
    let mut limit = timeouts.tunnel.get();
    let mut sending = pin!(send(stream, upward, timeouts.write.get(), &last));
    let mut receiving = pin!(receive(&mut reading, downward, &last));
    let mut sent = None;
    loop {
        tokio::select! {
            biased;
            received = &mut receiving => return match received {
                Received::All if sent == Some(Sent::All) => (End::Client, true),
                Received::All => (End::Server, true),
                Received::Broken => (End::Broken, false),
                Received::ReaderGone => (End::Client, false),
            },
            result = &mut sending, if sent.is_none() => match result {
                Sent::Aborted => return (End::Client, false),
                Sent::Stalled => return (End::Stalled, false),
                // The server may go on; but nobody keeps the tunnel alive any more. One that takes nothing may have said why.
                Sent::All | Sent::Refused => {
                    sent = Some(result);
                    limit = limit.min(timeouts.idle.get());
                    last.set(Instant::now());
                }
            },
            () = tokio::time::sleep_until((last.get() + limit).into()) => {
                if last.get().elapsed() >= limit {
                    return (End::Idle, false);
                }
            }
        }
    }
}

/// What became of the client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// The client ended its side, and the server was told.
    All,
    /// The client is gone.
    Aborted,
    /// The server took none for too long.
    Stalled,
    /// The server takes no more.
    Refused,
}

/// Sends what the client sends, at the server's pace.
async fn send(mut stream: WriteHalf<'_>, mut upward: Body, pause: Duration, last: &Cell<Instant>) -> Sent {
    while let Some(piece) = upward.next().await {
        let Ok(piece) = piece else { return Sent::Aborted };
        match connection::write(&stream, [&piece, &[], &[]], pause).await {
            Ok(()) => last.set(Instant::now()),
            Err(fault) if fault.error.is_none() => return Sent::Stalled,
            Err(_) => return Sent::Refused,
        }
    }
    match stream.shutdown().await {
        Ok(()) => Sent::All,
        Err(_) => Sent::Refused,
    }
}

/// What became of the server's bytes.
enum Received {
    /// The server ended its side.
    All,
    /// Its connection broke.
    Broken,
    /// Nobody wants them any more.
    ReaderGone,
}

/// Passes on what the server sends, at the client's pace.
async fn receive(reading: &mut Reading<'_>, downward: &mut BodyWriter, last: &Cell<Instant>) -> Received {
    loop {
        // The first of them may have come along with the head.
        if reading.buffer.is_empty() {
            *reading.buffer = BytesMut::new();
        } else {
            last.set(Instant::now());
            let piece = take(reading.buffer);
            if downward.write(piece).await.is_err() {
                return Received::ReaderGone;
            }
            last.set(Instant::now());
        }
        let read = tokio::select! {
            biased;
            () = downward.closed() => return Received::ReaderGone,
            read = reading.when_there() => read,
        };
        match read {
            Ok(0) => return Received::All,
            Ok(_) => {}
            Err(_) => return Received::Broken,
        }
    }
}

/// What was read.
fn take(buffer: &mut BytesMut) -> Bytes {
    if buffer.len() >= COPIED {
        return buffer.split().freeze();
    }
    let piece = Bytes::copy_from_slice(buffer);
    buffer.clear();
    piece
}

/// Counts a tunnel for as long as it lives.
struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
