//! The service behind actix's dispatcher: takes the request that the gate left in the connection, gets its body,
//! calls, answers. actix drops the future when the client leaves, and with it the call.

mod step;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_http::body::BoxBody;
use actix_http::{Request as ActixRequest, Response};
use actix_service::Service;
use troupe_cache::cache_status::Forward;
use troupe_contracts::invoke::{Reply, Times};
use troupe_mesh::body::{self, Body, BodyWriter};
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_wire::head::Version;

use super::conn::Conn;
use super::intake::{BodyFault, GATHERED, Gather, Pump, Source};
use super::reply::{self, ReplyBody, Writing};
use super::stream::Opened;
use super::thread::{Thread, Timeouts as Timing};
use crate::answer::Answer;
use crate::cache::{CacheResult, Timeouts};
use crate::front::{Part, Plan, Planned};
use crate::metrics::{Fault, Noted, Stages, Ticket};
use crate::request::{BodyFrame, Incoming, Method, Request};
use step::{Asked, Called, Calling, Step};

/// The time a call may take whose body is still on its way: transfers have no total limit, only an idle one. When the
/// body is complete, `gateway.request_timeout` begins, and the gateway itself watches it.
const LONGEST_BODY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long after a call's deadline the gateway answers by itself. Those behind it, who know where the time went, come first:
/// their word may have to come over two links, and a link gives up a silent peer by itself within half a second.
const GRACE: Duration = Duration::from_millis(500);

/// Answers requests of one thread.
pub(super) struct Handler(pub(super) Rc<Thread>);

/// A request that is being answered.
pub(super) struct Handling {
    thread: Rc<Thread>,
    /// Both are taken when the answer is handed to actix.
    conn: Option<Rc<Conn>>,
    incoming: Option<Box<Incoming>>,
    ticket: Option<Ticket>,
    step: Step,
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
        let incoming = conn.as_ref().and_then(|conn| conn.take());
        // The gate lets nothing through without leaving the request in the connection.
        debug_assert!(incoming.is_some(), "a head came in beside the gate");
        let ticket = incoming.as_ref().map(|incoming| thread.metrics.begin(incoming));
        let mut handling = Handling { thread, conn, incoming, ticket, step: Step::Lost };
        // A panic in planning or in the callee's first step is caught as one in its later steps is.
        if let Ok(step) = catch_unwind(AssertUnwindSafe(|| handling.start(&mut request))) {
            handling.step = step.unwrap_or(Step::Lost);
        }
        handling
    }
}

impl Handling {
    fn start(&mut self, actix: &mut ActixRequest) -> Option<Step> {
        let conn = self.conn.as_ref()?;
        let request = match &**self.incoming.as_ref()? {
            Incoming::Refused(refused) => {
                let answer = self.thread.front.refusal(refused);
                return Some(self.skip(conn, answer, refused.body, actix));
            }
            Incoming::Request(request) => request,
        };
        if matches!(request.body, BodyFrame::Length(length) if length > self.thread.limits().max_body) {
            return Some(Step::Answer(Box::new(too_large(&self.thread, request))));
        }
        let plan = conn.take_plan().map_or_else(|| self.thread.front.plan(request), |plan| *plan);
        let mut planned = match plan {
            Plan::Answer(answer) => return Some(self.skip(conn, answer, request.body, actix)),
            Plan::Hit(hit) => {
                let (result, answer) = self.thread.front.hit(request, &hit);
                if let Some(ticket) = &mut self.ticket {
                    ticket.set_route(hit.route, &hit.label);
                    ticket.set_cache(result);
                    ticket.called(Noted::Cache(Stages::hit(hit.looked)));
                }
                return Some(Step::Answer(Box::new(answer)));
            }
            Plan::Call(planned) => planned,
        };
        let pass = passed_by(&planned);
        if let Some(ticket) = &mut self.ticket {
            match planned.route {
                Some(route) => ticket.set_route(route, &planned.label),
                None => ticket.set_aside(),
            }
            if pass.is_some() {
                ticket.set_cache(CacheResult::Pass);
            }
        }
        let len = match request.body {
            BodyFrame::None => {
                let deadline = Deadline::at(request.received + self.thread.timeouts().request);
                conn.wait_until(deadline.instant() + GRACE);
                let Timing { request: whole, stream_idle, .. } = self.thread.timeouts();
                let timeouts = Timeouts { deadline, request: whole, stream_idle };
                if let Some(fetching) = self.thread.front.fetch(request, &mut planned, timeouts) {
                    return Some(Step::Fetch(fetching));
                }
                let (upward, body) = match planned.tunnel {
                    true => {
                        let (writer, reader) = body::channel(None);
                        (Some(writer), Body::Stream(reader))
                    }
                    false => (None, Body::Empty),
                };
                let call = self.thread.front.call(request, planned, body, deadline);
                let since = request.received;
                return Some(Step::Call(Calling { call, pump: None, pass, since, upward }));
            }
            BodyFrame::Length(length) => Some(length),
            BodyFrame::Chunked => None,
        };
        let eager = planned.streaming;
        let source = self.source(conn, actix, self.thread.limits().max_body);
        Some(Step::Gather(Box::new((planned, Gather::new(source, len, eager)))))
    }

