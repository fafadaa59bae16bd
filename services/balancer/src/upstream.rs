//! HTTP/1.1 servers as workers: the groups of `[upstream.NAME]`.
//!
//! Each address of a group is a worker like any other: an instance with one pool, whose calls are requests to the server
//! and whose load is that of this process's own connections to it. So scores, caps, the queue, ejection and retries are
//! those of every pool. The client is our own, because balancing is what this service is for: it has to know what was
//! sent and whether a byte came back.
//!
//! | module | subject |
//! |---|---|
//! | [`encode`], [`head`], [`body`], [`lie`] | the protocol, without I/O: requests out, replies in, what is refused |
//! | `keeper` | which servers there are, and what they are to be like |
//! | `server`, `connection` | one server: connections counted, kept, opened, closed |
//! | `exchange`, `stream` | one call: request wholly at hand, or bodies on their way |
//! | `tunnel` | WebSocket: bytes both ways, behind a reply of 101 |
//! | `report` | what a server "says" of its load; whether it accepts connections again |

pub mod body;
pub mod config;
pub mod encode;
pub mod head;
pub mod lie;

mod cause;
mod connection;
mod exchange;
mod fault;
mod keeper;
mod meters;
mod report;
mod server;
mod stream;
mod tunnel;

pub(crate) use meters::describe;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};
use troupe_contracts::invoke::Invoke;
use troupe_contracts::report::Report;
use troupe_mesh::contract::{Contract, Envelope};
use troupe_mesh::discovery::PeerError;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Port, Service};

use crate::instances::{Instance, InstanceId, Instances};
use config::UpstreamConfig;
use exchange::{Client, Scratch};
use keeper::{Keeper, Order};
use server::Server;

/// Reloads that may wait for the one under way.
const ORDERS: usize = 4;

/// The upstream servers of this process.
pub struct Upstreams {
    threads: usize,
    servers: ArcSwap<HashMap<InstanceId, Arc<Server>>>,
    listed: watch::Sender<Arc<[Instance]>>,
    orders: mpsc::Sender<Order>,
}

/// Why other groups were not taken; what was before goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// An address is none.
    #[error(transparent)]
    Address(#[from] PeerError),
    /// The event loop that looks after the servers is gone.
    #[error("the upstreams are about to stop")]
    Stopping,
}

impl Upstreams {
    /// Starts looking after the groups, on the calling thread, which must run an actix event loop. `threads` is how many
    /// threads will call.
    ///
    /// A name that cannot be looked up has no servers until it can; the others do not wait for it.
    ///
    /// # Errors
    /// For the first address that is none.
    pub fn start(groups: &BTreeMap<String, UpstreamConfig>, threads: usize) -> Result<Arc<Self>, PeerError> {
        let listed = watch::channel(Arc::from([])).0;
        let (orders, given) = mpsc::channel(ORDERS);
        let upstreams = Arc::new(Self { threads, servers: ArcSwap::default(), listed, orders });
        let mut keeper = Keeper::new(&upstreams);
        keeper.configure(groups)?;
        actix_rt::spawn(keeper.run(given));
        Ok(upstreams)
    }

    /// Takes other groups while calls go on. Servers that stay keep their connections and take the new weights, bounds and
    /// timeouts; those that leave get no new call and finish what they have.
    ///
    /// # Errors
    /// For the first address that is none; all stays as it was.
    pub async fn reload(&self, groups: BTreeMap<String, UpstreamConfig>) -> Result<(), ReloadError> {
        let (done, answer) = oneshot::channel();
        self.orders.send(Order { groups, done }).await.map_err(|_| ReloadError::Stopping)?;
        Ok(answer.await.map_err(|_| ReloadError::Stopping)??)
    }

    /// The servers as instances, now and as they change.
    pub fn instances(&self) -> Instances {
        self.listed.subscribe()
    }

    /// The servers as instances, together with `others`. Needs an event loop on this thread.
    pub fn instances_beside(&self, mut others: Instances) -> Instances {
        let mut own = self.instances();
        let both = |own: &[Instance], others: &[Instance]| own.iter().chain(others).cloned().collect::<Arc<[_]>>();
        let first = both(&own.borrow_and_update(), &others.borrow_and_update());
        let (sender, receiver) = watch::channel(first);
        actix_rt::spawn(async move {
            let (mut own_open, mut others_open) = (true, true);
            while own_open || others_open {
                tokio::select! {
                    changed = own.changed(), if own_open => own_open = changed.is_ok(),
                    changed = others.changed(), if others_open => others_open = changed.is_ok(),
                }
                let now = both(&own.borrow_and_update(), &others.borrow_and_update());
                if sender.send(now).is_err() {
                    return;
                }
            }
        });
        receiver
    }

    /// What makes the ports of the thread with this index: to upstream servers, and through `others` to what is none.
    pub fn resolver(
        self: &Arc<Self>,
        thread: usize,
        others: impl Fn(&InstanceId) -> Port<Invoke> + 'static,
    ) -> impl Fn(&InstanceId) -> Port<Invoke> + 'static {
        let (upstreams, scratch) = (Arc::clone(self), Rc::new(Scratch::default()));
        move |id| match upstreams.servers.load().get(id) {
            Some(server) => Port::inline(Rc::new(Client::new(Arc::clone(server), thread, Rc::clone(&scratch)))),
            None if id.is_upstream() => Port::inline(Rc::new(Gone)),
            None => others(id),
        }
    }

    /// What makes the ports for reports of load; `others` for what is no upstream server.
    pub fn reports(
        self: &Arc<Self>,
        others: impl Fn(&InstanceId) -> Port<Report> + 'static,
    ) -> impl Fn(&InstanceId) -> Port<Report> + 'static {
        let upstreams = Arc::clone(self);
        move |id| match upstreams.servers.load().get(id) {
            Some(server) => Port::inline(Rc::new(report::Reporter::new(Arc::clone(server)))),
            None if id.is_upstream() => Port::inline(Rc::new(Gone)),
            None => others(id),
        }
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<String> = self.servers.load().keys().map(ToString::to_string).collect();
        formatter.debug_struct("Upstreams").field("servers", &servers).finish_non_exhaustive()
    }
}

/// Stands for a server that is no longer listed.
struct Gone;

impl<C: Contract> Service<C> for Gone {
    fn call(&self, _: Envelope<C>) -> CallFuture<C> {
        let failure = Failure::new(Outcome::Unreachable, Stage::Upstream, "the upstream server is gone").not_started();
        Box::pin(std::future::ready(Err(failure)))
    }
}
