//! The receiving half: one read, then every frame that is complete.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use troupe_wire::decoder::FrameDecoder;
use troupe_wire::frame::{Flags, Frame, Header, Kind, ProtocolError};
use troupe_wire::payload::{self, Opening};
use troupe_wire::stream_id::StreamId;

use super::Shared;
use super::core::{Core, LinkState, MAX_CONTROL_QUEUE};
use super::end::LinkEnd;
use super::services::Incoming;
use super::streams::{Answer, CallState, Serve, Side, Stream};
use super::writer::{abort, yield_once};
use crate::body::Body;
use crate::deadline::Deadline;
use crate::failure::{Failure, Outcome, Stage};

/// What the read buffer grows by: large enough that a busy link's frames come many to a read.
const READ_CHUNK: usize = 64 * 1024;
/// The buffer grows when less room than this is left.
const MIN_ROOM: usize = 8 * 1024;
/// Reads in a row before the writer and the thread's other tasks get their turn.
const READS_PER_TURN: usize = 4;
/// How slowly the round trip that windows are judged by follows longer samples: those are queues, mostly, which wider
/// windows would only lengthen.
const RTT_DRIFT: u32 = 64;

/// Reads until the peer closes, breaks the protocol, or the socket fails.
pub(super) async fn read_loop<R: AsyncRead + Unpin>(
    shared: &Rc<Shared>,
    mut socket: R,
    mut buffer: BytesMut,
) -> LinkEnd {
    let mut decoder = FrameDecoder::new();
    let mut reads = 0;
    loop {
        if let Err(end) = shared.take_frames(&mut decoder, &mut buffer) {
            return end;
        }
        reads += 1;
        if reads % READS_PER_TURN == 0 {
            yield_once().await;
        }
        let wanted = decoder.missing(buffer.len()).max(MIN_ROOM);
        if buffer.capacity() - buffer.len() < wanted {
            buffer.reserve(wanted.max(READ_CHUNK));
        }
        match socket.read_buf(&mut buffer).await {
            Ok(0) => return LinkEnd::Closed,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}

impl Shared {
    fn take_frames(self: &Rc<Self>, decoder: &mut FrameDecoder, buffer: &mut BytesMut) -> Result<(), LinkEnd> {
        if buffer.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let mut core = self.core.borrow_mut();
        core.last_received = now;
        core.metrics.bytes_received.increment(buffer.len() as u64);
        let mut frames = 0;
        while let Some(frame) = decoder.decode(buffer)? {
            frames += 1;
            core.take_frame(self, frame, now)?;
        }
        core.metrics.frames_received.increment(frames);
        if core.control.len() > MAX_CONTROL_QUEUE {
            return Err(LinkEnd::Flooded);
        }
        Ok(())
    }
}

impl Core {
    fn take_frame(&mut self, shared: &Rc<Shared>, frame: Frame, now: Instant) -> Result<(), ProtocolError> {
        let header = frame.header;
        match header.kind {
            Kind::Req if shared.serves => self.take_request(shared, frame, now),
            Kind::Res if !shared.serves => self.take_reply(frame),
            Kind::Err if !shared.serves => {
                self.take_failure(frame);
                Ok(())
            }
            Kind::Cancel if shared.serves => {
                if let Some(stream) = self.streams.remove(header.stream) {
                    self.metrics.cancelled.increment(1);
                    abort(stream);
                }
                Ok(())
            }
            Kind::Data => self.take_data(frame),
            Kind::Window => self.take_window(header),
            Kind::Ping => {
                payload::put_ping(&mut self.control, Kind::Pong, header.aux, payload::ping_clock(&frame)?);
                self.wake_writer();
                Ok(())
            }
            Kind::Pong => self.take_pong(&frame, now),
            Kind::Goaway if !shared.serves => {
                let goaway = payload::Goaway::parse(frame)?;
                tracing::info!(peer = %shared.peer_name(), reason = goaway.text, "peer is going away: link drains");
                self.let_go();
                self.give_back_unsent();
                Ok(())
            }
            kind => Err(ProtocolError::WrongDirection { kind }),
        }
    }

    fn take_request(&mut self, shared: &Rc<Shared>, frame: Frame, now: Instant) -> Result<(), ProtocolError> {
        let header = frame.header;
        let id = header.stream;
        let opening = Opening::parse(frame)?;
        self.receive(opening.body.len())?;
        let serving = Stream { side: Side::Serve(Serve::Running(None)), inbound: None, outbound: None };
        self.streams.accept(id, serving)?;
        self.last_accepted = id;
        if !self.contracts.contains(&header.contract) {
            self.receive_link.consumed(opening.body.len() as u64);
            self.grant_link();
            let reason = "this service does not serve this version of the contract";
            self.answer(id, Err(Failure::new(Outcome::Incompatible, Stage::Link, reason).not_started()));
            return Ok(());
        }
        let Opening { head, trace, length, body } = opening;
        let body = self.take_body(id, header, length, body)?;
        let deadline = Deadline::from_ticks(header.aux, now);
        if header.aux == 0 {
            self.metrics.expired.increment(1);
            self.answer(id, Err(Failure::deadline(Stage::Link).not_started()));
            return Ok(());
        }
        let incoming = Incoming { shared: Rc::clone(shared), id, head, body, deadline, trace };
        let handler = shared.services.start(header.contract, incoming);
        if let Some(Stream { side: Side::Serve(Serve::Running(place)), .. }) = self.streams.get_mut(id) {
            *place = handler;
        }
        Ok(())
    }

    fn take_reply(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let header = frame.header;
        let id = header.stream;
        let Opening { head, length, body, .. } = Opening::parse(frame)?;
        self.receive(body.len())?;
        let out_of_order = ProtocolError::OutOfOrder { kind: Kind::Res, stream: id };
        match self.streams.call_mut(id).map(|call| &call.state) {
            Some(CallState::Written) => {}
            // Given up: its CANCEL and this reply have crossed.
            None | Some(CallState::Answered(Err(_))) => {
                self.receive_link.consumed(body.len() as u64);
                self.grant_link();
                return Ok(());
            }
            Some(_) => return Err(out_of_order),
        }
        let body = self.take_body(id, header, length, body)?;
        if let Some(stream) = self.streams.get_mut(id) {
            if header.flags.contains(Flags::END) {
                stream.outbound = None;
            }
            if let Side::Call(call) = &mut stream.side {
                call.end(CallState::Answered(Ok(Answer { head, body })));
            }
        }
        Ok(())
    }

    fn take_failure(&mut self, frame: Frame) {
        let id = frame.header.stream;
        // A failure that does not decode is still the end of the call.
        let failure = Failure::decode(&frame.payload).unwrap_or_else(|error| {
            Failure::new(Outcome::Broken, Stage::Link, "the service failed in a way that cannot be read")
                .with_detail(error.to_string())
        });
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        // Dropping the writer tells the reader of a body that was under way.
        (stream.inbound, stream.outbound) = (None, None);
        let Side::Call(call) = &mut stream.side else {
            return;
        };
        if matches!(call.state, CallState::Taken) {
            tracing::debug!(%failure, "reply ended early");
            self.streams.remove(id);
        } else {
            call.end(CallState::Answered(Err(failure)));
        }
    }

    fn take_data(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let header = frame.header;
        let id = header.stream;
        let length = frame.payload.len();
        self.receive(length)?;
        let Some(mut inbound) = self.streams.get_mut(id).and_then(|stream| stream.inbound.take()) else {
            if matches!(self.streams.call_mut(id).map(|call| &call.state), Some(CallState::Written)) {
                return Err(ProtocolError::OutOfOrder { kind: Kind::Data, stream: id });
            }
            // Nobody wants it any more.
            self.receive_link.consumed(length as u64);
            self.grant_link();
            return Ok(());
        };
        inbound.credit.received(id, u32::try_from(length).unwrap_or(u32::MAX))?;
        self.push_inbound(&mut inbound, frame.payload);
        self.grant_link();
        if header.flags.contains(Flags::END) {
            inbound.writer.finish();
            self.reply_arrived(id);
        } else if let Some(stream) = self.streams.get_mut(id) {
            stream.inbound = Some(inbound);
        }
        Ok(())
    }

    /// A call is over once its whole reply is here, whatever of its own body is unsent.
    fn reply_arrived(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        if let Side::Call(call) = &stream.side {
            stream.outbound = None;
            if matches!(call.state, CallState::Taken) {
                self.streams.remove(id);
            }
        }
    }

    fn take_window(&mut self, header: Header) -> Result<(), ProtocolError> {
        let id = header.stream;
        if id.is_link() {
            self.send_link.grant(id, header.aux)?;
            self.wake_writer();
            return Ok(());
        }
        let Some(outbound) = self.streams.get_mut(id).and_then(|stream| stream.outbound.as_mut()) else {
            return Ok(());
        };
        outbound.grant(header.aux)?;
        self.outbound_ready(id);
        Ok(())
    }

    fn take_pong(&mut self, frame: &Frame, now: Instant) -> Result<(), ProtocolError> {
        let sent = Duration::from_micros(payload::ping_clock(frame)?);
        let rtt = now.saturating_duration_since(self.started).saturating_sub(sent);
        self.rtt = if rtt < self.rtt { rtt } else { self.rtt + (rtt - self.rtt) / RTT_DRIFT };
        if self.state == LinkState::Draining && self.goaway_ping == Some(frame.header.aux) {
            self.goaway_seen = true;
            self.wake_writer();
        }
        Ok(())
    }

    /// Accounts for body bytes on the link.
    fn receive(&mut self, length: usize) -> Result<(), ProtocolError> {
        self.receive_link.received(u32::try_from(length).unwrap_or(u32::MAX))
    }

    /// The body of an opening, whose first bytes are accounted for.
    fn take_body(
        &mut self,
        id: StreamId,
        header: Header,
        length: Option<u64>,
        first: bytes::Bytes,
    ) -> Result<Body, ProtocolError> {
        if header.flags.contains(Flags::END) {
            self.receive_link.consumed(first.len() as u64);
            self.grant_link();
            return Ok(Body::full(first));
        }
        let bytes = u32::try_from(first.len()).unwrap_or(u32::MAX);
        let (body, mut inbound) = self.inbound_body(id, length, first);
        inbound.credit.received(id, bytes)?;
        self.grant_link();
        if let Some(stream) = self.streams.get_mut(id) {
            stream.inbound = Some(inbound);
        }
        Ok(body)
    }
}
