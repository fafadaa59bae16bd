//! The service behind actix's dispatcher: takes the request that the gate left in the connection, gets its body,
//! calls, answers. actix drops the future when the client leaves, and with it the call.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use actix_http::body::BoxBody;
use actix_http::{Request as ActixRequest, Response};
use actix_service::Service;
use troupe_contracts::invoke::Invoke;
use troupe_mesh::body::Body;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::CallFuture;
use troupe_wire::head::Version;

use super::conn::Conn;
use super::intake::{BodyFault, GATHERED, Gather, Pump, Source};
use super::reply::{self, ReplyBody, Writing};
use super::thread::Thread;
use crate::answer::Answer;
use crate::front::{Plan, Planned};
use crate::metrics::Ticket;
use crate::request::{BodyFrame, Incoming, Method, Request};

/// Answers requests of one thread.
pub(super) struct Handler(pub(super) Rc<Thread>);

/// A request that is being answered.
pub(super) struct Handling {
    thread: Rc<Thread>,
    conn: Option<Rc<Conn>>,
    ticket: Option<Ticket>,
    step: Step,
}

enum Step {
    /// The answer is known.
    Answer(Option<(Box<Incoming>, Answer)>),
    /// The answer is known; the body in front of it is read first, so that the connection can go on.
    Skip(Box<(Box<Incoming>, Answer, Gather)>),
    /// The body is being gathered.
    Gather(Box<(Box<Incoming>, Planned, Gather)>),
    /// A worker has the call.
    Call { request: Box<Incoming>, call: CallFuture<Invoke>, pump: Option<Box<Pump>>, deadline: Deadline },
    /// Nothing is left to do.
    Done,
}

impl Service<ActixRequest> for Handler {
    type Response = Response<ReplyBody>;
    type Error = Response<BoxBody>;
    type Future = Handling;

    fn poll_ready(&self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&self, mut request: ActixRequest) -> Handling {
        let thread = Rc::clone(&self.0);
        let conn = request.conn_data::<Rc<Conn>>().map(Rc::clone);
        let Some((conn, incoming)) = conn.and_then(|conn| Some((Rc::clone(&conn), conn.take()?))) else {
            // The gate lets nothing through without leaving the request in the connection.
            debug_assert!(false, "a head came in beside the gate");
            return Handling { thread, conn: None, ticket: None, step: Step::Done };
        };
        let ticket = thread.metrics.begin(&incoming);
        let mut handling = Handling { thread, conn: Some(conn), ticket: Some(ticket), step: Step::Done };
        // A panic in planning or in the callee's first step is caught as one in its later steps is.
        let started = catch_unwind(AssertUnwindSafe(|| handling.start(incoming, &mut request)));
        if started.is_err() {
            tracing::error!("answering a request panicked before the call");
        }
        handling
    }
}

impl Handling {
    fn start(&mut self, incoming: Box<Incoming>, actix: &mut ActixRequest) {
        let Some(conn) = self.conn.clone() else { return };
        let request = match &*incoming {
            Incoming::Refused(refused) => {
                let (answer, body) = (self.thread.front.refusal(refused), refused.body);
                self.step = self.skip(incoming, answer, body, actix);
                return;
            }
            Incoming::Request(request) => request,
        };
        if matches!(request.body, BodyFrame::Length(length) if length > self.thread.limits.max_body) {
            let answer = too_large(&self.thread, request);
            self.step = Step::Answer(Some((incoming, answer)));
            return;
        }
        let planned = match self.thread.front.plan(request) {
            Plan::Answer(answer) => {
                let body = request.body;
                self.step = self.skip(incoming, answer, body, actix);
                return;
            }
            Plan::Call(planned) => planned,
        };
        if let Some(ticket) = &mut self.ticket {
            ticket.set_route(planned.route.0, planned.route.1, &planned.label);
        }
        let len = match request.body {
            BodyFrame::None => {
                let since = request.received;
                let (call, deadline) = self.thread.front.call(request, planned, Body::Empty, since);
                conn.wait_until(deadline.instant());
                self.step = Step::Call { request: incoming, call, pump: None, deadline };
                return;
            }
            BodyFrame::Length(length) => Some(length),
            BodyFrame::Chunked => None,
        };
        let source =
            Source::new(actix.take_payload(), conn, self.thread.limits.max_body, self.thread.timeouts.stream_idle);
        let gather = Gather::new(source, len, planned.streaming);
        self.step = Step::Gather(Box::new((incoming, planned, gather)));
    }

