//! One connection to one peer, owned by one thread: many calls at once, each with its own flow control.
//!
//! The side that dialled makes the calls, the side that listens serves them. A link is one task of its thread and some
//! shared state (`Rc`, no locks): making a call queues a frame and wakes the task, which writes all that waits at once.
//! What ends a link ends its calls: those that were written with `Broken` (they may have started), those that were not
//! go back to the pool, which sends them elsewhere.
//!
//! What is not here: which link a call takes ([`crate::pool`]) and who is let in ([`crate::listener`]).

mod bodies;
mod connect;
mod core;
mod driver;
mod end;
mod memory;
mod metrics;
mod reader;
mod services;
mod signals;
mod standstill;
mod streams;
mod writer;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use troupe_wire::handshake::{Role, Session};
use troupe_wire::stream_id::{MAX_STREAMS, StreamId};

pub use self::connect::{ConnectError, HANDSHAKE_TIME, Identity, LinkSetup, Socket, accept, dial};
pub use self::core::LinkState;
pub use self::end::LinkEnd;
pub use self::memory::Memory;
pub use self::services::Services;

pub(crate) use self::connect::refuse;
pub(crate) use self::streams::{Answer, Request};

use self::core::Core;
use self::metrics::LinkMetrics;
use self::streams::{Call, CallState, Side};
use crate::contract::{Contract, Envelope};
use crate::failure::{Failure, Outcome, Stage};
use crate::port::{CallFuture, Service};

/// Calls in flight that a callee takes per link unless it announces another number: what the balancer's queue holds.
pub const MAX_IN_FLIGHT: u32 = 10_000;

/// What the link's task and its users share.
struct Shared {
    core: RefCell<Core>,
    services: Services,
    /// Whether this is the callee's side.
    serves: bool,
    session: Session,
}

impl Shared {
    /// How logs name the peer.
    fn peer_name(&self) -> String {
        format!("{}/{}", self.session.peer.service, self.session.peer.instance)
    }
}

/// A link. Clones share it; when the last one is gone it ends after its calls.
#[derive(Clone)]
pub struct Link {
    held: Rc<Handle>,
}

struct Handle {
    shared: Rc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.shared.serves {
            self.shared.core.borrow_mut().let_go();
        }
    }
}

impl Link {
    /// Starts the task of a link whose handshake is over. `buffer` holds what came behind the handshake.
    ///
    /// A callee's link lives until its peer or [`Link::drain`] ends it, whether or not a handle is kept.
    pub(crate) fn start<R, W>(
        role: Role,
        setup: &LinkSetup,
        session: Session,
        reader: R,
        writer: W,
        buffer: BytesMut,
    ) -> Self
    where
        R: AsyncRead + Unpin + 'static,
        W: AsyncWrite + Unpin + 'static,
    {
        let serves = role == Role::Callee;
        let max_in_flight = if serves { setup.max_in_flight } else { session.peer.max_in_flight }.min(MAX_STREAMS);
        let metrics = LinkMetrics::new(&session.peer.service);
        metrics.up();
        let core = Core::new(&session, max_in_flight, setup.memory.clone(), metrics);
        let services = setup.services.clone();
        let shared = Rc::new(Shared { core: RefCell::new(core), services, serves, session });
        actix_rt::spawn(driver::run(Rc::clone(&shared), reader, writer, buffer));
        Self { held: Rc::new(Handle { shared }) }
    }

    fn shared(&self) -> &Rc<Shared> {
        &self.held.shared
    }

    /// What the handshake came to: who the peer is, and what both speak.
    pub fn session(&self) -> &Session {
        &self.shared().session
    }

    /// Whether it takes calls now.
    pub fn state(&self) -> LinkState {
        self.shared().core.borrow().state
    }

    /// The state now, and each change of it.
    pub fn states(&self) -> watch::Receiver<LinkState> {
        self.shared().core.borrow().states.subscribe()
    }

    /// Whether it takes a call of `contract` now.
    pub(crate) fn takes(&self, contract: u16) -> bool {
        let core = self.shared().core.borrow();
        core.state == LinkState::Up && core.contracts.contains(&contract)
    }

