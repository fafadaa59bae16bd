//! The two directions of a stream that does not fit one frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use troupe_wire::credit::{SendCredit, StreamReceive};
use troupe_wire::frame::{MAX_BODY_PIECE, ProtocolError};
use troupe_wire::stream_id::StreamId;

use super::signals::{Intake, OutboundWake, Signals};
use crate::body::{Body, BodyWriter, Recall};

/// A body's first piece: as much of it as an opening has room for.
const FIRST_PIECE: u32 = MAX_BODY_PIECE as u32;

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
    /// The tick at which bytes were last taken, or came while none lay.
    pub(super) moved: u32,
    pub(super) recall: Recall,
}

/// Body bytes that go to the peer.
pub(super) struct Outbound {
    body: Body,
    /// What is left of the piece at hand.
    rest: Bytes,
    ended: Option<Ended>,
    credit: SendCredit,
    /// What is left of its first piece, for which a part of the link's credit is kept.
    first: u32,
    wake: Arc<OutboundWake>,
    waker: Waker,
    /// Whether the stream waits for its turn in one of the writer's rings.
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
        let first = FIRST_PIECE;
        Box::new(Self { body, rest: Bytes::new(), ended: None, credit: window, first, wake, waker, in_ring: false })
    }

    /// Whether its first piece is not out yet.
    pub(super) fn is_first(&self) -> bool {
        self.first > 0
    }

    /// Bytes that it may send now, on a link that has this much credit, and this much beyond the reserve.
    pub(super) fn credit(&self, link: u32, beyond_reserve: u32) -> u32 {
        self.credit.available().min(beyond_reserve.max(link.min(self.first)))
    }

    pub(super) fn spend(&mut self, bytes: u32) {
        self.credit.spend(bytes);
        self.first = self.first.saturating_sub(bytes);
    }

    pub(super) fn grant(&mut self, bytes: u32) -> Result<(), ProtocolError> {
        self.credit.grant(self.wake.stream, bytes)
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
