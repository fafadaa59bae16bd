//! Bodies that are on their way: replies that go on behind their head, and requests that are sent as they come.
//!
//! Either runs in a task of its own, at the pace of whoever takes the bytes, and ends when nobody wants them any more.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::tcp::WriteHalf;
use tokio::sync::oneshot;
use troupe_contracts::invoke::{Invoke, InvokeFlags, Reply, Times};
use troupe_mesh::body::{self, Body, BodyWriter};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_wire::head::ResponseHeadBuilder;

use super::body::{BodyDecoder, Step};
use super::cause::Cause;
use super::connection::{self, Connection, Reading, WriteFault};
use super::encode::{self, Sending};
use super::exchange::await_head;
use super::fault::Fault;
use super::head::{Framing, Head};
use super::lie::Lie;
use super::server::{Inside, Server, Wanted};

/// Reads the rest of a reply's body and passes it on.
pub(super) async fn pump(
    mut connection: Connection,
    thread: usize,
    mut decoder: BodyDecoder,
    mut writer: BodyWriter,
    keep_alive: bool,
    inside: Inside,
) {
    let (_, mut reading) = connection.split();
    match drain(&mut reading, &mut decoder, &mut writer).await {
        Ok(()) => {
            // The place is free before the caller learns of the end, so that who comes next finds it.
            drop(inside);
            if keep_alive {
                connection.served(thread);
            }
            writer.finish();
        }
        Err(cut) => cut.note(connection.server()),
    }
}

/// Why a body did not go through.
enum Cut {
    Lie(Lie),
    Idle,
    Reset(io::Error),
    /// Nobody wants it any more.
    ReaderGone,
}

impl Cut {
    fn note(&self, server: &Server) {
        let worker = &server.name;
        match self {
            Self::ReaderGone => return,
            Self::Lie(lie) => {
                server.meters.lied(*lie);
                tracing::warn!(pool = %server.pool, %worker, reason = lie.as_str(), "a reply was cut off");
            }
            Self::Idle => {
                server.meters.failed(Cause::BodyTimeout);
                tracing::warn!(pool = %server.pool, %worker, reason = "idle for too long", "a reply was cut off");
            }
            Self::Reset(error) => {
                server.meters.failed(Cause::of_broken(error));
                tracing::warn!(pool = %server.pool, %worker, %error, "a reply broke off");
            }
        }
        server.meters.cut.increment(1);
    }
}

/// Moves a body from the connection to its reader, to its end.
async fn drain(reading: &mut Reading<'_>, decoder: &mut BodyDecoder, writer: &mut BodyWriter) -> Result<(), Cut> {
    let idle = reading.server.settings().timeouts.idle.get();
    loop {
        match decoder.next(reading.buffer).map_err(Cut::Lie)? {
            Step::Piece(piece) => writer.write(piece).await.map_err(|_| Cut::ReaderGone)?,
            Step::End => return Ok(()),
            Step::More => {
                let read = tokio::select! {
                    biased;
                    () = writer.closed() => return Err(Cut::ReaderGone),
                    read = tokio::time::timeout(idle, reading.body()) => read,
                };
                match read {
                    Err(_) => return Err(Cut::Idle),
                    Ok(Err(error)) => return Err(Cut::Reset(error)),
                    Ok(Ok(0)) => return decoder.end().map_err(Cut::Lie),
                    Ok(Ok(_)) => {}
                }
            }
        }
    }
}

/// A call whose request's body is on its way. The server may answer before it has come.
pub(super) async fn call(server: Arc<Server>, thread: usize, envelope: Envelope<Invoke>) -> Result<Reply, Failure> {
    let (answer, answered) = oneshot::channel();
    actix_rt::spawn(run(server, thread, envelope, answer));
    // Without an answer: the request's body broke off, so that nobody is left to be answered.
    answered.await.unwrap_or_else(|_| Err(Failure::new(Outcome::Cancelled, Stage::Upstream, "the request broke off")))
}

type Answer = oneshot::Sender<Result<Reply, Failure>>;

async fn run(server: Arc<Server>, thread: usize, envelope: Envelope<Invoke>, mut answer: Answer) {
    let inside = server.enter();
    let Envelope { call: Invoke { head, body, flags, .. }, deadline, trace } = envelope;
    let acquired = tokio::select! {
        biased;
        () = answer.closed() => return,
        acquired = server.acquire(thread, Wanted::Sure, deadline) => acquired,
    };
    let mut connection = match acquired {
        Ok(connection) => connection,
        Err(fault) => {
            let _ = answer.send(Err(fault.into_failure(&server)));
            return;
        }
    };
    let sending = body.len().map_or(Sending::Chunked, Sending::Length);
    let mut out = Vec::new();
    encode::head((&head, trace.as_ref()), flags.head_only, sending, &server.settings().host, &mut out);
    let exchange = Exchange { server: &server, flags, answer, inside };
    let Some((writer, keep_alive)) = exchange.run(&mut connection, Request { head: out, body, sending }).await else {
        return;
    };
    if keep_alive {
        connection.served(thread);
    }
    writer.finish();
}

/// A request whose body comes bit by bit.
struct Request {
    head: Vec<u8>,
    body: Body,
    sending: Sending,
}

