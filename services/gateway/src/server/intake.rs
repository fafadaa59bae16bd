//! Request bodies on their way from actix to a worker.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_http::Payload;
use bytes::Bytes;
use futures_core::Stream;
use troupe_mesh::body::{self, Body, BodyReader, BodyWriter, Pieces};

use super::conn::Conn;
use super::guard::Reject;

/// A body up to this size is gathered and handed over in one piece: it fits a link's first frame, may be sent again
/// to another worker, and keeps no PHP process waiting for a slow client.
pub(super) const GATHERED: usize = 32 * 1024;

/// Why a body did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFault {
    /// Larger than `gateway.max_body`.
    TooLarge,
    /// The client paused for longer than `gateway.stream_idle`.
    Stalled,
    /// The framing is broken.
    Malformed(Reject),
    /// The client is gone.
    Gone,
}

/// The client's end of a body: counted and watched.
pub(super) struct Source {
    payload: Payload,
    conn: Rc<Conn>,
    idle: Duration,
    left: u64,
}

impl Source {
    pub(super) fn new(payload: Payload, conn: Rc<Conn>, max: u64, idle: Duration) -> Self {
        conn.wait_until(Instant::now() + idle);
        Self { payload, conn, idle, left: max }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyFault>>> {
        match Pin::new(&mut self.payload).poll_next(context) {
            Poll::Ready(Some(Ok(piece))) => match self.left.checked_sub(piece.len() as u64) {
                Some(left) => {
                    self.left = left;
                    self.conn.received(piece.len());
                    self.conn.wait_until(Instant::now() + self.idle);
                    Poll::Ready(Some(Ok(piece)))
                }
                None => Poll::Ready(Some(Err(BodyFault::TooLarge))),
            },
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(BodyFault::Gone))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                if let Some(reject) = self.conn.fault() {
                    return Poll::Ready(Some(Err(BodyFault::Malformed(reject))));
                }
                if self.conn.take_overdue() {
                    return Poll::Ready(Some(Err(BodyFault::Stalled)));
                }
                Poll::Pending
            }
        }
    }
}

/// Gathers a body until it is complete or too long to be gathered.
pub(super) struct Gather {
    source: Option<Source>,
    len: Option<u64>,
    pieces: Pieces,
    /// Hand over what is there instead of waiting for the end.
    eager: bool,
    polled: bool,
}

impl Gather {
    pub(super) fn new(source: Source, len: Option<u64>, eager: bool) -> Self {
        Self { source: Some(source), len, pieces: Pieces::default(), eager, polled: false }
    }

    /// The body, with the pump that fills it where it is a stream.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(Body, Option<Pump>), BodyFault>> {
        let too_long = self.len.is_some_and(|len| len > GATHERED as u64);
        loop {
            let Some(source) = &mut self.source else { return Poll::Ready(Err(BodyFault::Gone)) };
            if too_long || self.pieces.len() > GATHERED {
                return Poll::Ready(Ok(self.stream()));
            }
            match source.poll_next(context) {
                Poll::Ready(Some(Ok(piece))) => self.pieces.add(piece),
                Poll::Ready(Some(Err(fault))) => return Poll::Ready(Err(fault)),
                Poll::Ready(None) => return Poll::Ready(Ok((Body::full(self.pieces.take()), None))),
                // actix asks once before it passes on what came along with the head, and right after that again.
                Poll::Pending if self.eager && self.polled => return Poll::Ready(Ok(self.stream())),
                Poll::Pending => {
                    self.polled = true;
                    return Poll::Pending;
                }
            }
        }
    }

    fn stream(&mut self) -> (Body, Option<Pump>) {
        let (mut writer, reader): (BodyWriter, BodyReader) = body::channel(self.len);
        // Fits the stream's buffer, whose reader is here.
        let _ = writer.push(self.pieces.take());
        (Body::Stream(reader), self.source.take().map(|source| Pump { source, writer: Some(writer) }))
    }
}

/// Moves a streamed body from the connection to the worker. It is polled by the connection's task, along with whatever
/// that waits for, so it costs no task of its own.
pub(super) struct Pump {
    source: Source,
    writer: Option<BodyWriter>,
}

impl Pump {
    /// Moves what there is. Ready when the body is complete, when nobody reads it any more, or when it is broken.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyFault>> {
        loop {
            let Some(writer) = &mut self.writer else { return Poll::Ready(Ok(())) };
            match writer.poll_ready(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.writer = None;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {
                    // The worker is slow, not the client.
                    self.source.conn.wait_until(Instant::now() + self.source.idle);
                    return Poll::Pending;
                }
            }
            match self.source.poll_next(context) {
                Poll::Ready(Some(Ok(piece))) => {
                    let _ = writer.push(piece);
                }
                Poll::Ready(Some(Err(fault))) => {
                    // Dropped unfinished, which the reader sees as a break.
                    self.writer = None;
                    return Poll::Ready(Err(fault));
                }
                Poll::Ready(None) => {
                    if let Some(writer) = self.writer.take() {
                        writer.finish();
                    }
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
