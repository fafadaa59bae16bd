//! The two directions of a stream that does not fit one frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use troupe_wire::credit::{SendCredit, StreamReceive};
use troupe_wire::stream_id::StreamId;

use super::signals::{Intake, OutboundWake, Signals};
use crate::body::{Body, BodyWriter};

/// Body bytes that all links of this process may hold for readers that are behind. Beyond it links grant credit only as
/// bytes are taken, and windows no longer grow.
const PROCESS_BUDGET: u64 = 256 * 1024 * 1024;

static PROCESS_HELD: AtomicU64 = AtomicU64::new(0);

/// Counts body bytes of this process in and out.
pub(super) struct Held(u64);

impl Held {
    pub(super) fn new() -> Self {
        Self(0)
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.0 += bytes;
        PROCESS_HELD.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&mut self, bytes: u64) {
        let bytes = bytes.min(self.0);
        self.0 -= bytes;
        PROCESS_HELD.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether the process may hold another window.
    pub(super) fn spare() -> bool {
        PROCESS_HELD.load(Ordering::Relaxed) < PROCESS_BUDGET
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release(self.0);
    }
}

/// Body bytes that come from the peer: towards a reader of this process.
pub(super) struct Inbound {
    pub(super) stream: StreamId,
    pub(super) writer: BodyWriter,
    pub(super) credit: StreamReceive,
    /// Key of its intake.
    pub(super) intake: usize,
}

/// What the link knows of the bytes it pushed to one reader. Outlives the stream: the reader may be behind.
pub(super) struct IntakeEntry {
    pub(super) intake: Arc<Intake>,
    pub(super) stream: StreamId,
    /// Pushed and not seen taken.
    pub(super) outstanding: u64,
    /// Total seen taken.
    pub(super) seen: u64,
}

/// Body bytes that go to the peer.
pub(super) struct Outbound {
    body: Body,
    /// What is left of the piece at hand.
    rest: Bytes,
    ended: Option<Ended>,
    pub(super) credit: SendCredit,
    wake: Arc<OutboundWake>,
    waker: Waker,
    /// Whether the stream waits for its turn in the writer's ring.
    pub(super) in_ring: bool,
}

#[derive(Clone, Copy)]
enum Ended {
    Complete,
    Broken,
}

/// What a body has to send.
pub(super) enum Piece {
    /// Bytes; the flag says that they are the last.
    Data(Bytes, bool),
    /// Nothing yet; the link is woken for this stream.
    Pending,
    /// Its writer went away before the end.
    Broken,
}

impl Outbound {
    pub(super) fn new(body: Body, window: SendCredit, signals: &Arc<Signals>, stream: StreamId) -> Box<Self> {
        let wake = Arc::new(OutboundWake { signals: Arc::clone(signals), stream, queued: AtomicBool::new(false) });
        let waker = Waker::from(Arc::clone(&wake));
        Box::new(Self { body, rest: Bytes::new(), ended: None, credit: window, wake, waker, in_ring: false })
    }

    /// The link has seen this stream's signal.
    pub(super) fn signalled(&self) {
        self.wake.queued.store(false, Ordering::Release);
    }

    /// The next piece of at most `most` bytes; with `most` zero only an end that needs no bytes.
    pub(super) fn next(&mut self, most: usize) -> Piece {
        self.advance();
        if self.rest.is_empty() {
            return match self.ended {
                Some(Ended::Complete) => Piece::Data(Bytes::new(), true),
                Some(Ended::Broken) => Piece::Broken,
                None => Piece::Pending,
            };
        }
        let piece = self.rest.split_to(most.min(self.rest.len()));
        self.advance();
        let last = self.rest.is_empty() && matches!(self.ended, Some(Ended::Complete));
        Piece::Data(piece, last)
    }

    /// Takes the body's next piece when none is at hand.
    fn advance(&mut self) {
        let mut context = Context::from_waker(&self.waker);
        while self.rest.is_empty() && self.ended.is_none() {
            match self.body.poll_next(&mut context) {
                Poll::Ready(Some(Ok(piece))) => self.rest = piece,
                Poll::Ready(Some(Err(_))) => self.ended = Some(Ended::Broken),
                Poll::Ready(None) => self.ended = Some(Ended::Complete),
                Poll::Pending => return,
            }
        }
    }
}
