//! One call of an upstream server whose request is wholly at hand: the request out, the head of the reply in, and the
//! body too where it has come along. A body that is still on its way goes on in [`super::stream`].

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};
use troupe_contracts::invoke::{Invoke, InvokeFlags, Reply, Times};
use troupe_mesh::body::{self, Body, Pieces, STREAM_BUFFER};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Stage};
use troupe_mesh::port::{CallFuture, Service};
use troupe_wire::head::{RequestHead, ResponseHeadBuilder};
use troupe_wire::trace::TraceContext;

use super::body::{BodyDecoder, Step};
use super::cause::Cause;
use super::connection::{self, Connection, Reading};
use super::encode::{self, Sending};
use super::fault::Fault;
use super::head::{self, Framing, Head, HeadScan};
use super::lie::Lie;
use super::server::{Inside, Server, Wanted};
use super::stream;
use super::tunnel;

/// Interim replies (RFC 9110 §15.2) before the final one. Servers send one or two.
const MAX_INTERIM: u32 = 16;
/// A body of a known length up to this is waited for, for as long as it takes to look at what has come meanwhile, before
/// it is handed on as a stream: servers often write head and body one after the other.
const AWAITED: u64 = 64 * 1024;
/// How often that is.
const LOOKS: u32 = 2;

/// Calls one server, on one thread.
pub(super) struct Client {
    server: Arc<Server>,
    thread: usize,
    scratch: Rc<Scratch>,
}

/// Buffers of a thread that every call uses for a moment.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) builder: RefCell<ResponseHeadBuilder>,
    out: RefCell<Vec<u8>>,
}

impl Client {
    pub(super) fn new(server: Arc<Server>, thread: usize, scratch: Rc<Scratch>) -> Self {
        Self { server, thread, scratch }
    }
}

impl Service<Invoke> for Client {
    fn call(&self, envelope: Envelope<Invoke>) -> CallFuture<Invoke> {
        let (server, thread, scratch) = (Arc::clone(&self.server), self.thread, Rc::clone(&self.scratch));
        if matches!(envelope.call.body, Body::Stream(_)) && !envelope.call.flags.tunnel {
            return Box::pin(stream::call(server, thread, envelope));
        }
        Box::pin(call(server, thread, scratch, envelope))
    }
}

async fn call(
    server: Arc<Server>,
    thread: usize,
    scratch: Rc<Scratch>,
    envelope: Envelope<Invoke>,
) -> Result<Reply, Failure> {
    let inside = server.enter();
    let Envelope { call: Invoke { head, body, flags, .. }, deadline, trace } = envelope;
    let (body, upward) = match body {
        Body::Full(bytes) => (bytes, Body::Empty),
        // Of a tunnel: not looked at before the server has switched, or what is no tunnel might be taken for a request.
        upward => (Bytes::new(), upward),
    };
    let mut wanted = if flags.idempotent { Wanted::Kept } else { Wanted::Sure };
    loop {
        let mut connection = match server.acquire(thread, wanted, deadline).await {
            Ok(connection) => connection,
            Err(fault) => return Err(fault.into_failure(&server)),
        };
        let reused = connection.is_reused();
        match exchange(&mut connection, &scratch, (&head, trace.as_ref()), flags, &body, deadline).await {
            Ok(answer) if answer.head.status() == 101 => {
                return Ok(tunnel::open(connection, answer.head, upward, inside));
            }
            Ok(answer) => match reply(connection, thread, answer, inside).await {
                Ok(reply) => return Ok(reply),
                Err(lie) => return Err(Fault::Lie(lie).into_failure(&server)),
            },
            Err(fault) if reused && wanted != Wanted::New && fault.is_stale(flags.idempotent) => {
                server.meters.stale.increment(1);
                wanted = Wanted::New;
            }
            Err(Fault::ReplyTimeout) if deadline.expired() => {
                server.meters.failed(Cause::ReplyTimeout);
                return Err(Failure::deadline(Stage::Upstream));
            }
            Err(fault) => return Err(fault.into_failure(&server)),
        }
    }
}