    /// Whether both are handles of one link.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.held, &other.held)
    }

    /// Why it ended; `None` while it lives.
    pub fn end(&self) -> Option<LinkEnd> {
        self.shared().core.borrow().end.clone()
    }

    /// Calls in flight, either way.
    pub fn in_flight(&self) -> u32 {
        self.shared().core.borrow().streams.live()
    }

    /// Body bytes that came and that no reader has taken yet.
    pub fn held_bytes(&self) -> u64 {
        self.shared().core.borrow().receive_link.held()
    }

    /// A callee's side: no new calls; the link ends when those in flight have.
    pub fn drain(&self, reason: &str) {
        if self.shared().serves {
            self.shared().core.borrow_mut().send_goaway(reason);
        }
    }

    /// Encodes a call.
    pub(crate) fn request<C: Contract>(&self, envelope: Envelope<C>) -> Result<Box<Request>, Failure> {
        let Envelope { call, deadline, trace } = envelope;
        let head = self.shared().core.borrow_mut().encode_head(|out| call.encode_head(out));
        let Some(head) = head else {
            return Err(Failure::refused(Stage::Link, 431, "the request head is too large"));
        };
        Ok(Box::new(Request { contract: C::ID, head, body: call.into_body(), trace, deadline }))
    }

    /// Queues a call.
    pub(crate) fn send(&self, request: Box<Request>) -> Result<PendingCall, Failure> {
        let shared = self.shared();
        let id = shared.core.borrow_mut().open(request)?;
        Ok(PendingCall { shared: Rc::clone(shared), id, over: false })
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Link({}, {:?})", self.shared().peer_name(), self.state())
    }
}

/// A link is a way to its peer for every contract that both speak.
impl<C: Contract> Service<C> for Link {
    fn call(&self, envelope: Envelope<C>) -> CallFuture<C> {
        let sent = self.request(envelope).and_then(|request| self.send(request));
        Box::pin(async move {
            match sent?.await {
                Ok(answer) => read_reply::<C>(answer),
                Err(CallEnd::Failed(failure)) => Err(failure),
                Err(CallEnd::Unsent(_)) => Err(unsent()),
            }
        })
    }
}

/// The failure of a call that no link took.
pub(crate) fn unsent() -> Failure {
    Failure::new(Outcome::Unreachable, Stage::Link, "the service is away").not_started()
}

/// Decodes a reply.
pub(crate) fn read_reply<C: Contract>(answer: Answer) -> Result<C::Reply, Failure> {
    C::decode_reply(answer.head, answer.body).map_err(|bad| {
        Failure::new(Outcome::Broken, Stage::Link, "the service's reply does not decode").with_detail(bad.to_string())
    })
}

/// A call under way. Dropping it cancels the call.
pub(crate) struct PendingCall {
    shared: Rc<Shared>,
    id: StreamId,
    over: bool,
}

/// How a call ends without a reply.
#[derive(Debug)]
pub(crate) enum CallEnd {
    /// With a failure.
    Failed(Failure),
    /// It was never written: another link may take it.
    Unsent(Box<Request>),
}

impl Future for PendingCall {
    type Output = Result<Answer, CallEnd>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = self.shared.core.borrow_mut().poll_call(self.id, context);
        self.over = ended.is_ready();
        ended
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if !self.over {
            // Dropped behind the borrow: the stream owns bodies of others.
            let stream = self.shared.core.borrow_mut().cancel(self.id);
            drop(stream);
        }
    }
}

impl Core {
    fn poll_call(&mut self, id: StreamId, context: &mut Context<'_>) -> Poll<Result<Answer, CallEnd>> {
        let lost = || Failure::new(Outcome::Internal, Stage::Link, "the call is no longer known to its link");
        let Some(stream) = self.streams.get_mut(id) else {
            return Poll::Ready(Err(CallEnd::Failed(lost())));
        };
        let arriving = stream.inbound.is_some();
        let Side::Call(Call { state, caller, .. }) = &mut stream.side else {
            return Poll::Ready(Err(CallEnd::Failed(lost())));
        };
        let ended = match std::mem::replace(state, CallState::Taken) {
            CallState::Answered(Ok(answer)) => Ok(answer),
            CallState::Answered(Err(failure)) => Err(CallEnd::Failed(failure)),
            CallState::Unsent(request) => Err(CallEnd::Unsent(request)),
            CallState::Taken => Err(CallEnd::Failed(lost())),
            waiting => {
                *state = waiting;
                if !caller.as_ref().is_some_and(|caller| caller.will_wake(context.waker())) {
                    *caller = Some(context.waker().clone());
                }
                return Poll::Pending;
            }
        };
        if !arriving {
            self.streams.remove(id);
        }
        Poll::Ready(ended)
    }
}
