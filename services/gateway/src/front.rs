//! What is done with a request, whatever server it came in by: answered here, or called on a worker.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytestring::ByteString;
use tokio::sync::watch;
use troupe_contracts::invoke::{Invoke, InvokeFlags, Reply};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Port};

use crate::answer::{Answer, AnswerHead};
use crate::landing;
use crate::metrics::Cause;
use crate::path;
use crate::problem::{self, Problem};
use crate::request::{Method, Reception, Refused, Request};
use crate::router::{Found, RouteTable};
use crate::server::Reject;

/// What every HTTP thread of a gateway shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) routes: ArcSwap<RouteTable>,
    pub(crate) draining: AtomicBool,
    /// Tells the threads of the drain.
    pub(crate) drain: watch::Sender<bool>,
    pub(crate) health: bool,
    pub(crate) development: bool,
}

/// One thread's front: it owns the thread's way to the workers.
pub(crate) struct Front {
    shared: Arc<Shared>,
    reception: Reception,
    port: Port<Invoke>,
}

/// What is to be done with a request.
pub(crate) enum Plan {
    /// Answered here.
    Answer(Answer),
    /// Called on a worker.
    Call(Planned),
}

/// A call that was decided on and waits for its body.
#[derive(Debug)]
pub(crate) struct Planned {
    /// The routing table's number, and the route's in it.
    pub(crate) route: (u64, usize),
    pub(crate) label: ByteString,
    pub(crate) streaming: bool,
    pool: ByteString,
    function: ByteString,
    path_info: u16,
}

impl Front {
    pub(crate) fn new(shared: Arc<Shared>, reception: Reception, port: Port<Invoke>) -> Self {
        Self { shared, reception, port }
    }

    pub(crate) fn reception(&self) -> &Reception {
        &self.reception
    }

    /// Whether clients may see what otherwise only logs show.
    pub(crate) fn is_development(&self) -> bool {
        self.shared.development
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// Whether the listeners are closed and idle connections end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_draining() && *self.shared.drain.borrow()
    }