    /// An answer that needs no body. A small one is read all the same: actix closes where a body is left unread.
    fn skip(&self, conn: &Rc<Conn>, answer: Answer, body: BodyFrame, actix: &mut ActixRequest) -> Step {
        let len = match body {
            BodyFrame::Length(length) if length <= GATHERED as u64 => Some(length),
            BodyFrame::Chunked => None,
            BodyFrame::None | BodyFrame::Length(_) => return Step::Answer(Box::new(answer)),
        };
        let source = self.source(conn, actix, GATHERED as u64);
        Step::Skip(Box::new((answer, Gather::new(source, len, false))))
    }

    fn source(&self, conn: &Rc<Conn>, actix: &mut ActixRequest, max: u64) -> Source {
        Source::new(actix.take_payload(), Rc::clone(conn), max, self.thread.timeouts().stream_idle)
    }

    /// Goes on; ready with the answer and with what is left to do for the request's body.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Option<(Answer, Option<Box<Pump>>)>> {
        loop {
            let asked = asked(&self.thread, self.conn.as_ref(), self.incoming.as_deref(), self.ticket.as_mut());
            match (&mut self.step, asked) {
                (Step::Call(calling), Some(mut asked)) => match ready!(calling.poll(&mut asked, context)) {
                    Called::Answer(answer, pump) => return Poll::Ready(Some((answer, pump))),
                    Called::Switch(reply, upward) => {
                        self.switch(reply, upward, context);
                        return Poll::Pending;
                    }
                },
                (Step::Fetch(fetching), Some(mut asked)) => {
                    let answer = ready!(asked.poll_fetch(fetching, context));
                    return Poll::Ready(Some((answer, None)));
                }
                (Step::Gather(gathering), Some(_)) => {
                    let gathered = ready!(gathering.1.poll(context));
                    self.step = self.gathered(gathered).unwrap_or(Step::Lost);
                }
                (Step::Skip(skipping), asked) => {
                    let outcome = ready!(skipping.1.poll(context));
                    let fault = match (asked, &outcome) {
                        (Some(asked), Err(fault @ BodyFault::Malformed(_))) => Some(asked.unread(*fault)),
                        _ => None,
                    };
                    let Step::Skip(skipping) = self.take_step() else { return Poll::Ready(None) };
                    // Longer than what is skipped, or broken off.
                    let cut = !matches!(outcome, Ok((_, None)));
                    return Poll::Ready(Some((fault.unwrap_or_else(|| skipping.0.closing(cut)), None)));
                }
                (Step::Answer(_), _) => {
                    let Step::Answer(answer) = self.take_step() else { return Poll::Ready(None) };
                    return Poll::Ready(Some((*answer, None)));
                }
                (Step::Tunnel, _) => return Poll::Pending,
                (Step::Lost, _) | (_, None) => return Poll::Ready(None),
            }
        }
    }

    fn take_step(&mut self) -> Step {
        std::mem::replace(&mut self.step, Step::Lost)
    }

    /// The body is there, or so much of it that the rest is passed on while it comes: a call, or why there is none.
    fn gathered(&mut self, gathered: Result<(Body, Option<Pump>), BodyFault>) -> Option<Step> {
        let Step::Gather(gathering) = self.take_step() else { return None };
        let planned = gathering.0;
        let asked = asked(&self.thread, self.conn.as_ref(), self.incoming.as_deref(), None)?;
        let (body, pump) = match gathered {
            Ok(gathered) => gathered,
            Err(fault) => return Some(Step::Answer(Box::new(asked.unread(fault)))),
        };
        let budget = if pump.is_some() { LONGEST_BODY } else { self.thread.timeouts().request };
        let since = Instant::now();
        let deadline = Deadline::at(since + budget);
        if pump.is_none() {
            asked.conn.wait_until(deadline.instant() + GRACE);
        }
        let pass = passed_by(&planned);
        let call = self.thread.front.call(asked.request, planned, body, deadline);
        Some(Step::Call(Calling { call, pump: pump.map(Box::new), pass, since, upward: None }))
    }

    /// Leaves the connection to the gate, as a tunnel. actix waits for an answer until it ends.
    fn switch(&mut self, reply: Reply, upward: BodyWriter, context: &Context<'_>) {
        self.step = Step::Tunnel;
        let (Some(Incoming::Request(request)), Some(conn)) = (self.incoming.as_deref(), &self.conn) else { return };
        let Some(ticket) = self.ticket.take() else { return };
        let head = reply::switching(&reply.head, &request.id);
        let passage = ticket.switched(Instant::now());
        conn.open(Box::new(Opened { head, downward: reply.body, upward, passage }));
        // The gate reads before the handler runs.
        context.waker().wake_by_ref();
    }

    fn respond(&mut self, answer: Answer, pump: Option<Box<Pump>>) -> Option<Response<ReplyBody>> {
        self.step = Step::Lost;
        let (conn, incoming) = (self.conn.take()?, self.incoming.take()?);
        if let Some(ticket) = &mut self.ticket {
            ticket.set_cause(answer.cause);
        }
        let mut spoilt = false;
        let (id, head_only, http_10) = match *incoming {
            Incoming::Request(request) => {
                spoilt = request.websocket && conn.refuse_handshake();
                (request.id, request.method == Method::Head, request.head.version() == Version::Http10)
            }
            Incoming::Refused(refused) => (refused.id, false, true),
        };
        let close = self.thread.front.is_draining()
            || conn.taken() >= self.thread.limits().max_requests
            || conn.fault().is_some()
            || spoilt;
        let writing =
            Writing { id, head_only, http_10, close, pump: pump.map(|pump| *pump), ticket: self.ticket.take() };
        Some(reply::write(answer, writing, &self.thread, conn))
    }

    /// The client left: nobody will tell of the call, but how long it waited for it is known.
    fn leave(&mut self) {
        let Some(ticket) = self.ticket.as_mut().filter(|_| !cfg!(feature = "untimed")) else { return };
        match &self.step {
            Step::Call(calling) => ticket.called(Noted::call(Times::default(), None, calling.since)),
            Step::Fetch(fetching) => ticket.called(Noted::Cache(Stages::fetched(&fetching.spent(), None))),
            _ => {}
        }
    }

    /// The answer when answering panicked.
    fn lost(&mut self) -> Option<Response<ReplyBody>> {
        let answer = match self.incoming.as_deref()? {
            Incoming::Request(request) => {
                let failure = Failure::new(Outcome::Internal, Stage::Gateway, "answering the request failed")
                    .with_detail("a panic; the log says where");
                self.thread.front.fail(request, &failure)
            }
            Incoming::Refused(refused) => self.thread.front.refusal(refused),
        };
        self.respond(answer.closing(true), None)
    }
}

