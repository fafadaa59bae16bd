//! What is done with a request, whatever server it came in by: answered here, or called on a worker.

mod own;
mod warming;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytestring::ByteString;
use tokio::sync::watch;
use troupe_cache::cache_status::{CacheStatus, Forward};
use troupe_cache::entry::Entry;
use troupe_cache::key::Key;
use troupe_cache::time::Moment;
use troupe_cache::{invalidation, targeted};
use troupe_contracts::invoke::{Invoke, InvokeFlags, Reply};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Port};

use crate::answer::{Answer, AnswerHead, Payload};
use crate::cache::l2::L2;
use crate::cache::{
    self, Cache, CacheResult, Fetch, Fetching, Miss, Outcome as Cached, Response, RouteCaching, Sent, Timeouts,
};
use crate::config::GatewayConfig;
use crate::dashboard;
use crate::landing;
use crate::metrics::Cause;
use crate::path;
use crate::problem::{self, Problem};
use crate::request::{Method, Reception, Refused, Request};
use crate::router::{Found, OwnPage, OwnPages, RouteId, RouteTable};
use crate::server::{Noted, Reject};

/// What every HTTP thread of a gateway shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) routes: Arc<ArcSwap<RouteTable>>,
    pub(crate) draining: AtomicBool,
    /// Tells the threads of the drain.
    pub(crate) drain: watch::Sender<bool>,
    /// Tells the threads of new bounds and waits.
    pub(crate) tuning: watch::Sender<Arc<GatewayConfig>>,
    pub(crate) own: OwnPages,
    pub(crate) development: bool,
    pub(crate) cache: Option<Arc<Cache>>,
}

/// One thread's front: it owns the thread's way to the workers.
pub(crate) struct Front {
    shared: Arc<Shared>,
    reception: Reception,
    port: Port<Invoke>,
    /// The thread's way to whoever shows the dashboard.
    dashboard: Option<Port<Invoke>>,
    /// The cache's second tier, where there is one.
    l2: Option<L2>,
    /// What this thread is asked for, where that is predicted.
    noted: Option<Noted>,
}

/// What is to be done with a request.
pub(crate) enum Plan {
    /// Answered here.
    Answer(Answer),
    /// Answered from the store.
    Hit(Hit),
    /// Called on a worker.
    Call(Planned),
}

/// A request that the store answers.
pub(crate) struct Hit {
    pub(crate) route: RouteId,
    pub(crate) label: ByteString,
    pub(crate) entry: Arc<Entry>,
    /// The request is answered with all of it, without conditions.
    pub(crate) plain: bool,
    /// When it was found fresh.
    pub(crate) now: Moment,
    /// How long it took to find.
    pub(crate) looked: Duration,
    /// Seconds for which a network in front keeps it.
    pub(crate) cdn_ttl: Option<u64>,
    /// What it is found by, for people who develop.
    pub(crate) key: Option<Arc<Key>>,
}

/// A call that was decided on and waits for its body.
#[derive(Debug)]
pub(crate) struct Planned {
    /// `None`: the dashboard, which is no part of what it shows.
    pub(crate) route: Option<RouteId>,
    pub(crate) label: ByteString,
    pub(crate) streaming: bool,
    /// What the client asks for is a tunnel: the call's body is what it sends through it.
    pub(crate) tunnel: bool,
    pub(crate) cached: Part,
    pool: ByteString,
    function: ByteString,
    path_info: u16,
}

/// What the cache has to do with a call.
#[derive(Debug)]
pub(crate) enum Part {
    /// Nothing: the route is not cached.
    None,
    /// It says why it stood back.
    Pass(Forward),
    /// It fetches, stores and shares the answer.
    Miss(Box<Miss>, Arc<RouteCaching>),
}

/// Whom a request is planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Client,
    /// Nobody; `anew`: what is fresh is fetched all the same.
    Warming {
        anew: bool,
    },
}

impl Front {
    pub(crate) fn new(
        shared: Arc<Shared>,
        reception: Reception,
        port: Port<Invoke>,
        dashboard: Option<Port<Invoke>>,
        l2: Option<L2>,
        noted: Option<Noted>,
    ) -> Self {
        Self { shared, reception, port, dashboard, l2, noted }
    }

    pub(crate) fn reception(&self) -> &Reception {
        &self.reception
    }

    /// Whether anything was ever stored here.
    pub(crate) fn is_caching(&self) -> bool {
        self.shared.cache.as_ref().is_some_and(|cache| cache.is_used())
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
        self.plan_for(request, Purpose::Client)
    }