    /// An answer that needs no body. A small one is read all the same: actix closes where a body is left unread.
    fn skip(&self, incoming: Box<Incoming>, answer: Answer, body: BodyFrame, actix: &mut ActixRequest) -> Step {
        let len = match body {
            BodyFrame::Length(length) if length <= GATHERED as u64 => Some(length),
            BodyFrame::Chunked => None,
            BodyFrame::None | BodyFrame::Length(_) => return Step::Answer(Some((incoming, answer))),
        };
        let Some(conn) = self.conn.clone() else { return Step::Done };
        let source = Source::new(actix.take_payload(), conn, GATHERED as u64, self.thread.timeouts.stream_idle);
        Step::Skip(Box::new((incoming, answer, Gather::new(source, len, false))))
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<(Box<Incoming>, Answer, Option<Box<Pump>>)> {
        loop {
            match &mut self.step {
                Step::Answer(answer) => {
                    let Some((incoming, answer)) = answer.take() else { return Poll::Pending };
                    return Poll::Ready((incoming, answer, None));
                }
                Step::Skip(skipping) => {
                    let outcome = ready!(skipping.2.poll(context));
                    let Step::Skip(skipping) = std::mem::replace(&mut self.step, Step::Done) else {
                        return Poll::Pending;
                    };
                    let (incoming, answer, _) = *skipping;
                    let answer = match (&*incoming, outcome) {
                        (Incoming::Request(request), Err(fault @ BodyFault::Malformed(_))) => {
                            body_fault(&self.thread, request, fault)
                        }
                        (_, outcome) => answer.closing(outcome.is_err()),
                    };
                    return Poll::Ready((incoming, answer, None));
                }
                Step::Gather(gathering) => {
                    let outcome = ready!(gathering.2.poll(context));
                    let Step::Gather(gathering) = std::mem::replace(&mut self.step, Step::Done) else {
                        return Poll::Pending;
                    };
                    let (incoming, planned, _) = *gathering;
                    let Incoming::Request(request) = &*incoming else { return Poll::Pending };
                    match outcome {
                        Ok((body, pump)) => {
                            let (call, deadline) = self.thread.front.call(request, planned, body, Instant::now());
                            if let Some(conn) = self.conn.as_ref().filter(|_| pump.is_none()) {
                                conn.wait_until(deadline.instant());
                            }
                            self.step = Step::Call { request: incoming, call, pump: pump.map(Box::new), deadline };
                        }
                        Err(fault) => {
                            let answer = body_fault(&self.thread, request, fault);
                            return Poll::Ready((incoming, answer, None));
                        }
                    }
                }
                Step::Call { request, call, pump, deadline } => {
                    let Incoming::Request(asked) = &**request else { return Poll::Pending };
                    let pumped = pump.as_mut().map_or(Poll::Pending, |pump| pump.poll(context));
                    let answer = match pumped {
                        Poll::Ready(Err(fault)) => body_fault(&self.thread, asked, fault),
                        pumped => {
                            if let (Poll::Ready(Ok(())), Some(conn)) = (pumped, &self.conn) {
                                *pump = None;
                                conn.wait_until(deadline.instant());
                            }
                            match call.as_mut().poll(context) {
                                Poll::Ready(result) => self.thread.front.answer(asked, result),
                                Poll::Pending => {
                                    let overdue = self.conn.as_ref().is_some_and(|conn| conn.take_overdue())
                                        || (pump.is_some() && deadline.expired());
                                    if !overdue {
                                        return Poll::Pending;
                                    }
                                    self.thread.front.fail(asked, &Failure::deadline(Stage::Gateway))
                                }
                            }
                        }
                    };
                    let Step::Call { request, pump, .. } = std::mem::replace(&mut self.step, Step::Done) else {
                        return Poll::Pending;
                    };
                    return Poll::Ready((request, answer, pump));
                }
                Step::Done => return Poll::Pending,
            }
        }
    }

    fn respond(&mut self, incoming: &Incoming, answer: Answer, pump: Option<Box<Pump>>) -> Option<Response<ReplyBody>> {
        let conn = self.conn.take()?;
        let (id, head_only, http_10) = match incoming {
            Incoming::Request(request) => {
                (request.id.clone(), request.method == Method::Head, request.head.version() == Version::Http10)
            }
            Incoming::Refused(refused) => (refused.id.clone(), false, true),
        };
        let close = self.thread.front.is_draining()
            || conn.taken() >= self.thread.limits.max_requests
            || conn.fault().is_some();
        let writing =
            Writing { id, head_only, http_10, close, pump: pump.map(|pump| *pump), ticket: self.ticket.take() };
        Some(reply::write(answer, writing, &self.thread, conn))
    }
}

impl Future for Handling {
    type Output = Result<Response<ReplyBody>, Response<BoxBody>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(conn) = &this.conn
            && conn.take_stalled()
        {
            context.waker().wake_by_ref();
        }
        let polled = if matches!(this.step, Step::Done) {
            Err(())
        } else {
            catch_unwind(AssertUnwindSafe(|| this.poll_step(context))).map_err(drop)
        };
        let (incoming, answer, pump) = match polled {
            Ok(step) => ready!(step),
            Err(()) => {
                this.step = Step::Done;
                tracing::error!("answering a request panicked; the line before says where");
                return Poll::Ready(Err(last_resort()));
            }
        };
        Poll::Ready(this.respond(&incoming, answer, pump).ok_or_else(last_resort))
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        // Still there: the client left, or answering panicked.
        if let Some(conn) = self.conn.take() {
            conn.finish(Instant::now());
        }
    }
}

/// What is said when there is no request to say it to.
fn last_resort() -> Response<BoxBody> {
    let mut response = Response::internal_server_error().map_body(|_, _| BoxBody::new(()));
    response.head_mut().set_connection_type(actix_http::ConnectionType::Close);
    response
}

fn too_large(thread: &Thread, request: &Request) -> Answer {
    thread.front.problem(request, 413, "the request body is larger than gateway.max_body").closing(true)
}

fn body_fault(thread: &Thread, request: &Request, fault: BodyFault) -> Answer {
    match fault {
        BodyFault::TooLarge => too_large(thread, request),
        BodyFault::Stalled => {
            thread.front.problem(request, 408, "the request body did not go on in time").closing(true)
        }
        BodyFault::Malformed(reject) => {
            let (status, why) = thread.front.rejection(reject);
            thread.front.problem(request, status, why).closing(true)
        }
        BodyFault::Gone => thread
            .front
            .fail(request, &Failure::new(Outcome::Cancelled, Stage::Gateway, "the client is gone"))
            .closing(true),
    }
}
