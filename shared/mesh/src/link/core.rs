//! The state of one link, and what its users do to it: call, cancel, answer, drain. No I/O happens here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use slab::Slab;
use tokio::sync::watch;
use troupe_wire::credit::{LINK_RESERVE, LINK_WINDOW, LinkReceive, STREAM_WINDOW, SendCredit, StreamReceive};
use troupe_wire::frame::{Header, Kind, MAX_HEAD, MAX_OPENING_PAYLOAD};
use troupe_wire::handshake::Session;
use troupe_wire::payload;
use troupe_wire::stream_id::StreamId;

use super::bodies::{Inbound, IntakeEntry};
use super::end::LinkEnd;
use super::memory::{Held, Memory};
use super::metrics::LinkMetrics;
use super::signals::{Intake, IntakeReader, Signal, Signals};
use super::streams::{Answer, Call, CallState, Request, Serve, Side, Stream, Streams};
use crate::body::{Body, Recall, credited};
use crate::failure::{Failure, Outcome, Stage};

/// Room that heads are encoded into before it is shared out; several heads share one allocation.
const HEAD_ROOM: usize = 16 * 1024;

/// Control frames that may wait for the socket, in bytes. A peer that makes us write more (by pinging) while it does
/// not read is broken.
pub(super) const MAX_CONTROL_QUEUE: usize = 1024 * 1024;

/// What a caller is told to wait when a link has as many calls as it may, or no memory for its body.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Round trip that is assumed until the first PONG.
const FIRST_RTT: Duration = Duration::from_millis(1);

/// Queue entries beyond the live calls before those of cancelled calls are swept out.
const STALE_OPENINGS: usize = 64;

/// Whether a link takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It takes calls.
    Up,
    /// Calls in flight end; no new ones.
    Draining,
    /// It is gone.
    Down,
}

pub(super) struct Core {
    pub(super) state: LinkState,
    /// Publishes `state` to pools.
    pub(super) states: watch::Sender<LinkState>,
    pub(super) end: Option<LinkEnd>,
    pub(super) contracts: Vec<u16>,
    pub(super) streams: Streams,
    /// Streams whose REQ, RES or ERR waits to be written.
    pub(super) openings: VecDeque<StreamId>,
    /// Streams whose first piece waits for its turn, which the reserve is for.
    pub(super) firsts: VecDeque<StreamId>,
    /// Streams that have more to send, in turn.
    pub(super) ring: VecDeque<StreamId>,
    /// Encoded control frames.
    pub(super) control: BytesMut,
    pub(super) send_link: SendCredit,
    pub(super) receive_link: LinkReceive,
    /// Window of each stream towards the peer.
    pub(super) peer_stream_window: u32,
    /// Longest payload the peer takes.
    pub(super) peer_max_frame: usize,
    pub(super) intakes: Slab<IntakeEntry>,
    pub(super) held: Held,
    heads: BytesMut,
    writer: Option<Waker>,
    taken_signals: Vec<Signal>,
    pub(super) signals: Arc<Signals>,
    pub(super) started: Instant,
    pub(super) last_received: Instant,
    /// Ticks so far: the clock by which readers stand still. It stands still itself where the thread does.
    pub(super) ticks: u32,
    /// The round trip without queues: near the shortest that was seen.
    pub(super) rtt: Duration,
    pub(super) pings: u32,
    /// The counter of the PING behind our GOAWAY; its PONG proves that the peer has seen both.
    pub(super) goaway_ping: Option<u32>,
    pub(super) goaway_seen: bool,
    pub(super) last_accepted: StreamId,
    pub(super) metrics: LinkMetrics,
    pub(super) reported_in_flight: u32,
}

