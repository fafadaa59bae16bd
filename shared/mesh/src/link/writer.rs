//! The sending half: everything that waits goes out in one vectored write.
//!
//! Control frames first, then openings (REQ, RES, ERR), then body pieces of the streams in turn. Before it collects, the
//! writer lets the thread's other tasks run once while little waits, so that their frames join the same write.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::sleep;
use troupe_wire::credit::{LINK_RESERVE, SendCredit};
use troupe_wire::frame::{Flags, Header, Kind, MAX_BODY_PIECE, MAX_CONTROL_PAYLOAD};
use troupe_wire::payload::{Opening, Prefix};
use troupe_wire::stream_id::StreamId;
use troupe_wire::trace::TRACE_LEN;

use super::Shared;
use super::bodies::{Outbound, Piece};
use super::core::{Core, LinkState};
use super::end::LinkEnd;
use super::streams::{Answer, CallState, Request, Serve, Side, Stream};
use crate::body::Body;
use crate::failure::{Failure, Outcome, Stage};

/// Most frames of one write: what keeps a piece of work short enough for the thread's other tasks.
const MAX_BATCH_FRAMES: usize = 64;
/// Most bytes of one write, give or take one frame.
const MAX_BATCH_BYTES: usize = 128 * 1024;
/// Frames and bytes of a batch that openings leave to the bodies.
const BODY_SHARE: usize = 4;
/// With fewer frames waiting, the writer lets other tasks add theirs before it collects.
const FEW_FRAMES: usize = 4;
/// A piece up to this length is copied behind its header; a longer one is a slice of the write of its own.
const COPY_UP_TO: usize = 4 * 1024;
/// Slices of one write: what the kernel takes at once for a batch of this size.
const MAX_SLICES: usize = 64;
/// A batch buffer that grew beyond this is given back.
const MAX_IDLE_BUFFER: usize = 256 * 1024;
/// How long a peer may take to close its side of a finished link.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Room in front of the body bytes of an opening, beside its head.
const PREFIX_ROOM: usize = 2 + TRACE_LEN + 8;

/// Longest text of a failure that travels, in bytes: two of them fit an ERR.
const MAX_FAILURE_TEXT: usize = 1536;
const _: () = assert!(2 * MAX_FAILURE_TEXT + 96 <= MAX_CONTROL_PAYLOAD);

/// Writes until the link is finished or its socket fails.
pub(super) async fn write_loop<W: AsyncWrite + Unpin>(shared: &Rc<Shared>, mut socket: W) -> LinkEnd {
    let mut batch = Batch::default();
    loop {
        let waiting = poll_fn(|context| shared.core.borrow_mut().poll_output(context.waker())).await;
        if waiting == 0 {
            // The reader sees the peer's end. Closing while its last PING or WINDOW is unread would reset the
            // connection and could take our last reply with it.
            let _ = poll_fn(|context| Pin::new(&mut socket).poll_shutdown(context)).await;
            sleep(LAST_WORDS).await;
            return LinkEnd::Finished;
        }
        if waiting < FEW_FRAMES {
            yield_once().await;
        }
        shared.core.borrow_mut().fill(&mut batch);
        if let Err(error) = poll_fn(|context| batch.poll_write(context, &mut socket)).await {
            return error.into();
        }
    }
}

/// Lets every task that is ready run once.
pub(super) async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What one write carries.
#[derive(Default)]
pub(super) struct Batch {
    /// Slices in front of `tail`.
    slices: std::collections::VecDeque<Bytes>,
    /// Headers, heads and short pieces behind the last long piece.
    tail: BytesMut,
    frames: usize,
    bytes: usize,
}

impl Batch {
    fn has_room(&self, keep: usize) -> bool {
        self.frames < MAX_BATCH_FRAMES - MAX_BATCH_FRAMES / BODY_SHARE * keep
            && self.bytes < MAX_BATCH_BYTES - MAX_BATCH_BYTES / BODY_SHARE * keep
            && self.slices.len() + 3 < MAX_SLICES
    }

    fn count(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }

