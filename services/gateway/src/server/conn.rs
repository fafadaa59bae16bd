//! What the gate, the handler and the response body of one connection tell each other. They all run in the
//! connection's one task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Instant;

use super::guard::Reject;
use super::stream::Opened;
use crate::front::Plan;
use crate::request::{Ends, Incoming};

/// One client connection.
pub(super) struct Conn {
    pub(super) ends: Ends,
    /// The next request; almost always the only one, so that idle connections hold no queue.
    next: Cell<Option<Box<Incoming>>>,
    behind: RefCell<VecDeque<Box<Incoming>>>,
    /// What is to be done with the next request, where the gate has found that out.
    plan: Cell<Option<Box<Plan>>>,
    /// Requests whose head has arrived and whose answer is not complete.
    in_flight: Cell<usize>,
    /// Heads that have arrived.
    heads: Cell<u32>,
    /// Heads that were taken to be answered.
    taken: Cell<u32>,
    /// Answers that are complete.
    answered: Cell<u32>,
    /// When the last answer was complete.
    idle_since: Cell<Instant>,
    /// When what the current request waits for is overdue.
    due: Cell<Option<Instant>>,
    overdue: Cell<bool>,
    fault: Cell<Option<Reject>>,
    /// Bytes of the body of the request being answered.
    received: Cell<u64>,
    unflushed: Cell<bool>,
    /// The answer being written breaks off once what there is of it is written.
    breaking: Cell<bool>,
    /// The answer being written is the last one.
    closing: Cell<bool>,
    /// The connection must not look as if its last answer had ended well.
    reset: Cell<bool>,
    handshake: Cell<Handshake>,
    /// The tunnel that the answered handshake opens.
    opened: Cell<Option<Box<Opened>>>,
}

/// How far a WebSocket handshake is. Until it is answered nobody knows what the bytes behind it are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// There is none.
    None,
    /// It waits for its answer.
    Asked,
    /// It waits for its answer, and bytes came behind it.
    Early,
    /// It was refused, and bytes came behind it. They may be what the client would have sent through the tunnel, which can be
    /// anything that somebody else chose; so they are not read as requests, and the connection ends behind the answer.
    Spoilt,
    /// The connection is a tunnel.
    Open,
}

impl Conn {
    pub(super) fn new(ends: Ends) -> Self {
        Self {
            ends,
            next: Cell::new(None),
            behind: RefCell::default(),
            plan: Cell::new(None),
            in_flight: Cell::new(0),
            heads: Cell::new(0),
            taken: Cell::new(0),
            answered: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            due: Cell::new(None),
            overdue: Cell::new(false),
            fault: Cell::new(None),
            received: Cell::new(0),
            unflushed: Cell::new(false),
            breaking: Cell::new(false),
            closing: Cell::new(false),
            reset: Cell::new(false),
            handshake: Cell::new(Handshake::None),
            opened: Cell::new(None),
        }
    }

    /// Adds a request.
    pub(super) fn push(&self, incoming: Box<Incoming>) {
        self.heads.set(self.heads.get().saturating_add(1));
        self.in_flight.set(self.in_flight.get() + 1);
        match self.next.take() {
            None => self.next.set(Some(incoming)),
            first => {
                self.next.set(first);
                self.behind.borrow_mut().push_back(incoming);
            }
        }
    }

    /// Begins a request that the gate answers itself; it ends as others do.
    pub(super) fn begin_answered(&self) {
        self.heads.set(self.heads.get().saturating_add(1));
        self.taken.set(self.taken.get().saturating_add(1));
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// Leaves what is to be done with the request that is added next, while no other is there.
    pub(super) fn set_plan(&self, plan: Box<Plan>) {
        self.plan.set(Some(plan));
    }

    /// Takes what is to be done with the request that was taken, where that is known.
    pub(super) fn take_plan(&self) -> Option<Box<Plan>> {
        self.plan.take()
    }

    /// Counts bytes of a request's body.
    pub(super) fn received(&self, bytes: usize) {
        self.received.set(self.received.get().saturating_add(bytes as u64));
    }

    /// The bytes of the body of the request whose answer is over.
    pub(super) fn take_received(&self) -> u64 {
        self.received.take()
    }

    /// Takes the request that is to be answered next.
    pub(super) fn take(&self) -> Option<Box<Incoming>> {
        let first = self.next.take()?;
        self.next.set(self.behind.borrow_mut().pop_front());
        self.taken.set(self.taken.get().saturating_add(1));
        Some(first)
    }

    /// An answer is complete.
    pub(super) fn finish(&self, now: Instant) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.answered.set(self.answered.get().saturating_add(1));
        self.idle_since.set(now);
        self.due.set(None);
        self.overdue.set(false);
    }

