//! The links of one thread to all instances of a service, and which of them a call takes.
//!
//! Each instance that discovery names is dialled, and dialled again with back-off while it is named; a call takes the
//! link with the fewest calls in flight. While no link is up, calls wait for one for a while. A call that was queued on a
//! link but never written when it ended takes another link; nobody notices.

mod connector;
mod members;
mod reports;
mod ways;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};
use troupe_wire::frame::MAX_HEAD;
use troupe_wire::handshake::Uid;

pub use self::members::Instance;

use self::connector::Connectors;
use self::members::{InstanceLinks, Members};
use crate::contract::{Contract, Envelope};
use crate::discovery::Endpoints;
use crate::failure::{Failure, Outcome, Stage};
use crate::link::{Answer, CallEnd, Link, LinkSetup, Request, read_reply, unsent};
use crate::port::{CallFuture, Port, Service};

/// Calls of one thread that may wait for a link at once: what the balancer's queue holds.
const MAX_WAITING: usize = 10_000;
/// What a client is told to wait when no instance is there; longer than the longest pause between two dials.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Room that heads are encoded into before it is shared out.
const HEAD_ROOM: usize = 16 * 1024;

/// The links of this thread to one service. Clones share them; they end when the last clone and the last port are gone.
#[derive(Clone)]
pub struct Pool {
    links: Rc<Links>,
    connectors: Rc<Connectors>,
}

/// What calls and connectors share.
struct Links {
    service: Box<str>,
    members: RefCell<Members>,
    instances: watch::Sender<Arc<[Instance]>>,
    up: Notify,
    waiting: Cell<usize>,
    connect_wait: Duration,
    heads: RefCell<BytesMut>,
}

impl Pool {
    /// Starts to dial the instances of `service` that `endpoints` names, now and as it changes.
    ///
    /// A call waits `connect_wait` for a link when none is up, inside its deadline.
    pub fn start(
        setup: LinkSetup,
        service: &str,
        connect_wait: Duration,
        endpoints: watch::Receiver<Endpoints>,
    ) -> Self {
        let links = Rc::new(Links {
            service: service.into(),
            members: RefCell::default(),
            instances: watch::Sender::new(Arc::from([])),
            up: Notify::new(),
            waiting: Cell::new(0),
            connect_wait,
            heads: RefCell::new(BytesMut::new()),
        });
        let connectors = Rc::new(Connectors::start(Rc::clone(&links), setup, endpoints));
        Self { links, connectors }
    }

    /// A port to whichever instance is least busy with this thread's calls.
    pub fn port<C: Contract>(&self) -> Port<C> {
        Port::inline(Rc::new(Route { pool: self.clone(), instance: None }))
    }

    /// A port to one instance. While it is away and another is up its calls fail as `Unreachable`, not started: whoever
    /// chose it chooses another. While none is up they wait, as calls to any instance do.
    pub fn port_of<C: Contract>(&self, instance: Uid) -> Port<C> {
        let instance = self.links.members.borrow_mut().instance(instance);
        Port::inline(Rc::new(Route { pool: self.clone(), instance: Some(instance) }))
    }

    /// The instances that a link is up to, sorted by uid, now and as they change.
    pub fn instances(&self) -> watch::Receiver<Arc<[Instance]>> {
        self.links.instances.subscribe()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Pool")
            .field("service", &self.links.service)
            .field("instances", &self.links.instances.borrow().len())
            .finish_non_exhaustive()
    }
}

/// A way through a pool: to any instance, or to one.
struct Route {
    pool: Pool,
    instance: Option<Rc<InstanceLinks>>,
}

impl<C: Contract> Service<C> for Route {
    fn call(&self, envelope: Envelope<C>) -> CallFuture<C> {
        let links = Rc::clone(&self.pool.links);
        // The pool lives as long as a call of it.
        let connectors = Rc::clone(&self.pool.connectors);
        let instance = self.instance.clone();
        let request = links.request(envelope);
        Box::pin(async move {
            let answer = links.send(request?, instance.as_deref()).await;
            drop(connectors);
            read_reply::<C>(answer?)
        })
    }
}

impl Links {
    fn request<C: Contract>(&self, envelope: Envelope<C>) -> Result<Box<Request>, Failure> {
        let Envelope { call, deadline, trace } = envelope;
        let mut heads = self.heads.borrow_mut();
        if heads.capacity() - heads.len() < HEAD_ROOM / 8 {
            heads.reserve(HEAD_ROOM);
        }
        call.encode_head(&mut heads);
        let head = heads.split().freeze();
        if head.len() > MAX_HEAD {
            return Err(Failure::refused(Stage::Link, 431, "the request head is too large"));
        }
        Ok(Box::new(Request { contract: C::ID, head, body: call.into_body(), trace, deadline }))
    }

    async fn send(&self, mut request: Box<Request>, instance: Option<&InstanceLinks>) -> Result<Answer, Failure> {
        let mut patience = None;
        loop {
            let Some(link) = self.pick(instance, request.contract)? else {
                let until = *patience.get_or_insert_with(|| Instant::now() + self.connect_wait);
                self.wait_for_link(until, &request).await?;
                continue;
            };
            let pending = link.send(request)?;
            drop(link);
            match pending.await {
                Ok(answer) => return Ok(answer),
                Err(CallEnd::Failed(failure)) => return Err(failure),
                Err(CallEnd::Unsent(unsent)) => request = unsent,
            }
            if request.deadline.expired() {
                return Err(Failure::deadline(Stage::Link).not_started());
            }
        }
    }

    /// The link for a call; `None` when there is none to wait for yet.
    fn pick(&self, instance: Option<&InstanceLinks>, contract: u16) -> Result<Option<Link>, Failure> {
        let members = self.members.borrow();
        let picked = match instance {
            Some(instance) => instance.pick(contract),
            None => members.pick(contract),
        };
        match picked {
            Some(link) => Ok(Some(link)),
            // With another instance up, whoever chose this one chooses that; alone, its link may be about to come up.
            None if instance.is_some() && members.is_up() => Err(unsent()),
            None if members.is_up() => {
                let reason = "no instance serves this version of the contract";
                Err(Failure::new(Outcome::Incompatible, Stage::Link, reason).not_started())
            }
            None => Ok(None),
        }
    }

    async fn wait_for_link(&self, until: Instant, request: &Request) -> Result<(), Failure> {
        let away = |reason: &'static str| {
            let mut failure = Failure::new(Outcome::Unreachable, Stage::Link, reason).not_started();
            failure.retry_after = Some(RETRY_AFTER);
            failure.with_detail(format!("no link to any {} instance", self.service))
        };
        let deadline = Instant::from_std(request.deadline.instant());
        let Some(_waits) = Waits::enter(&self.waiting) else {
            return Err(Failure::overloaded(Stage::Link, "too many requests wait for the service", RETRY_AFTER));
        };
        match timeout_at(until.min(deadline), self.up.notified()).await {
            Ok(()) => Ok(()),
            Err(_) if deadline <= until => Err(Failure::deadline(Stage::Link).not_started()),
            Err(_) => Err(away("the service is away")),
        }
    }
}

/// Counts a call that waits for a link.
struct Waits<'a>(&'a Cell<usize>);

impl<'a> Waits<'a> {
    fn enter(waiting: &'a Cell<usize>) -> Option<Self> {
        (waiting.get() < MAX_WAITING).then(|| {
            waiting.set(waiting.get() + 1);
            Self(waiting)
        })
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
