//! The steps of answering a request: a body that is gathered or skipped, a call, a fetch of the cache.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use troupe_cache::cache_status::Forward;
use troupe_contracts::invoke::{Invoke, Reply, Times};
use troupe_mesh::body::BodyWriter;
use troupe_mesh::failure::{Failure, Stage};
use troupe_mesh::port::CallFuture;

use super::body_fault;
use crate::answer::Answer;
use crate::cache::Fetching;
use crate::front::Planned;
use crate::metrics::{Noted, Stages, Ticket};
use crate::request::Request;
use crate::server::conn::Conn;
use crate::server::intake::{BodyFault, Gather, Pump};
use crate::server::thread::Thread;

/// What is under way for a request.
pub(super) enum Step {
    /// The answer is known.
    Answer(Box<Answer>),
    /// The answer is known; the body in front of it is read first, so that the connection can go on.
    Skip(Box<(Answer, Gather)>),
    /// The body is being gathered.
    Gather(Box<(Planned, Gather)>),
    /// A worker has the call.
    Call(Calling),
    /// The gate has taken the connection over.
    Tunnel,
    /// The cache fetches the answer, or waits for another request's.
    Fetch(Fetching),
    /// Nothing can be done any more: answering panicked.
    Lost,
}

/// A call that a worker has.
pub(super) struct Calling {
    pub(super) call: CallFuture<Invoke>,
    /// Passes on what is still to come of the request's body.
    pub(super) pump: Option<Box<Pump>>,
    /// Why the cache is passed by.
    pub(super) pass: Option<Forward>,
    pub(super) since: Instant,
    /// What the client sends through the tunnel that it asks for.
    pub(super) upward: Option<BodyWriter>,
}

/// What a call comes to.
pub(super) enum Called {
    /// An answer, and what is left to do for the request's body.
    Answer(Answer, Option<Box<Pump>>),
    /// A tunnel: the server's reply of 101, and the way to it.
    Switch(Reply, BodyWriter),
}

/// A request while one of its steps is taken, and what belongs to it.
pub(super) struct Asked<'a> {
    pub(super) thread: &'a Thread,
    pub(super) conn: &'a Rc<Conn>,
    pub(super) request: &'a Request,
    pub(super) ticket: Option<&'a mut Ticket>,
}

impl Asked<'_> {
    fn note(&mut self, noted: impl FnOnce() -> Noted) {
        if let Some(ticket) = &mut self.ticket {
            ticket.called(noted());
        }
    }

    /// The answer where nobody behind the gateway has said in time who spent it.
    fn overdue(&mut self, noted: impl FnOnce(&Failure) -> Noted) -> Answer {
        let failure = Failure::deadline(Stage::Gateway);
        self.note(|| noted(&failure));
        self.thread.front.fail(self.request, &failure)
    }

    /// The answer where the body cannot be had.
    pub(super) fn unread(&self, fault: BodyFault) -> Answer {
        body_fault(self.thread, self.request, fault)
    }

    /// Goes on with the cache's fetch.
    pub(super) fn poll_fetch(&mut self, fetching: &mut Fetching, context: &mut Context<'_>) -> Poll<Answer> {
        match Pin::new(&mut *fetching).poll(context) {
            Poll::Ready(outcome) => {
                self.note(|| Noted::Cache(Stages::fetched(&outcome.spent, outcome.failure())));
                let (result, answer) = self.thread.front.outcome(self.request, outcome);
                if let Some(ticket) = &mut self.ticket {
                    ticket.set_cache(result);
                }
                Poll::Ready(answer)
            }
            Poll::Pending if self.conn.take_overdue() => {
                Poll::Ready(self.overdue(|failure| Noted::Cache(Stages::fetched(&fetching.spent(), Some(failure)))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn replied(&mut self, result: Result<Reply, Failure>, upward: Option<BodyWriter>) -> Answer {
        let mut answer = self.thread.front.answer(self.request, result);
        if let Some(upward) = upward {
            answer.upgrade = answer.status == 426;
            // There is none of it; a stream that breaks would be a request that failed.
            upward.finish();
        }
        answer
    }
}

impl Calling {
    /// Goes on with the body, then with the call.
    pub(super) fn poll(&mut self, asked: &mut Asked<'_>, context: &mut Context<'_>) -> Poll<Called> {
        if let Err(fault) = self.poll_pump(asked, context) {
            return Poll::Ready(Called::Answer(asked.unread(fault), None));
        }
        let answer = match self.call.as_mut().poll(context) {
            Poll::Ready(result) => {
                if cfg!(not(feature = "untimed")) {
                    asked.note(|| match &result {
                        Ok(reply) => Noted::call(reply.times, None, self.since),
                        Err(failure) => Noted::call(failure.times, Some(failure), self.since),
                    });
                }
                match (self.upward.take(), result) {
                    (Some(upward), Ok(reply)) if reply.head.status() == 101 => {
                        return Poll::Ready(Called::Switch(reply, upward));
                    }
                    (upward, result) => asked.replied(result, upward),
                }
            }
            Poll::Pending if asked.conn.take_overdue() => {
                asked.overdue(|failure| Noted::call(Times::default(), Some(failure), self.since))
            }
            Poll::Pending => return Poll::Pending,
        };
        let answer = match self.pass {
            Some(forward) => asked.thread.front.passed(answer, forward),
            None => answer,
        };
        Poll::Ready(Called::Answer(answer, self.pump.take()))
    }

    /// The call's time begins when all of the body is passed on.
    fn poll_pump(&mut self, asked: &Asked<'_>, context: &mut Context<'_>) -> Result<(), BodyFault> {
        let Some(pump) = &mut self.pump else { return Ok(()) };
        if let Poll::Ready(passed) = pump.poll(context) {
            passed?;
            self.pump = None;
            asked.conn.wait_until(Instant::now() + asked.thread.timeouts().request);
        }
        Ok(())
    }
}
