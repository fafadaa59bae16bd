//! The wiring in which a service stands behind an actor's mailbox.
//!
//! actix bounds a mailbox less than it says (a sender that finds it full is let in all the same), does not cancel a
//! handler whose caller is gone, and loses the actor, with all calls to come, when a handler panics. All are put right here: a count
//! of the calls inside, a token that ends the handler's future when the caller's is dropped, and panics that are caught where
//! they are that call's only. Deadlines are kept as a link keeps them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use futures_util::FutureExt;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{CallFuture, Service, panicked};
use crate::contract::{Contract, Envelope};
use crate::failure::{Failure, Outcome, Stage};

/// A full mailbox empties as fast as calls end; there is no better guess.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long after a call's deadline it is ended here. The callee, which can say what took the time, comes first.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

pub(super) struct Mailbox<C: Contract> {
    recipient: actix::Recipient<Mail<C>>,
    inside: Rc<Cell<usize>>,
    capacity: usize,
}

struct Mail<C: Contract> {
    envelope: Envelope<C>,
    abandoned: CancellationToken,
}

impl<C: Contract> actix::Message for Mail<C> {
    type Result = Result<C::Reply, Failure>;
}

struct ServiceActor<C: Contract> {
    service: Rc<dyn Service<C>>,
}

impl<C: Contract> Actor for ServiceActor<C> {
    type Context = Context<Self>;
}

impl<C: Contract> Handler<Mail<C>> for ServiceActor<C> {
    type Result = ResponseFuture<Result<C::Reply, Failure>>;

    fn handle(&mut self, mail: Mail<C>, _: &mut Self::Context) -> Self::Result {
        let Mail { envelope, abandoned } = mail;
        let deadline = envelope.deadline;
        if deadline.expired() {
            return Box::pin(std::future::ready(Err(Failure::deadline(Stage::Link).not_started())));
        }
        let Ok(call) = catch_unwind(AssertUnwindSafe(|| self.service.call(envelope))) else {
            return Box::pin(std::future::ready(Err(panicked::<C>())));
        };
        let call = AssertUnwindSafe(call).catch_unwind();
        Box::pin(async move {
            tokio::select! {
                biased;
                () = abandoned.cancelled() => Err(Failure::new(Outcome::Cancelled, Stage::Balancer, "the caller is gone")),
                result = call => result.unwrap_or_else(|_| Err(panicked::<C>())),
                () = tokio::time::sleep_until((deadline.instant() + DEADLINE_GRACE).into()) => Err(Failure::deadline(Stage::Link)),
            }
        })
    }
}

impl<C: Contract> Mailbox<C> {
    pub(super) fn start(service: Rc<dyn Service<C>>, capacity: usize) -> Self {
        let recipient = ServiceActor { service }.start().recipient();
        Self { recipient, inside: Rc::new(Cell::new(0)), capacity }
    }
}

impl<C: Contract> Service<C> for Mailbox<C> {
    fn call(&self, envelope: Envelope<C>) -> CallFuture<C> {
        if self.inside.get() >= self.capacity {
            let full = Failure::overloaded(Stage::Link, "too many calls are waiting", RETRY_AFTER);
            return Box::pin(std::future::ready(Err(full)));
        }
        let inside = Inside::enter(&self.inside);
        let abandoned = CancellationToken::new();
        let cancel: DropGuard = abandoned.clone().drop_guard();
        let reply = self.recipient.send(Mail { envelope, abandoned });
        Box::pin(async move {
            let result = reply.await;
            drop(cancel.disarm());
            drop(inside);
            result.unwrap_or_else(|error| {
                Err(Failure::new(Outcome::Internal, Stage::Link, "the service stopped").with_detail(error.to_string()))
            })
        })
    }
}

/// Counts a call in and, whatever way it ends, out.
struct Inside(Rc<Cell<usize>>);

impl Inside {
    fn enter(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