/// Why a request was not sent in full.
enum SendFault {
    /// Its body broke off, or is not as long as it said.
    Source,
    /// The server did not take it.
    Write(WriteFault),
}

impl Request {
    async fn send(mut self, stream: WriteHalf<'_>, pause: Duration) -> Result<(), SendFault> {
        connection::write(&stream, [&self.head, &[], &[]], pause).await.map_err(SendFault::Write)?;
        let mut left = match self.sending {
            Sending::Length(length) => Some(length),
            Sending::Chunked => None,
            Sending::Nothing | Sending::WebSocket => Some(0),
        };
        while let Some(piece) = self.body.next().await {
            let piece = piece.map_err(|_| SendFault::Source)?;
            let size;
            let parts: [&[u8]; 3] = match &mut left {
                Some(left) => {
                    *left = left.checked_sub(piece.len() as u64).ok_or(SendFault::Source)?;
                    [&piece, &[], &[]]
                }
                // An empty chunk would be the last.
                None if piece.is_empty() => continue,
                None => {
                    size = format!("{:x}\r\n", piece.len());
                    [size.as_bytes(), &piece, b"\r\n"]
                }
            };
            match connection::write(&stream, parts, pause).await {
                Ok(()) => {}
                // The head was taken, so something was.
                Err(fault) => return Err(SendFault::Write(WriteFault { unsent: false, ..fault })),
            }
        }
        match left {
            Some(0) => Ok(()),
            Some(_) => Err(SendFault::Source),
            None => connection::write(&stream, [b"0\r\n\r\n", &[], &[]], pause)
                .await
                .map_err(|fault| SendFault::Write(WriteFault { unsent: false, ..fault })),
        }
    }
}

/// An exchange both of whose bodies may be on their way at once.
struct Exchange<'a> {
    server: &'a Server,
    flags: InvokeFlags,
    answer: Answer,
    inside: Inside,
}

impl Exchange<'_> {
    /// Sends the request and passes the reply on, both at once. The writer of a reply that went through in full, and
    /// whether the connection goes on; `None` when it ended in another way, which has been told.
    async fn run(mut self, connection: &mut Connection, request: Request) -> Option<(BodyWriter, bool)> {
        let (stream, mut reading) = connection.split();
        let mut sending = pin!(request.send(stream, self.server.settings().timeouts.write.get()));
        let mut sent = None;
        let head = match self.await_head(&mut reading, sending.as_mut(), &mut sent).await? {
            Ok(head) => head,
            Err(fault) => {
                let _ = self.answer.send(Err(fault.into_failure(self.server)));
                return None;
            }
        };
        let Head { head, framing, keep_alive, .. } = head;
        let len = match framing {
            Framing::Length(length) => Some(length),
            _ => None,
        };
        let (mut writer, reader) = body::channel(len);
        let body = match framing {
            Framing::Empty => Body::Empty,
            _ => Body::Stream(reader),
        };
        let reply = Reply { head, load: self.server.load(), times: Times::default(), body };
        if self.answer.send(Ok(reply)).is_err() {
            return None;
        }
        let mut decoder = BodyDecoder::new(framing);
        let drained = {
            let mut draining = pin!(drain(&mut reading, &mut decoder, &mut writer));
            loop {
                tokio::select! {
                    biased;
                    drained = &mut draining => break drained,
                    result = &mut sending, if sent.is_none() => match result {
                        // Half a request has no whole answer.
                        Err(SendFault::Source) => return None,
                        result => sent = Some(result.is_ok()),
                    },
                }
            }
        };
        drop(self.inside);
        match drained {
            // What is left of the request when its answer is complete is not sent: the server did without.
            Ok(()) => Some((writer, keep_alive && sent == Some(true))),
            Err(cut) => {
                cut.note(self.server);
                None
            }
        }
    }

    /// Sends until the head of the reply is here. `None`: there is nobody left who wants it.
    async fn await_head(
        &mut self,
        reading: &mut Reading<'_>,
        mut sending: Pin<&mut impl Future<Output = Result<(), SendFault>>>,
        sent: &mut Option<bool>,
    ) -> Option<Result<Head, Fault>> {
        let builder = RefCell::new(ResponseHeadBuilder::default());
        let mut awaited = pin!(await_head(reading, &builder, self.flags));
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.answer.closed() => return None,
                head = &mut awaited => return Some(head),
                result = &mut sending, if sent.is_none() => {
                    *sent = Some(result.is_ok());
                    match result {
                        Ok(()) => {}
                        Err(SendFault::Source) => return None,
                        Err(SendFault::Write(WriteFault { error: None, .. })) => return Some(Err(Fault::WriteTimeout)),
                        Err(SendFault::Write(WriteFault { unsent: true, error: Some(error) })) => {
                            return Some(Err(Fault::Unsent(error)));
                        }
                        // It may have answered before it hung up.
                        Err(SendFault::Write(_)) => {}
                    }
                    due = Instant::now() + self.server.settings().timeouts.first_byte.get();
                }
                () = tokio::time::sleep_until(due.into()), if sent.is_some() => return Some(Err(Fault::ReplyTimeout)),
            }
        }
    }
}