impl Future for Handling {
    type Output = Result<Response<ReplyBody>, Response<BoxBody>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let step = match catch_unwind(AssertUnwindSafe(|| this.poll_step(context))) {
            Ok(step) => ready!(step),
            Err(_) => None,
        };
        let response = match step {
            Some((answer, pump)) => this.respond(answer, pump),
            None => this.lost(),
        };
        Poll::Ready(response.ok_or_else(last_resort))
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        // Still there: the client left.
        if let Some(conn) = self.conn.take() {
            conn.finish(Instant::now());
            self.leave();
        }
    }
}

/// A request that was not refused, and what belongs to it; `None` once its answer was handed to actix.
fn asked<'a>(
    thread: &'a Thread,
    conn: Option<&'a Rc<Conn>>,
    incoming: Option<&'a Incoming>,
    ticket: Option<&'a mut Ticket>,
) -> Option<Asked<'a>> {
    match (conn, incoming) {
        (Some(conn), Some(Incoming::Request(request))) => Some(Asked { thread, conn, request, ticket }),
        _ => None,
    }
}

/// Why a call passes the cache by, where it does.
fn passed_by(planned: &Planned) -> Option<Forward> {
    match planned.cached {
        Part::Pass(forward) => Some(forward),
        Part::None | Part::Miss(..) => None,
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
            thread.metrics.connection_failed(Fault::BodyTimeout);
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