impl Core {
    pub(super) fn new(session: &Session, max_in_flight: u32, memory: Memory, metrics: LinkMetrics) -> Self {
        let now = Instant::now();
        Self {
            state: LinkState::Up,
            states: watch::Sender::new(LinkState::Up),
            end: None,
            contracts: session.contracts.clone(),
            streams: Streams::new(max_in_flight),
            openings: VecDeque::new(),
            firsts: VecDeque::new(),
            ring: VecDeque::new(),
            control: BytesMut::new(),
            send_link: SendCredit::new(session.peer.link_window),
            receive_link: LinkReceive::new(LINK_WINDOW),
            peer_stream_window: session.peer.stream_window,
            peer_max_frame: usize::try_from(session.peer.max_frame).unwrap_or(usize::MAX).min(MAX_OPENING_PAYLOAD),
            intakes: Slab::new(),
            held: Held::new(memory),
            heads: BytesMut::new(),
            writer: None,
            taken_signals: Vec::new(),
            signals: Arc::new(Signals::default()),
            started: now,
            last_received: now,
            ticks: 0,
            rtt: FIRST_RTT,
            pings: 0,
            goaway_ping: None,
            goaway_seen: false,
            last_accepted: StreamId::LINK,
            metrics,
            reported_in_flight: 0,
        }
    }

    /// Encodes a head into shared room. `None` when it is too long to travel.
    pub(super) fn encode_head(&mut self, encode: impl FnOnce(&mut BytesMut)) -> Option<Bytes> {
        if self.heads.capacity() - self.heads.len() < HEAD_ROOM / 8 {
            self.heads.reserve(HEAD_ROOM);
        }
        encode(&mut self.heads);
        let head = self.heads.split().freeze();
        (head.len() <= MAX_HEAD).then_some(head)
    }