    /// Decides what is done with a request.
    pub(crate) fn plan(&self, request: &Request) -> Plan {
        let path = request.head.path();
        if self.shared.health && path == "/health" {
            return Plan::Answer(self.health(request));
        }
        if path == "*" {
            return Plan::Answer(Answer::options(Cow::Borrowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")));
        }
        let routes = self.shared.routes.load();
        // A HEAD that is listed by itself is found by itself; the head says GET.
        match routes.find(request.head.authority(), request.method.as_str(&request.head), path) {
            // Said, and not left to a server that would take it for an ordinary request.
            Found::Route(matched) if matched.route.upstream && request.websocket => {
                Plan::Answer(self.problem(request, 501, "WebSocket connections to upstream servers are not supported"))
            }
            Found::Route(matched) => Plan::Call(Planned {
                route: (routes.serial(), matched.index),
                streaming: matched.route.streaming,
                pool: matched.route.pool.clone(),
                label: matched.route.label.clone(),
                function: match (matched.function, matched.route.pinned()) {
                    (Some(name), _) => match path::decode(name) {
                        Cow::Borrowed(name) => request.part(name),
                        Cow::Owned(name) => name.into(),
                    },
                    (None, Some(pinned)) => pinned.clone(),
                    (None, None) => ByteString::new(),
                },
                path_info: u16::try_from(matched.path_info).unwrap_or(u16::MAX),
            }),
            Found::OtherMethods(allow) if request.method == Method::Options => {
                Plan::Answer(Answer::options(Cow::Owned(allow)))
            }
            Found::OtherMethods(allow) => {
                let answer = self.problem(request, 405, "the route does not take this method");
                Plan::Answer(answer.with_allow(allow))
            }
            Found::Nothing if path == "/" && matches!(request.method, Method::Get | Method::Head) => {
                Plan::Answer(landing::page())
            }
            Found::Nothing => Plan::Answer(self.problem(request, 404, "no route matches this path")),
        }
    }

    /// Starts the call. Dropping the future cancels it.
    pub(crate) fn call(
        &self,
        request: &Request,
        planned: Planned,
        body: Body,
        deadline: Deadline,
    ) -> CallFuture<Invoke> {
        let call = Invoke {
            pool: planned.pool,
            route: planned.label,
            function: planned.function,
            flags: InvokeFlags {
                idempotent: request.is_idempotent(),
                streaming: planned.streaming,
                head_only: request.method == Method::Head,
            },
            path_info: planned.path_info,
            queued: Duration::ZERO,
            head: request.head.clone(),
            body,
        };
        self.port.call(Envelope { call, deadline, trace: request.trace })
    }

    /// The answer to a call that ended.
    pub(crate) fn answer(&self, request: &Request, result: Result<Reply, Failure>) -> Answer {
        match result {
            Ok(reply) if reply.head.status() < 200 => {
                let failure =
                    Failure::new(Outcome::Broken, Stage::Php, "the worker answered with a status that is not final");
                self.fail(request, &failure)
            }
            Ok(reply) => Answer {
                status: reply.head.status(),
                head: AnswerHead::Reply(reply.head),
                body: reply.body,
                cause: Some(Cause::Application),
                close: false,
            },
            Err(failure) => self.fail(request, &failure),
        }
    }

    /// The answer to a failure; what the client does not see is logged here, once.
    pub(crate) fn fail(&self, request: &Request, failure: &Failure) -> Answer {
        let id = id_text(&request.id);
        let (outcome, stage) = (failure.outcome.as_str(), failure.stage.as_str());
        let detail = failure.detail.as_deref().unwrap_or_default();
        let trace_id = request.trace.map(|trace| trace.id_text());
        match failure.outcome {
            Outcome::Refused | Outcome::Cancelled | Outcome::Overloaded => {
                tracing::debug!(
                    request_id = id,
                    trace_id,
                    outcome,
                    stage,
                    reason = &*failure.reason,
                    detail,
                    "a call was not served"
                );
            }
            _ => tracing::warn!(
                request_id = id,
                trace_id,
                outcome,
                stage,
                reason = &*failure.reason,
                detail,
                "a call failed"
            ),
        }
        problem::of_failure(failure, request.head.path(), id, request.prefers_html, self.shared.development)
    }

    /// A problem of the request itself.
    pub(crate) fn problem(&self, request: &Request, status: u16, detail: &str) -> Answer {
        let problem = Problem {
            status,
            detail,
            stage: Stage::Gateway,
            outcome: None,
            instance: request.head.path(),
            request_id: id_text(&request.id),
            debug: None,
        };
        problem.answer(request.prefers_html)
    }

    /// The answer to what was refused before it was a request.
    pub(crate) fn refusal(&self, refused: &Refused) -> Answer {
        let problem = Problem {
            status: refused.status,
            detail: refused.why,
            stage: Stage::Gateway,
            outcome: None,
            instance: "",
            request_id: id_text(&refused.id),
            debug: None,
        };
        problem.answer(false).closing(refused.close)
    }

    /// Status and text for what the gate refuses.
    pub(crate) fn rejection(&self, reject: Reject) -> (u16, &'static str) {
        match reject {
            Reject::RequestLine => (400, "the request line is malformed"),
            Reject::Target => (400, "the request target is malformed or names another host than Host does"),
            Reject::Version => (505, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
            Reject::Connect => (501, "this server is not a proxy that tunnels"),
            Reject::BareLf => (400, "a line of the request head does not end with CRLF"),
            Reject::Field => (400, "a header field is malformed"),
            Reject::Host => (400, "the Host header is missing, repeated or malformed"),
            Reject::Length => (400, "the Content-Length header is repeated or malformed"),
            Reject::TransferEncoding => {
                (400, "the Transfer-Encoding header is not exactly `chunked`, or it stands beside Content-Length")
            }
            Reject::Chunk => (400, "the chunked body is malformed"),
            Reject::HeadTooLarge => (431, "the request head is larger than gateway.max_head"),
            Reject::NameTooLong => (431, "the name of a header field is too long"),
            Reject::TooManyFields => (431, "the request head has more than 96 fields"),
            Reject::HeadTimeout => (408, "the request head did not arrive in time"),
        }
    }

    fn health(&self, request: &Request) -> Answer {
        match request.method {
            Method::Get | Method::Head if self.is_draining() => {
                Answer::own(503, "text/plain; charset=utf-8", "draining\n")
            }
            Method::Get | Method::Head => Answer::own(200, "text/plain; charset=utf-8", "ok\n"),
            Method::Options => Answer::options(Cow::Borrowed("GET, HEAD, OPTIONS")),
            _ => self.problem(request, 405, "the health page is only read").with_allow("GET, HEAD, OPTIONS".to_owned()),
        }
    }
}

/// An id is a few ASCII characters by construction.
fn id_text(id: &bytes::Bytes) -> &str {
    std::str::from_utf8(id).unwrap_or_default()
}
