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
//! | `server`, `connection` | one server: connections counted, kept, opened, closed |
//! | `exchange`, `stream` | one call: request wholly at hand, or bodies on their way |
//! | `report` | what a server "says" of its load; whether it accepts connections again |

pub mod body;
pub mod config;
pub mod encode;
pub mod head;
pub mod lie;

mod connection;
mod exchange;
mod fault;
mod meters;
mod report;
mod server;
mod stream;

pub(crate) use meters::describe;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use troupe_contracts::invoke::{Invoke, upstream_pool};
use troupe_contracts::report::Report;
use troupe_mesh::contract::{Contract, Envelope};
use troupe_mesh::discovery::{self, Address, Discovery, Endpoints, PeerError, Take};
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Port, Service};
use troupe_node::config::QueueConfig;

use crate::instances::{Instance, InstanceId, Instances};
use config::{ServerConfig, UpstreamConfig};
use exchange::{Client, Scratch};
use meters::Meters;
use server::Server;

/// How often idle connections are looked at.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// The upstream servers of this process.
pub struct Upstreams {
    groups: Vec<Group>,
    threads: usize,
    servers: ArcSwap<HashMap<InstanceId, Arc<Server>>>,
    listed: watch::Sender<Arc<[Instance]>>,
}

struct Group {
    pool: Arc<str>,
    config: UpstreamConfig,
    meters: Arc<Meters>,
}

/// Where the servers of one entry are.
struct Source {
    group: usize,
    server: ServerConfig,
    endpoints: watch::Receiver<Endpoints>,
    /// Kept: a source that is dropped looks no further.
    discovery: Box<dyn Discovery>,
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
        let mut sources = Vec::new();
        let mut made = Vec::new();
        for (name, config) in groups {
            let pool = upstream_pool(name);
            for server in &config.servers {
                let discovery = discovery::discover(Take::All, &pool, std::slice::from_ref(&server.address))?;
                let endpoints = discovery.watch();
                sources.push(Source { group: made.len(), server: server.clone(), endpoints, discovery });
            }
            let meters = Arc::new(Meters::new(&pool));
            made.push(Group { pool: pool.into(), config: config.clone(), meters });
        }
        let listed = watch::channel(Arc::from([])).0;
        let upstreams = Arc::new(Self { groups: made, threads, servers: ArcSwap::default(), listed });
        upstreams.list(&sources);
        if !sources.is_empty() {
            actix_rt::spawn(look_after(Arc::downgrade(&upstreams), sources));
        }
        Ok(upstreams)
    }

    /// The servers as instances, now and as they change.
    pub fn instances(&self) -> Instances {
        self.listed.subscribe()
    }

    /// The servers as instances, together with `others`. Needs an event loop on this thread.
    pub fn instances_beside(&self, mut others: Instances) -> Instances {
        if self.groups.is_empty() {
            return others;
        }
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

    /// The bounds of each group's queue, by pool.
    pub fn queues(&self) -> impl Iterator<Item = (String, QueueConfig)> {
        self.groups.iter().map(|group| (group.pool.to_string(), group.config.queue))
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

    /// Publishes the servers that the sources name. Those that were there keep their connections.
    fn list(&self, sources: &[Source]) {
        let before = self.servers.load();
        let mut servers = HashMap::new();
        let mut instances = Vec::new();
        for source in sources {
            let Some(group) = self.groups.get(source.group) else { continue };
            for endpoint in source.endpoints.borrow().iter() {
                let Address::Tcp(address) = endpoint.address else { continue };
                let id = InstanceId::new(format!("{}/{address}", group.pool));
                if servers.contains_key(&id) {
                    continue;
                }
                let server = before.get(&id).cloned().unwrap_or_else(|| {
                    let what = (Arc::clone(&group.pool), Arc::clone(&endpoint.name), address);
                    let meters = Arc::clone(&group.meters);
                    Arc::new(Server::new(what, &source.server, &group.config, meters, self.threads))
                });
                let instance = Instance::new(id.clone(), Arc::clone(&server.name));
                instances.push(instance.weighing(server.weight));
                servers.insert(id, server);
            }
        }
        self.servers.store(Arc::new(servers));
        self.listed.send_replace(instances.into());
    }

    async fn tend(&self) {
        let servers = self.servers.load_full();
        for server in servers.values() {
            server.tend().await;
        }
        for group in &self.groups {
            let own = servers.values().filter(|server| server.pool == group.pool);
            let (open, idle) = own.fold((0.0, 0.0), |(open, idle), server| {
                (open + f64::from(server.open()), idle + server.idle() as f64)
            });
            group.meters.open.set(open);
            group.meters.idle.set(idle);
        }
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<&str> = self.groups.iter().map(|group| &*group.pool).collect();
        formatter.debug_struct("Upstreams").field("groups", &groups).finish_non_exhaustive()
    }
}

/// Follows the sources and tends the connections, for as long as the upstreams live.
async fn look_after(upstreams: Weak<Upstreams>, sources: Vec<Source>) {
    let changed = Arc::new(Notify::new());
    for source in &sources {
        let (mut endpoints, changed) = (source.endpoints.clone(), Arc::clone(&changed));
        actix_rt::spawn(async move {
            while endpoints.changed().await.is_ok() {
                changed.notify_one();
            }
        });
    }
    let mut tick = tokio::time::interval(TEND_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let moved = tokio::select! {
            () = changed.notified() => true,
            _ = tick.tick() => false,
        };
        let Some(upstreams) = upstreams.upgrade() else { break };
        if moved {
            upstreams.list(&sources);
        } else {
            upstreams.tend().await;
        }
    }
    drop(sources.into_iter().map(|source| source.discovery).collect::<Vec<_>>());
}

/// Stands for a server that is no longer listed.
struct Gone;

impl<C: Contract> Service<C> for Gone {
    fn call(&self, _: Envelope<C>) -> CallFuture<C> {
        let failure = Failure::new(Outcome::Unreachable, Stage::Upstream, "the upstream server is gone").not_started();
        Box::pin(std::future::ready(Err(failure)))
    }
}
