//! Ports: how a service calls another without knowing where it is.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::contract::{Contract, Envelope};
use crate::failure::{Failure, Outcome, Stage};

mod mailbox;

/// A call under way. Dropping it cancels the call.
pub type CallFuture<C> = Pin<Box<dyn Future<Output = Result<<C as Contract>::Reply, Failure>>>>;

/// Whatever answers a contract on this thread: a service, a mailbox, a link, a pool of links.
pub trait Service<C: Contract> {
    /// Starts a call. The future owns all it needs; dropping it cancels the call.
    fn call(&self, envelope: Envelope<C>) -> CallFuture<C>;
}

/// A service's way to its peer. It belongs to the thread that made it; a clone costs a reference count.
pub struct Port<C: Contract>(Rc<dyn Service<C>>);

impl<C: Contract> Port<C> {
    /// The peer lives in this thread: a call is a function call, so a panic in it is the caller's own, and so is the watch over
    /// the deadline. Links, pools of links and the loopback are ports of
    /// this kind too, since each of them answers the contract on the thread that owns it.
    pub fn inline(service: Rc<dyn Service<C>>) -> Self {
        Self(service)
    }

    /// The peer stands behind the mailbox of an actor of its own, on this thread's arbiter.
    ///
    /// At most `capacity` calls may be with the actor at once; more are answered `Overloaded`.
    pub fn mailbox(service: Rc<dyn Service<C>>, capacity: usize) -> Self {
        Self(Rc::new(mailbox::Mailbox::start(service, capacity)))
    }

    /// Starts a call. Dropping the future cancels it.
    pub fn call(&self, envelope: Envelope<C>) -> CallFuture<C> {
        self.0.call(envelope)
    }
}

/// The failure of a call whose answering panicked and was caught: counted and logged, the panic's place is in the log.
pub(crate) fn panicked<C: Contract>() -> Failure {
    panics(C::NAME).increment(1);
    tracing::error!(contract = C::NAME, "a handler panicked; its call is answered as an internal failure");
    Failure::new(Outcome::Internal, Stage::Link, "the service failed")
}

/// Counts calls of a contract whose answering panicked.
pub(crate) fn panics(contract: &'static str) -> metrics::Counter {
    metrics::counter!("troupe_mesh_handler_panics_total", "contract" => contract)
}

impl<C: Contract> Clone for Port<C> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<C: Contract> std::fmt::Debug for Port<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port<{}>", C::NAME)
    }
}
