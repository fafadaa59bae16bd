//! The calls of one link: a table by index, with the generation that tells a late frame from a live one.

use std::task::Waker;

use bytes::Bytes;
use tokio::task::AbortHandle;
use troupe_wire::frame::ProtocolError;
use troupe_wire::stream_id::{Generation, StreamId};
use troupe_wire::trace::TraceContext;

use super::bodies::{Inbound, Outbound};
use crate::body::Body;
use crate::deadline::Deadline;
use crate::failure::Failure;

/// A call as it goes on the wire.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) contract: u16,
    pub(crate) head: Bytes,
    pub(crate) body: Body,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) deadline: Deadline,
}

/// A reply as it came off the wire, or goes onto it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Bytes,
    pub(crate) body: Body,
}

/// One call.
pub(super) struct Stream {
    pub(super) side: Side,
    pub(super) inbound: Option<Box<Inbound>>,
    pub(super) outbound: Option<Box<Outbound>>,
}

/// What this side of the link does with it.
pub(super) enum Side {
    Call(Call),
    Serve(Serve),
}

/// A call this side made.
pub(super) struct Call {
    pub(super) state: CallState,
    pub(super) caller: Option<Waker>,
    pub(super) deadline: Deadline,
}

pub(super) enum CallState {
    /// Not written yet: proven not to have started.
    Queued(Box<Request>),
    /// Written: it may have started.
    Written,
    /// Ended; the caller has not looked yet.
    Answered(Result<Answer, Failure>),
    /// Never written; the caller may send it over another link.
    Unsent(Box<Request>),
    /// The caller has the reply; its body may still arrive.
    Taken,
}

/// A call this side serves.
pub(super) enum Serve {
    /// The service works on it.
    Running(Option<AbortHandle>),
    /// The reply waits to be written.
    Replying(Answer),
    /// The failure waits to be written.
    Failing(Failure),
    /// The reply's body is being sent.
    Streaming,
}

impl Call {
    /// Ends the call and wakes its caller. Only the first end counts.
    pub(super) fn end(&mut self, state: CallState) {
        if matches!(self.state, CallState::Queued(_) | CallState::Written) {
            self.state = state;
            if let Some(caller) = self.caller.take() {
                caller.wake();
            }
        }
    }
}

/// The table.
pub(super) struct Streams {
    entries: Vec<Entry>,
    free: Vec<u32>,
    live: u32,
    limit: u32,
}

struct Entry {
    id: StreamId,
    generation: Generation,
    stream: Option<Stream>,
}

impl Streams {
    /// A table for at most `limit` calls at once.
    pub(super) fn new(limit: u32) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), live: 0, limit }
    }

    pub(super) fn live(&self) -> u32 {
        self.live
    }

    /// Enters a call that this side makes; `None` when the table is full.
    pub(super) fn open(&mut self, request: Box<Request>) -> Option<StreamId> {
        let entry = self.vacant()?;
        let call = Call { deadline: request.deadline, state: CallState::Queued(request), caller: None };
        entry.stream = Some(Stream { side: Side::Call(call), inbound: None, outbound: None });
        let id = entry.id;
        self.live += 1;
        Some(id)
    }

    fn vacant(&mut self) -> Option<&mut Entry> {
        if self.live >= self.limit {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.entries.len()).ok()?;
                let generation = Generation::FIRST;
                self.entries.push(Entry { id: StreamId::new(index, generation)?, generation, stream: None });
                index
            }
        };
        self.entries.get_mut(usize::try_from(index).ok()?)
    }

    /// Enters a call that the peer makes under an id of its own.
    pub(super) fn accept(&mut self, id: StreamId, stream: Stream) -> Result<(), ProtocolError> {
        let in_use = ProtocolError::StreamInUse { stream: id };
        if id.index() >= self.limit {
            return Err(in_use);
        }
        let place = usize::try_from(id.index()).map_err(|_| in_use)?;
        while self.entries.len() <= place {
            self.entries.push(Entry { id: StreamId::LINK, generation: Generation::FIRST, stream: None });
        }
        match self.entries.get_mut(place) {
            Some(entry) if entry.stream.is_none() => {
                entry.id = id;
                entry.stream = Some(stream);
                self.live += 1;
                Ok(())
            }
            _ => Err(in_use),
        }
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        let entry = self.entries.get_mut(usize::try_from(id.index()).ok()?)?;
        if entry.id == id { entry.stream.as_mut() } else { None }
    }

    /// The call that this side made under `id`.
    pub(super) fn call_mut(&mut self, id: StreamId) -> Option<&mut Call> {
        match &mut self.get_mut(id)?.side {
            Side::Call(call) => Some(call),
            Side::Serve(_) => None,
        }
    }

    /// Takes a call out; later frames with its id find nothing.
    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let index = id.index();
        let entry = self.entries.get_mut(usize::try_from(index).ok()?)?;
        if entry.id != id {
            return None;
        }
        let stream = entry.stream.take()?;
        self.live -= 1;
        if matches!(stream.side, Side::Call(_)) {
            entry.generation = entry.generation.next();
            entry.id = StreamId::new(index, entry.generation)?;
            self.free.push(index);
        }
        Some(stream)
    }

    /// Every live call.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (StreamId, &mut Stream)> {
        self.entries.iter_mut().filter_map(|entry| Some((entry.id, entry.stream.as_mut()?)))
    }

    /// Takes the calls out that this side serves.
    pub(super) fn drain_served(&mut self) -> Vec<Stream> {
        let mut served = Vec::new();
        for entry in &mut self.entries {
            if let Some(Stream { side: Side::Serve(_), .. }) = &entry.stream {
                served.extend(entry.stream.take());
                self.live -= 1;
            }
        }
        served
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request() -> Box<Request> {
        let deadline = Deadline::after(Duration::from_secs(1));
        Box::new(Request { contract: 1, head: Bytes::new(), body: Body::Empty, trace: None, deadline })
    }

    fn served() -> Stream {
        Stream { side: Side::Serve(Serve::Running(None)), inbound: None, outbound: None }
    }

    #[test]
    fn a_reused_place_has_another_id() {
        let mut streams = Streams::new(1);
        let first = streams.open(request()).expect("room");
        assert!(streams.open(request()).is_none(), "full");
        assert!(streams.remove(first).is_some());
        let second = streams.open(request()).expect("room again");
        assert_eq!(second.index(), first.index());
        assert!(streams.get_mut(first).is_none() && streams.remove(first).is_none());
        assert!(streams.get_mut(second).is_some());
        assert_eq!(streams.live(), 1);
    }

    #[test]
    fn an_index_beyond_the_limit_reserves_nothing() {
        let mut streams = Streams::new(8);
        let beyond = StreamId::new(1 << 19, Generation::FIRST).expect("index in range");
        assert!(streams.accept(beyond, served()).is_err());
        assert!(streams.entries.is_empty());
        let within = StreamId::new(7, Generation::FIRST).expect("index in range");
        assert!(streams.accept(within, served()).is_ok());
        assert!(streams.accept(within, served()).is_err(), "in use");
    }
}