    fn put_body(&mut self, piece: Bytes) {
        if piece.len() <= COPY_UP_TO {
            self.tail.put_slice(&piece);
        } else {
            self.slices.push_back(self.tail.split().freeze());
            self.slices.push_back(piece);
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(&mut self, context: &mut Context<'_>, socket: &mut W) -> Poll<io::Result<()>> {
        while !self.slices.is_empty() || !self.tail.is_empty() {
            let written = if self.slices.is_empty() {
                ready!(Pin::new(&mut *socket).poll_write(context, &self.tail))?
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let parts = self.slices.iter().map(|slice| &slice[..]).chain([&self.tail[..]]);
                let mut used = 0;
                for (place, part) in slices.iter_mut().zip(parts) {
                    *place = IoSlice::new(part);
                    used += 1;
                }
                let used = slices.get(..used).unwrap_or_default();
                ready!(Pin::new(&mut *socket).poll_write_vectored(context, used))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        (self.frames, self.bytes) = (0, 0);
        if self.tail.capacity() > MAX_IDLE_BUFFER {
            self.tail = BytesMut::new();
        }
        ready!(Pin::new(socket).poll_flush(context))?;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.slices.front_mut() {
            let part = written.min(first.len());
            first.advance(part);
            written -= part;
            if !first.is_empty() {
                return;
            }
            self.slices.pop_front();
        }
        self.tail.advance(written.min(self.tail.len()));
        if self.tail.is_empty() {
            self.tail.clear();
        }
    }
}

impl Core {
    /// Moves what waits into `batch`.
    pub(super) fn fill(&mut self, batch: &mut Batch) {
        if !self.control.is_empty() {
            batch.count(self.control.len());
            batch.tail.put_slice(&self.control);
            self.control.clear();
        }
        let now = Instant::now();
        let bodies_wait = usize::from(!(self.ring.is_empty() && self.firsts.is_empty()));
        while batch.has_room(bodies_wait) {
            let Some(id) = self.openings.pop_front() else {
                break;
            };
            self.fill_opening(batch, id, now);
        }
        let mut turns = self.firsts.len() + self.ring.len();
        while turns > 0 && batch.has_room(0) {
            let Some(id) = self.next_turn(turns.is_multiple_of(2)) else {
                break;
            };
            turns -= 1;
            self.fill_piece(batch, id);
        }
        self.metrics.writes.increment(1);
        self.metrics.frames_sent.increment(batch.frames as u64);
        self.metrics.bytes_sent.increment(batch.bytes as u64);
    }

    /// Whose turn it is: of the rings that there is credit for, now the one and now the other.
    fn next_turn(&mut self, first: bool) -> Option<StreamId> {
        let (firsts, rest) = self.sendable();
        if firsts > 0 && (first || rest == 0) {
            self.firsts.pop_front()
        } else if rest > 0 {
            self.ring.pop_front()
        } else {
            None
        }
    }

    fn fill_opening(&mut self, batch: &mut Batch, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        match &mut stream.side {
            Side::Call(call) => match std::mem::replace(&mut call.state, CallState::Written) {
                CallState::Queued(request) => self.fill_request(batch, id, *request, now),
                other => call.state = other,
            },
            Side::Serve(serve) => match std::mem::replace(serve, Serve::Streaming) {
                Serve::Replying(answer) => self.fill_reply(batch, id, answer),
                Serve::Failing(failure) => {
                    put_failure(batch, id, failure);
                    self.streams.remove(id);
                }
                other => *serve = other,
            },
        }
    }

    fn fill_request(&mut self, batch: &mut Batch, id: StreamId, request: Request, now: Instant) {
        let Request { contract, head, body, trace, deadline } = request;
        let budget = deadline.ticks(now);
        if budget == 0 {
            self.metrics.expired.increment(1);
            return self.end_call(id, Failure::deadline(Stage::Link).not_started());
        }
        if PREFIX_ROOM + head.len() > self.peer_max_frame {
            let failure = Failure::refused(Stage::Link, 431, "the request head is too large");
            return self.end_call(id, failure);
        }
        let header = Header::new(Kind::Req, id).with_contract(contract).with_aux(budget);
        let prefix = Prefix { head: &head, trace: trace.as_ref(), length: None };
        if !self.put_opening(batch, id, header, prefix, body) {
            let failure = Failure::new(Outcome::Cancelled, Stage::Link, "the request's body was cut off");
            self.end_call(id, failure.not_started());
        }
    }

    fn fill_reply(&mut self, batch: &mut Batch, id: StreamId, answer: Answer) {
        let Answer { head, body } = answer;
        if PREFIX_ROOM + head.len() > self.peer_max_frame {
            put_failure(batch, id, Failure::new(Outcome::Internal, Stage::Link, "the response head is too large"));
            self.streams.remove(id);
            return;
        }
        let prefix = Prefix { head: &head, trace: None, length: None };
        if !self.put_opening(batch, id, Header::new(Kind::Res, id), prefix, body) {
            put_failure(batch, id, Failure::new(Outcome::Broken, Stage::Link, "the reply's body was cut off"));
            self.streams.remove(id);
            return;
        }
        self.reply_sent_if_ended(id);
    }

    fn end_call(&mut self, id: StreamId, failure: Failure) {
        if let Some(call) = self.streams.call_mut(id) {
            call.end(CallState::Answered(Err(failure)));
        }
    }

    /// Writes an opening with as much of the body as its first piece may have, and keeps the rest for later turns.
    /// `false`, and nothing written, when the body is broken already.
    fn put_opening(&mut self, batch: &mut Batch, id: StreamId, header: Header, prefix: Prefix<'_>, body: Body) -> bool {
        let room = (self.peer_max_frame - PREFIX_ROOM - prefix.head.len()).min(MAX_BODY_PIECE);
        let credit = usize::try_from(self.send_link.available()).unwrap_or(usize::MAX);
        let room = room.min(credit);
        let length = body.len();
        let (piece, outbound) = match body {
            Body::Empty => (Bytes::new(), None),
            Body::Full(bytes) if bytes.len() <= room => (bytes, None),
            body => {
                let window = SendCredit::new(self.peer_stream_window);
                let room = room.min(usize::try_from(window.available()).unwrap_or(usize::MAX));
                let mut outbound = Outbound::new(body, window, &self.signals, id);
                match outbound.next(room) {
                    Piece::Data(piece, true) => (piece, None),
                    Piece::Data(piece, false) => (piece, Some(outbound)),
                    Piece::Pending => (Bytes::new(), Some(outbound)),
                    Piece::Broken => return false,
                }
            }
        };
        let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.send_link.spend(bytes);
        let open = outbound.is_some();
        let header = header.with_flags(Flags::NONE.with_if(Flags::END, !open));
        let prefix = Prefix { length: length.filter(|_| open), ..prefix };
        let before = batch.tail.len();
        Opening::put_prefix(&mut batch.tail, header, &prefix, piece.len());
        batch.count(batch.tail.len() - before + piece.len());
        batch.put_body(piece);
        if let (Some(mut outbound), Some(stream)) = (outbound, self.streams.get_mut(id)) {
            outbound.spend(bytes);
            outbound.in_ring = true;
            let first = outbound.is_first();
            stream.outbound = Some(outbound);
            self.take_turn(id, first);
        }
        true
    }

    /// One piece of the stream whose turn it is.
    fn fill_piece(&mut self, batch: &mut Batch, id: StreamId) {
        let (link, beyond_reserve) = (self.send_link.available(), self.send_link.beyond(LINK_RESERVE));
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let Some(outbound) = stream.outbound.as_mut() else {
            return;
        };
        let room = outbound.credit(link, beyond_reserve);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(MAX_BODY_PIECE).min(self.peer_max_frame);
        match outbound.next(room) {
            Piece::Data(piece, last) => {
                // Without credit there is no piece, unless it is the end, which needs none.
                if piece.is_empty() && !last {
                    outbound.in_ring = false;
                    return;
                }
                let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                outbound.spend(bytes);
                let first = outbound.is_first();
                let header = Header::new(Kind::Data, id).with_flags(Flags::NONE.with_if(Flags::END, last));
                batch.tail.put_slice(&header.encode(piece.len()));
                batch.count(piece.len());
                batch.put_body(piece);
                self.send_link.spend(bytes);
                if last {
                    stream.outbound = None;
                    self.reply_sent_if_ended(id);
                } else {
                    self.take_turn(id, first);
                }
            }
            Piece::Pending => outbound.in_ring = false,
            Piece::Broken => self.body_broken(batch, id),
        }
    }

    /// A served call is over once its whole reply is out.
    fn reply_sent_if_ended(&mut self, id: StreamId) {
        let over = self
            .streams
            .get_mut(id)
            .is_some_and(|stream| matches!(stream.side, Side::Serve(Serve::Streaming)) && stream.outbound.is_none());
        if over {
            self.streams.remove(id);
        }
    }

    /// The writer of a body that is being sent went away before its end.
    fn body_broken(&mut self, batch: &mut Batch, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        stream.outbound = None;
        match &mut stream.side {
            Side::Call(call) => {
                batch.tail.put_slice(&Header::new(Kind::Cancel, id).encode(0));
                batch.count(0);
                let failure = Failure::new(Outcome::Cancelled, Stage::Link, "the request's body was cut off");
                if matches!(call.state, CallState::Taken) {
                    self.streams.remove(id);
                } else {
                    stream.inbound = None;
                    call.end(CallState::Answered(Err(failure)));
                }
            }
            Side::Serve(_) => {
                put_failure(batch, id, Failure::new(Outcome::Broken, Stage::Link, "the reply's body was cut off"));
                self.streams.remove(id);
            }
        }
    }

    /// Ends what the link holds, for whatever reason it ended itself.
    pub(super) fn close(&mut self, end: LinkEnd) {
        self.set_state(LinkState::Down);
        self.metrics.down(&end);
        self.give_back_unsent();
        drop(self.streams.drain_served().into_iter().map(abort).collect::<Vec<_>>());
        let mut over = Vec::new();
        for (id, stream) in self.streams.iter_mut() {
            (stream.inbound, stream.outbound) = (None, None);
            if let Side::Call(call) = &mut stream.side {
                if matches!(call.state, CallState::Taken) {
                    over.push(id);
                }
                let failure =
                    Failure::new(Outcome::Broken, Stage::Link, "the service was lost while it had the request");
                call.end(CallState::Answered(Err(failure.with_detail(end.to_string()))));
            }
        }
        for id in over {
            self.streams.remove(id);
        }
        self.end = Some(end);
    }
}

/// Drops a served call and stops its handler.
pub(super) fn abort(stream: Stream) {
    if let Side::Serve(Serve::Running(Some(handler))) = &stream.side {
        handler.abort();
    }
}

fn put_failure(batch: &mut Batch, id: StreamId, mut failure: Failure) {
    let bound = |text: &str| text.get(..text.floor_char_boundary(MAX_FAILURE_TEXT)).unwrap_or_default().to_owned();
    if failure.reason.len() > MAX_FAILURE_TEXT {
        failure.reason = bound(&failure.reason).into();
    }
    failure.detail = failure.detail.map(|detail| bound(&detail).into());
    let payload = failure.encode();
    let header = Header::new(Kind::Err, id).with_aux(failure.outcome as u32);
    batch.tail.put_slice(&header.encode(payload.len()));
    batch.tail.put_slice(&payload);
    batch.count(payload.len());
}

#[cfg(test)]
mod tests {
    use troupe_wire::decoder::FrameDecoder;
    use troupe_wire::handshake::{Hello, NONCE_LEN, Session, Uid};

    use super::super::memory::Memory;
    use super::super::metrics::LinkMetrics;
    use super::*;
    use crate::deadline::Deadline;

    /// A link to a peer that gives all the credit there is.
    fn core() -> Core {
        let mut peer = Hello::new(Uid([1; 16]), "callee", "b", [0; NONCE_LEN]);
        (peer.link_window, peer.stream_window) = (1 << 30, 1 << 20);
        let session = Session { protocol: peer.protocol_max, peer, contracts: vec![1], disabled: Vec::new() };
        Core::new(&session, 10_000, Memory::process(), LinkMetrics::new("callee"))
    }

    fn call(core: &mut Core, body: Body) -> StreamId {
        let deadline = Deadline::after(Duration::from_secs(600));
        core.open(Box::new(Request { contract: 1, head: Bytes::new(), body, trace: None, deadline })).unwrap()
    }

    /// The kinds of the frames of the next write.
    fn written(core: &mut Core) -> Vec<Kind> {
        let mut batch = Batch::default();
        core.fill(&mut batch);
        let mut bytes = BytesMut::new();
        batch.slices.iter().for_each(|slice| bytes.put_slice(slice));
        bytes.put_slice(&batch.tail);
        let mut decoder = FrameDecoder::new();
        std::iter::from_fn(|| decoder.decode(&mut bytes).unwrap()).map(|frame| frame.header.kind).collect()
    }

    #[test]
    fn a_cancel_overtakes_a_thousand_pieces_that_wait() {
        let mut core = core();
        let running = call(&mut core, Body::Empty);
        assert_eq!(written(&mut core), [Kind::Req]);
        let body = Bytes::from(vec![0; 8 * MAX_BODY_PIECE]);
        for _ in 0..1_000 {
            call(&mut core, Body::Full(body.clone()));
        }
        while !core.openings.is_empty() {
            written(&mut core);
        }
        assert_eq!(core.ring.len(), 1_000, "each has a piece that waits");
        assert!(core.cancel(running).is_some());
        core.ping(Instant::now());
        let frames = written(&mut core);
        assert_eq!(frames[..2], [Kind::Cancel, Kind::Ping]);
        assert!(frames.len() > 2 && frames[2..].iter().all(|kind| *kind == Kind::Data), "{frames:?}");
        assert_eq!(core.ring.len(), 1_000, "and the pieces still wait");
    }
}
