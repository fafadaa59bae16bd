//! The wiring in which a service stands behind an actor's mailbox.
//!
//! actix bounds a mailbox less than it says (a sender that finds it full is let in all the same) and does not cancel a
//! handler whose caller is gone. Both are put right here: a count of the calls inside, and a token that ends the
//! handler's future when the caller's is dropped.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Context, Handler, ResponseFuture};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{CallFuture, Service};
use crate::contract::{Contract, Envelope};
use crate::failure::{Failure, Outcome, Stage};

/// A full mailbox empties as fast as calls end; there is no better guess.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
        let call = self.service.call(mail.envelope);
        Box::pin(async move {
            tokio::select! {
                biased;
                () = mail.abandoned.cancelled() => Err(Failure::new(Outcome::Cancelled, Stage::Balancer, "the caller is gone")),
                result = call => result,
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