    fn plan_for(&self, request: &Request, purpose: Purpose) -> Plan {
        let path = request.head.path();
        match self.shared.own.find(path) {
            Some(OwnPage::Health) => return Plan::Answer(self.health(request)),
            Some(OwnPage::Dashboard) => return Plan::Call(Planned::dashboard()),
            None => {}
        }
        if path == "*" {
            return Plan::Answer(Answer::options(Cow::Borrowed(own::METHODS)));
        }
        let routes = self.shared.routes.load();
        // A HEAD that is listed by itself is found by itself; the head says GET.
        match routes.find(request.head.authority(), request.method.as_str(&request.head), path) {
            Found::Route(matched) => {
                if let Some(answer) = self.last_hop(request).filter(|_| matched.route.upstream) {
                    return Plan::Answer(answer);
                }
                // To a worker that is no server it is an ordinary request.
                let tunnel = matched.route.upstream && request.websocket;
                let cached = match self.look_up(request, matched.route.caching.as_ref(), purpose, tunnel) {
                    cache::Found::Hit { entry, plain, now, looked } => {
                        let route = routes.id(&matched);
                        let caching = matched.route.caching.as_ref();
                        let cdn_ttl = caching.and_then(|caching| caching.cdn_ttl());
                        let key =
                            caching.filter(|_| self.shared.development).and_then(|caching| caching.key(&request.head));
                        let label = matched.route.label.clone();
                        return Plan::Hit(Hit { route, label, entry, plain, now, looked, cdn_ttl, key });
                    }
                    cache::Found::Miss(miss, caching) => Part::Miss(miss, caching),
                    cache::Found::Pass(forward) => Part::Pass(forward),
                    cache::Found::Uncached => Part::None,
                };
                Plan::Call(Planned {
                    route: Some(routes.id(&matched)),
                    streaming: matched.route.streaming,
                    tunnel,
                    cached,
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
                })
            }
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

    /// What the cache has for a request of a route.
    fn look_up(
        &self,
        request: &Request,
        caching: Option<&Arc<RouteCaching>>,
        purpose: Purpose,
        tunnel: bool,
    ) -> cache::Found {
        let (Some(cache), Some(caching)) = (&self.shared.cache, caching) else { return cache::Found::Uncached };
        // Where the route does not mention the cache, an answer that asks for it is fetched to be stored, too.
        match purpose {
            Purpose::Client if !caching.is_active() => cache::Found::Uncached,
            Purpose::Client if tunnel => cache::Found::Pass(Forward::Bypass),
            Purpose::Client => {
                if let Some(noted) = &self.noted {
                    noted.note(&request.head);
                }
                cache.look_up(request, caching)
            }
            Purpose::Warming { anew: false } => cache.look_up(request, caching),
            Purpose::Warming { anew: true } => cache.look_up_anew(request, caching),
        }
    }

    /// The answer out of the store.
    pub(crate) fn hit(&self, request: &Request, hit: &Hit) -> (CacheResult, Answer) {
        let stored = Cached::hit(Arc::clone(&hit.entry), false);
        let outcome = Cached { cdn_ttl: hit.cdn_ttl, key: hit.key.clone(), ..stored };
        self.outcome(request, outcome)
    }

    /// Starts to fetch what is not stored; `None` when that is no business of the cache's. Dropping the future gives it
    /// up.
    pub(crate) fn fetch(&self, request: &Request, planned: &mut Planned, timeouts: Timeouts) -> Option<Fetching> {
        let cache = self.shared.cache.as_ref()?;
        let (miss, caching) = match std::mem::replace(&mut planned.cached, Part::None) {
            Part::Miss(miss, caching) => (miss, caching),
            other => {
                planned.cached = other;
                return None;
            }
        };
        let invoke = self.invoke(request, planned);
        let (ports, call) = ((self.port.clone(), self.l2.clone()), (invoke, Some(request.trace.context())));
        Some(Fetch::new(Arc::clone(cache), caching, *miss, ports, call, timeouts).start())
    }

    /// The call that fetches, without a body.
    fn invoke(&self, request: &Request, planned: &Planned) -> Invoke {
        Invoke {
            pool: planned.pool.clone(),
            route: planned.label.clone(),
            function: planned.function.clone(),
            // What is stored is the answer to a GET, also where a HEAD asks for it.
            flags: InvokeFlags { idempotent: true, streaming: planned.streaming, ..InvokeFlags::default() },
            path_info: planned.path_info,
            queued: Duration::ZERO,
            head: request.head.clone(),
            body: Body::Empty,
        }
    }

    /// The answer that a request of a cached route ended with.
    pub(crate) fn outcome(&self, request: &Request, mut outcome: Cached) -> (CacheResult, Answer) {
        let result = outcome.result;
        let key = outcome.key.take().filter(|_| self.shared.development).map(|key| key.to_string());
        let response = std::mem::replace(&mut outcome.response, Response::Absent);
        let entry = match &response {
            Response::Stored(entry, _) => Some(entry),
            _ => None,
        };
        let sent = Sent::new(&mut outcome, entry.map(|entry| &**entry), key);
        let answer = match response {
            Response::Stored(entry, follower) => cache::answer(request, &entry, follower),
            Response::Reply(reply) => self.answer(request, Ok(reply)),
            Response::Failed(failure) => self.fail(request, &failure),
            Response::Absent => {
                self.problem(request, 504, "nothing is stored for this, and the request wants nothing else")
            }
        };
        (result, answer.with_sent(sent))
    }

    /// What the cache says of a request in which it had no part.
    pub(crate) fn passed(&self, answer: Answer, forward: Forward) -> Answer {
        let status = CacheStatus { forward: Some(forward), ..CacheStatus::default() };
        answer.with_sent(Sent::of(&status))
    }

    /// Starts the call. Dropping the future cancels it.
    pub(crate) fn call(
        &self,
        request: &Request,
        planned: Planned,
        body: Body,
        deadline: Deadline,
    ) -> CallFuture<Invoke> {
        let to_dashboard = planned.route.is_none();
        let call = Invoke {
            pool: planned.pool,
            route: planned.label,
            function: planned.function,
            flags: InvokeFlags {
                idempotent: request.is_idempotent(),
                streaming: planned.streaming,
                head_only: request.method == Method::Head,
                tunnel: planned.tunnel,
            },
            path_info: planned.path_info,
            queued: Duration::ZERO,
            head: request.head.clone(),
            body,
        };
        let envelope = Envelope { call, deadline, trace: Some(request.trace.context()) };
        match to_dashboard {
            true => dashboard::ask(self.dashboard.as_ref(), envelope, self.shared.drain.subscribe()),
            false => self.port.call(envelope),
        }
    }

    /// The answer to a call that ended.
    pub(crate) fn answer(&self, request: &Request, result: Result<Reply, Failure>) -> Answer {
        match result {
            Ok(reply) if reply.head.status() < 200 => {
                let failure =
                    Failure::new(Outcome::Broken, Stage::Php, "the worker answered with a status that is not final");
                self.fail(request, &failure)
            }
            Ok(reply) => {
                if let Some(cache) = &self.shared.cache {
                    self.heed(cache, request, &reply);
                }
                let (status, body) = (reply.head.status(), Payload::Body(reply.body));
                Answer::new(status, AnswerHead::Reply(reply.head), body).because(Cause::Application)
            }
            Err(failure) => self.fail(request, &failure),
        }
    }

    /// What a reply means to the cache that did not ask for it.
    fn heed(&self, cache: &Cache, request: &Request, reply: &Reply) {
        if invalidation::is_unsafe(request.head.method()) {
            cache.after_unsafe(&request.head, reply);
        } else if reply.head.field(targeted::OWN).is_some() {
            // The route does not mention the cache, but its answers do: from the next request on they are looked up.
            let routes = self.shared.routes.load();
            let path = request.head.path();
            if let Found::Route(matched) =
                routes.find(request.head.authority(), request.method.as_str(&request.head), path)
                && let Some(caching) = &matched.route.caching
            {
                caching.activate();
            }
        }
    }

    /// The answer to a failure; what the client does not see is logged here, once.
    pub(crate) fn fail(&self, request: &Request, failure: &Failure) -> Answer {
        let id = id_text(&request.id);
        let (outcome, stage) = (failure.outcome.as_str(), failure.stage.as_str());
        let detail = failure.detail.as_deref().unwrap_or_default();
        let trace_id = request.trace.id_text();
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
}

impl Planned {
    fn dashboard() -> Self {
        Self {
            route: None,
            label: ByteString::new(),
            streaming: false,
            tunnel: false,
            cached: Part::None,
            pool: ByteString::new(),
            function: ByteString::new(),
            path_info: 0,
        }
    }
}

/// An id is a few ASCII characters by construction.
fn id_text(id: &bytes::Bytes) -> &str {
    std::str::from_utf8(id).unwrap_or_default()
}