    /// Queues a call, if the link takes it.
    pub(super) fn open(&mut self, request: Box<Request>) -> Result<StreamId, Failure> {
        let refuse = |outcome, reason: &'static str| {
            let mut failure = Failure::new(outcome, Stage::Link, reason).not_started();
            failure.retry_after = Some(RETRY_AFTER);
            Err(failure)
        };
        if self.state != LinkState::Up {
            return refuse(Outcome::Unreachable, "the link is closing");
        }
        if !self.contracts.contains(&request.contract) {
            return refuse(Outcome::Incompatible, "the peer does not serve this version of the contract");
        }
        let Some(id) = self.streams.open(request) else {
            return refuse(Outcome::Overloaded, "the link has as many calls in flight as it may");
        };
        self.push_opening(id);
        Ok(id)
    }

    /// The caller has gone. What is returned is dropped by the caller of this, outside the borrow.
    pub(super) fn cancel(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.get_mut(id)?;
        let running = match &stream.side {
            Side::Call(Call { state: CallState::Written, .. }) => true,
            _ => stream.inbound.is_some(),
        };
        if running && self.state != LinkState::Down {
            self.put_control(Header::new(Kind::Cancel, id));
        }
        self.streams.remove(id)
    }

    /// Queues the reply or failure of a call that this side serves. Ignored when the caller has gone.
    pub(super) fn answer(&mut self, id: StreamId, answer: Result<Answer, Failure>) {
        let Some(Stream { side: Side::Serve(serve), .. }) = self.streams.get_mut(id) else {
            return;
        };
        if !matches!(serve, Serve::Running(_)) {
            return;
        }
        *serve = match answer {
            Ok(answer) => Serve::Replying(answer),
            Err(failure) => Serve::Failing(failure),
        };
        self.push_opening(id);
    }

    fn push_opening(&mut self, id: StreamId) {
        let live = usize::try_from(self.streams.live()).unwrap_or(usize::MAX);
        if self.openings.len() > live + STALE_OPENINGS {
            let streams = &mut self.streams;
            self.openings.retain(|id| streams.get_mut(*id).is_some());
        }
        self.openings.push_back(id);
        self.wake_writer();
    }

    pub(super) fn set_state(&mut self, state: LinkState) {
        self.state = state;
        self.states.send_replace(state);
    }

    pub(super) fn put_control(&mut self, header: Header) {
        payload::put_empty(&mut self.control, header);
        self.wake_writer();
    }

    pub(super) fn ping(&mut self, now: Instant) -> u32 {
        self.pings = self.pings.wrapping_add(1);
        let clock = u64::try_from(now.saturating_duration_since(self.started).as_micros()).unwrap_or(0);
        payload::put_ping(&mut self.control, Kind::Ping, self.pings, clock);
        self.wake_writer();
        self.pings
    }

    /// Tells the peer to make no new calls here; the link ends once those in flight have.
    pub(super) fn send_goaway(&mut self, reason: &str) {
        if self.state != LinkState::Up {
            return;
        }
        self.set_state(LinkState::Draining);
        payload::Goaway::put(&mut self.control, 0, self.last_accepted.raw(), reason);
        self.goaway_ping = Some(self.ping(Instant::now()));
    }

    /// No user is left: the link ends once its calls have.
    pub(super) fn let_go(&mut self) {
        if self.state == LinkState::Up {
            self.set_state(LinkState::Draining);
        }
        self.goaway_seen = true;
        self.wake_writer();
    }

    /// Hands calls that were not written back to their callers: the peer takes no new ones.
    pub(super) fn give_back_unsent(&mut self) {
        for id in std::mem::take(&mut self.openings) {
            match self.streams.call_mut(id) {
                Some(call) if matches!(call.state, CallState::Queued(_)) => {
                    if let CallState::Queued(request) = std::mem::replace(&mut call.state, CallState::Written) {
                        call.end(CallState::Unsent(request));
                    }
                }
                Some(_) => {}
                None => self.openings.push_back(id),
            }
        }
    }

    /// Whether the link may end: nobody wants it any more and nothing is in flight.
    pub(super) fn is_finished(&self) -> bool {
        self.state == LinkState::Draining
            && self.goaway_seen
            && self.streams.live() == 0
            && self.control.is_empty()
            && self.openings.is_empty()
    }

    /// Ready when the writer has something to write or the link is finished; the count of frames that wait at least.
    pub(super) fn poll_output(&mut self, waker: &Waker) -> Poll<usize> {
        self.signals.register(waker);
        self.take_signals();
        let (firsts, rest) = self.sendable();
        let waiting = self.openings.len() + firsts + rest + usize::from(!self.control.is_empty());
        if waiting > 0 || self.is_finished() {
            return Poll::Ready(waiting);
        }
        if !self.writer.as_ref().is_some_and(|writer| writer.will_wake(waker)) {
            self.writer = Some(waker.clone());
        }
        Poll::Pending
    }

    /// Streams of each ring, as far as the link has credit for it.
    pub(super) fn sendable(&self) -> (usize, usize) {
        let firsts = if self.send_link.available() > 0 { self.firsts.len() } else { 0 };
        let rest = if self.send_link.beyond(LINK_RESERVE) > 0 { self.ring.len() } else { 0 };
        (firsts, rest)
    }

    pub(super) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// Makes the body of an opening that came: its first bytes, and more to follow unless it ends there.
    pub(super) fn inbound_body(&mut self, id: StreamId, length: Option<u64>, first: Bytes) -> (Body, Box<Inbound>) {
        let place = self.intakes.vacant_entry();
        let intake = Intake::new(Arc::clone(&self.signals), place.key());
        let (writer, reader) = credited(length, Arc::new(IntakeReader(Arc::clone(&intake))));
        let key = intake.key;
        let (moved, recall) = (self.ticks, Recall::of(&writer));
        place.insert(IntakeEntry { intake, stream: id, outstanding: 0, seen: 0, moved, recall });
        let mut inbound =
            Box::new(Inbound { stream: id, writer, credit: StreamReceive::new(STREAM_WINDOW), intake: key });
        self.push_inbound(&mut inbound, first);
        (Body::Stream(reader), inbound)
    }

    /// Hands bytes that are accounted for on the link to their reader.
    pub(super) fn push_inbound(&mut self, inbound: &mut Inbound, piece: Bytes) {
        let bytes = piece.len() as u64;
        match self.intakes.get_mut(inbound.intake) {
            Some(entry) if entry.stream == inbound.stream => {
                if entry.outstanding == 0 {
                    entry.moved = self.ticks;
                }
                entry.outstanding += bytes;
                self.held.add(bytes);
                // A reader that has gone says so by a signal, which releases them.
                let _ = inbound.writer.push(piece);
            }
            _ => self.receive_link.consumed(bytes),
        }
    }

    /// Grants the link's credit when half of it waits.
    pub(super) fn grant_link(&mut self) {
        if let Some(grant) = self.receive_link.take_grant(self.held.memory().is_left()) {
            self.put_control(Header::new(Kind::Window, StreamId::LINK).with_aux(grant));
        }
    }

    pub(super) fn take_signals(&mut self) {
        let mut signals = std::mem::take(&mut self.taken_signals);
        self.signals.take(&mut signals);
        for signal in signals.drain(..) {
            match signal {
                Signal::Outbound(id) => self.outbound_ready(id),
                Signal::Intake(intake) => self.intake_changed(&intake),
            }
        }
        self.taken_signals = signals;
    }

    /// Gives a stream with body bytes its turn.
    pub(super) fn outbound_ready(&mut self, id: StreamId) {
        if let Some(outbound) = self.streams.get_mut(id).and_then(|stream| stream.outbound.as_mut()) {
            outbound.signalled();
            if !outbound.in_ring {
                outbound.in_ring = true;
                let first = outbound.is_first();
                self.take_turn(id, first);
                self.wake_writer();
            }
        }
    }

    /// Puts a stream in the ring of its piece.
    pub(super) fn take_turn(&mut self, id: StreamId, first: bool) {
        let ring = if first { &mut self.firsts } else { &mut self.ring };
        ring.push_back(id);
    }

    fn intake_changed(&mut self, intake: &Arc<Intake>) {
        let (taken, gone) = intake.read();
        let Some(entry) = self.intakes.get_mut(intake.key).filter(|entry| Arc::ptr_eq(&entry.intake, intake)) else {
            return;
        };
        let fresh = (taken - entry.seen).min(entry.outstanding);
        entry.seen = taken;
        entry.moved = self.ticks;
        let released = if gone { entry.outstanding } else { fresh };
        entry.outstanding -= released;
        let id = entry.stream;
        if gone {
            self.intakes.remove(intake.key);
        }
        self.held.release(released);
        self.receive_link.consumed(released);
        self.grant_link();
        if gone {
            self.reader_gone(id, intake.key);
        } else {
            self.grant_stream(id, intake.key, u32::try_from(fresh).unwrap_or(u32::MAX));
        }
    }

    /// The reader of a body that still arrives has gone: a caller's call is over, a callee goes on without the rest.
    fn reader_gone(&mut self, id: StreamId, key: usize) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if stream.inbound.as_ref().is_none_or(|inbound| inbound.intake != key) {
            return;
        }
        stream.inbound = None;
        if matches!(stream.side, Side::Call(_)) {
            self.put_control(Header::new(Kind::Cancel, id));
            self.streams.remove(id);
        }
    }

    fn grant_stream(&mut self, id: StreamId, key: usize, bytes: u32) {
        let now = self.started.elapsed();
        let rtt = self.rtt;
        let plenty = self.held.memory().is_plenty();
        let Some(inbound) =
            self.streams.get_mut(id).and_then(|stream| stream.inbound.as_mut()).filter(|inbound| inbound.intake == key)
        else {
            return;
        };
        inbound.credit.consumed(bytes);
        if let Some(growth) = inbound.credit.wants_growth(now, rtt).filter(|_| plenty) {
            inbound.credit.widen(growth);
        }
        if let Some(grant) = inbound.credit.take_grant(now) {
            self.put_control(Header::new(Kind::Window, id).with_aux(grant));
        }
    }
}