/// Sends the request and reads the reply's head.
async fn exchange(
    connection: &mut Connection,
    scratch: &Scratch,
    request: (&RequestHead, Option<&TraceContext>),
    flags: InvokeFlags,
    body: &Bytes,
    deadline: Deadline,
) -> Result<Head, Fault> {
    let sending = match body.len() {
        _ if flags.tunnel => Sending::WebSocket,
        0 => Sending::Nothing,
        length => Sending::Length(length as u64),
    };
    let mut out = scratch.out.take();
    out.clear();
    encode::head(request, flags.head_only, sending, &connection.server().settings().host, &mut out);
    let pause = connection.server().settings().timeouts.write.get();
    let (writing, mut reading) = connection.split();
    let written = connection::write(&writing, [&out, body, &[]], pause).await;
    scratch.out.replace(out);
    let refused = match written {
        Ok(()) => None,
        Err(fault) => match fault.error {
            Some(error) if fault.unsent => return Err(Fault::Unsent(error)),
            // It may have answered before it hung up.
            Some(error) => Some(error),
            None => return Err(Fault::WriteTimeout),
        },
    };
    let due = Instant::now() + reading.server.settings().timeouts.first_byte.get();
    let due = due.min(deadline.instant());
    let awaited = await_head(&mut reading, &scratch.builder, flags);
    match tokio::time::timeout_at(due.into(), awaited).await {
        Ok(Ok(mut head)) => {
            head.keep_alive &= refused.is_none();
            Ok(head)
        }
        Ok(Err(Fault::Closed(error))) => Err(Fault::Closed(error.or(refused))),
        Ok(Err(fault)) => Err(fault),
        Err(_) => Err(Fault::ReplyTimeout),
    }
}

/// Reads up to the head of the final reply, or of the one that opens the tunnel that was asked for.
pub(super) async fn await_head(
    reading: &mut Reading<'_>,
    builder: &RefCell<ResponseHeadBuilder>,
    flags: InvokeFlags,
) -> Result<Head, Fault> {
    let mut scan = HeadScan::default();
    let mut interim = 0;
    loop {
        if let Some(len) = scan.advance(reading.buffer)? {
            let bytes = reading.buffer.get(..len).unwrap_or_default();
            let status = head::status(bytes)?;
            let head = head::read(bytes, flags.head_only, &mut builder.borrow_mut())?;
            reading.buffer.advance(len);
            match status {
                101 if flags.tunnel && head.websocket => return Ok(head),
                101 => return Err(Lie::Switched.into()),
                100..200 => {
                    interim += 1;
                    if interim > MAX_INTERIM {
                        return Err(Lie::Interim.into());
                    }
                    reading.server.meters.interim.increment(1);
                    scan = HeadScan::default();
                    continue;
                }
                _ => return Ok(head),
            }
        }
        let silent = reading.buffer.is_empty() && interim == 0;
        match reading.head().await {
            Ok(1..) => {}
            Ok(0) if silent => return Err(Fault::Closed(None)),
            Err(error) if silent => return Err(Fault::Closed(Some(error))),
            _ => return Err(Lie::Truncated.into()),
        }
    }
}

/// Makes the reply of its head: with the whole body, when that has come, else with a stream.
async fn reply(mut connection: Connection, thread: usize, answer: Head, inside: Inside) -> Result<Reply, Lie> {
    let Head { head, framing, keep_alive, .. } = answer;
    let load = connection.server().load();
    let mut decoder = BodyDecoder::new(framing);
    let mut gathered = Pieces::default();
    let mut looks = match framing {
        Framing::Length(length) if length <= AWAITED => LOOKS,
        _ => 0,
    };
    let (_, mut reading) = connection.split();
    let complete = loop {
        match decoder.next(reading.buffer)? {
            Step::Piece(piece) => gathered.add(piece),
            Step::End => break true,
            Step::More if gathered.len() >= STREAM_BUFFER => break false,
            Step::More => match reading.at_hand() {
                Ok(0) => {
                    decoder.end()?;
                    break true;
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && looks > 0 => {
                    looks -= 1;
                    tokio::task::yield_now().await;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break false,
                Err(_) => return Err(Lie::Truncated),
            },
        }
    };
    if !complete {
        let len = match framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let (mut writer, reader) = body::channel(len);
        // The reader is here still.
        let _ = writer.push(gathered.take());
        actix_rt::spawn(stream::pump(connection, thread, decoder, writer, keep_alive, inside));
        return Ok(Reply { head, load, times: Times::default(), body: Body::Stream(reader) });
    }
    drop(inside);
    if keep_alive {
        connection.served(thread);
    }
    Ok(Reply { head, load, times: Times::default(), body: Body::full(gathered.take()) })
}