    /// Whether the next head has to wait: actix frames an answer by the last head that it has read, which has to be the
    /// answer's own.
    pub(super) fn is_full(&self) -> bool {
        !self.is_idle()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.get() == 0
    }

    pub(super) fn heads(&self) -> u32 {
        self.heads.get()
    }

    pub(super) fn taken(&self) -> u32 {
        self.taken.get()
    }

    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }

    /// Sets when the current wait becomes overdue.
    pub(super) fn wait_until(&self, due: Instant) {
        self.due.set(Some(due));
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    /// The clock has passed what [`Conn::wait_until`] set.
    pub(super) fn set_overdue(&self) {
        self.due.set(None);
        self.overdue.set(true);
    }

    pub(super) fn take_overdue(&self) -> bool {
        self.overdue.replace(false)
    }

    /// The body of the request being served is malformed.
    pub(super) fn set_fault(&self, reject: Reject) {
        self.fault.set(Some(reject));
    }

    /// Whether actix has not written all it had since it was told of a handshake that came to nothing.
    pub(super) fn is_unflushed(&self) -> bool {
        self.unflushed.get()
    }

    /// All is written, and nothing is under way.
    pub(super) fn set_flushed(&self) {
        self.unflushed.set(false);
    }

    pub(super) fn set_breaking(&self, breaking: bool) {
        self.breaking.set(breaking);
    }

    /// Whether an answer waits to break off until all is written.
    pub(super) fn is_breaking(&self) -> bool {
        self.breaking.get()
    }

    pub(super) fn fault(&self) -> Option<Reject> {
        self.fault.get()
    }

    pub(super) fn set_closing(&self) {
        self.closing.set(true);
    }

    /// Whether the last answer is out.
    pub(super) fn is_over(&self) -> bool {
        self.closing.get() && self.answered.get() == self.taken.get()
    }

    pub(super) fn handshake(&self) -> Handshake {
        self.handshake.get()
    }

    pub(super) fn set_handshake(&self, handshake: Handshake) {
        self.handshake.set(handshake);
    }

    /// Bytes came behind the last head.
    pub(super) fn note_early(&self) {
        if self.handshake.get() == Handshake::Asked {
            self.handshake.set(Handshake::Early);
        }
    }

    /// The handshake is not answered with 101; whether the connection has to end for that.
    pub(super) fn refuse_handshake(&self) -> bool {
        let early = self.handshake.get() == Handshake::Early;
        self.handshake.set(if early { Handshake::Spoilt } else { Handshake::None });
        self.unflushed.set(true);
        early
    }

    /// The handshake is answered with 101. Nothing else waits for the clock any more.
    pub(super) fn open(&self, opened: Box<Opened>) {
        self.opened.set(Some(opened));
        self.due.set(None);
        self.overdue.set(false);
    }

    /// The tunnel that was opened.
    pub(super) fn take_opened(&self) -> Option<Box<Opened>> {
        self.opened.take()
    }

    /// Whether the handshake is all that is under way.
    pub(super) fn is_at_handshake(&self) -> bool {
        self.in_flight.get() == 1 && matches!(self.handshake.get(), Handshake::Asked | Handshake::Early)
    }

    pub(super) fn set_reset(&self) {
        self.reset.set(true);
    }

    pub(super) fn reset(&self) -> bool {
        self.reset.get()
    }
}
