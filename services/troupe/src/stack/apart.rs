//! Services that are in other processes: links to them, and the listeners for links from them.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use troupe_balancer::instances::{Instance, InstanceId};
use troupe_balancer::upstream::Upstreams;
use troupe_balancer::{Balancer, Surveyor};
use troupe_cache::service::Faces;
use troupe_cache::service::config::SecondTier;
use troupe_contracts::cache::{lease::Lease, lookup::Lookup, purge::Purge, store::Store, watch::Watch};
use troupe_contracts::invoke::Invoke;
use troupe_contracts::operate::Operate;
use troupe_contracts::report::Report;
use troupe_contracts::snapshot::Snapshot;
use troupe_contracts::survey::Survey;
use troupe_mesh::config::{self, MeshConfig, Peers};
use troupe_mesh::contract::Contract;
use troupe_mesh::discovery::{Address, Advertise, Discovery, Endpoints, Membership, Registration, Take, discover};
use troupe_mesh::link::{Identity, LinkSetup, Services as Served};
use troupe_mesh::listener::MeshListener;
use troupe_mesh::pool::Pool;
use troupe_mesh::port::Port;
use troupe_node::admin::Readiness;
use troupe_node::telemetry;
use troupe_php_pool::PhpPools;
use troupe_wire::handshake::{ContractVersion, Key, Keys, Uid};

use super::Ports;
use super::face::{self, Linked, Orders, Surveys};
use super::here::{self, Resolvers};
use crate::config::{Config, mesh_address};
use crate::failure::{Code, CommandError};
use crate::redis;
use crate::services::{Service, Services};

/// Orders and questions of operators that may wait to be passed on.
const ORDERS: usize = 64;

/// What this process needs to have peers in other processes.
pub(super) struct Apart {
    /// This start of this process, under each service's name.
    uid: Uid,
    name: String,
    threads: u16,
    keys: Keys,
    /// Kept: a source that is dropped tells of no change.
    sources: Vec<Box<dyn Discovery>>,
    /// Where instances register themselves, if they do.
    membership: Option<Membership>,
    linked: Linked,
    orders: Option<Orders>,
    surveys: Option<Surveys>,
    /// Whether the configuration that serves has pools of PHP.
    wants_php: watch::Sender<bool>,
}

impl Apart {
    pub(super) fn new(config: &Config, services: Services, threads: usize) -> Result<Self, CommandError> {
        let identity = Identity::new("troupe", "", 1).map_err(no_random)?;
        let registers = services.is_apart() && config.mesh.discovery == config::Discovery::Redis;
        Ok(Self {
            uid: identity.uid,
            name: instance_name(services),
            threads: u16::try_from(threads).unwrap_or(u16::MAX),
            keys: if services.is_apart() { keys(config)? } else { Keys::none() },
            sources: Vec::new(),
            membership: if registers { Some(Membership::start(redis::open(&config.redis)?)) } else { None },
            linked: Linked::default(),
            orders: None,
            surveys: None,
            wants_php: watch::Sender::new(!config.php.is_empty()),
        })
    }

    /// Binds the listener of `service`.
    pub(super) fn listen(&self, config: &Config, service: Service) -> Result<MeshListener, CommandError> {
        let text = mesh_address(config, service).unwrap_or_default();
        let address: Address =
            text.parse().map_err(|error| CommandError::new(Code::Configuration, format!("mesh.listen: {error}")))?;
        MeshListener::bind(&address).map_err(|error| {
            let code = if error.kind() == io::ErrorKind::AddrInUse { Code::TryAgain } else { Code::Failed };
            CommandError::new(code, format!("cannot listen for links on {address}: {error}; set mesh.listen"))
        })
    }

    /// Registers `service`, which `listener` serves, where instances do that.
    pub(super) fn join(&self, config: &Config, service: Service, listener: &MeshListener) -> Result<(), CommandError> {
        let Some(membership) = &self.membership else {
            return Ok(());
        };
        let advertise = match config.mesh.advertise.as_str() {
            "" => Advertise::listener(listener.address()),
            address => Advertise::Address(
                address
                    .parse()
                    .map_err(|error| CommandError::new(Code::Configuration, format!("mesh.advertise: {error}")))?,
            ),
        };
        membership.join(Registration {
            service: service.name().to_owned(),
            uid: self.uid,
            name: self.name.clone(),
            advertise,
        });
        Ok(())
    }

    /// What makes a thread's side of the links that `service` accepts.
    pub(super) fn callee(&self, service: Service) -> impl Fn(Served) -> LinkSetup + Clone + Send + 'static {
        let (identity, keys) = (self.identity(service), self.keys.clone());
        move |services| LinkSetup::callee(identity.clone(), keys.clone(), services)
    }

    /// Starts the balancer in front of php-pools elsewhere.
    pub(super) fn start_balancer(
        &mut self,
        config: &Config,
        threads: usize,
        readiness: &Readiness,
        upstreams: &Arc<Upstreams>,
    ) -> Result<(Arc<Balancer>, Resolvers), CommandError> {
        let endpoints = self.endpoints(config, Service::PhpPool)?;
        let caller = self.caller(Service::Balancer);
        let wait = config.mesh.connect_wait;
        let links = Pool::start(caller(), Service::PhpPool.name(), wait, endpoints.clone());
        watch_links(&links, Service::PhpPool, self.wants_php.subscribe(), readiness);
        self.linked.add(Service::PhpPool, links.instances());
        let instances = upstreams.instances_beside(as_workers(&links));
        let (orders, given) = mpsc::channel(ORDERS);
        self.orders = Some(Orders::There(orders));
        actix_rt::spawn({
            let links = links.clone();
            face::carry_out(given, move |id| links.port_of::<Operate>(uid(id)))
        });
        let reports = upstreams.reports(move |id| links.port_of::<Report>(uid(id)));
        let queues = here::queues(config);
        let balancer = Balancer::start(&config.balancer, &queues, threads, wait, instances, reports);
        let upstreams = Arc::clone(upstreams);
        let resolvers: Resolvers = Arc::new(move |index| {
            let links = Pool::start(caller(), Service::PhpPool.name(), wait, endpoints.clone());
            Box::new(upstreams.resolver(index, move |id| links.port_of::<Invoke>(uid(id))))
        });
        Ok((balancer, resolvers))
    }

    /// The gateway's threads' ports to balancers elsewhere.
    pub(super) fn balancer_ports(&mut self, config: &Config, readiness: &Readiness) -> Result<Ports, CommandError> {
        let endpoints = self.endpoints(config, Service::Balancer)?;
        let caller = self.caller(Service::Gateway);
        let wait = config.mesh.connect_wait;
        let (up, mut is_up) = watch::channel(0);
        let condition = readiness.condition("balancer", "no link to a balancer is up");
        actix_rt::spawn(async move {
            while is_up.changed().await.is_ok() {
                match *is_up.borrow_and_update() {
                    0 => condition.unmet("no link to a balancer is up"),
                    _ => condition.met(),
                }
            }
        });
        let (surveys, asked) = mpsc::channel(ORDERS);
        self.surveys = Some(Surveys::There(surveys));
        actix_rt::spawn({
            let (caller, endpoints) = (caller.clone(), endpoints.clone());
            face::pass_on(asked, move || {
                Pool::start(caller(), Service::Balancer.name(), wait, endpoints.clone()).port::<Survey>()
            })
        });
        let linked = self.linked.clone();
        Ok(Arc::new(move |_| {
            let links = Pool::start(caller(), Service::Balancer.name(), wait, endpoints.clone());
            linked.add(Service::Balancer, links.instances());
            let (mut instances, up) = (links.instances(), up.clone());
            actix_rt::spawn(async move {
                while instances.changed().await.is_ok() {
                    up.send_replace(instances.borrow_and_update().len());
                }
            });
            links.port()
        }))
    }

    /// The gateway's threads' ports to metrics services elsewhere, for the dashboard; `None` where there are none.
    pub(super) fn dashboard_ports(&mut self, config: &Config) -> Result<Option<Ports>, CommandError> {
        if config.mesh.peers.metrics.is_empty() {
            return Ok(None);
        }
        let endpoints = self.endpoints(config, Service::Metrics)?;
        let (caller, wait) = (self.caller(Service::Gateway), config.mesh.connect_wait);
        Ok(Some(Arc::new(move |_| Pool::start(caller(), Service::Metrics.name(), wait, endpoints.clone()).port())))
    }

    /// Which instances elsewhere this process has links to.
    pub(super) fn linked(&self) -> Linked {
        self.linked.clone()
    }

    /// The way for an operator's orders to instances elsewhere, where this process has one.
    pub(super) fn orders(&self) -> Option<Orders> {
        self.orders.clone()
    }

    /// The way for an operator's questions to balancers elsewhere, where this process has one.
    pub(super) fn surveys(&self) -> Option<Surveys> {
        self.surveys.clone()
    }

    /// Is told whether the configuration that serves has pools of PHP, when another one takes its place.
    pub(super) fn wants_php(&self) -> watch::Sender<bool> {
        self.wants_php.clone()
    }

    /// Makes, on the reporter's thread, the links to the metrics services elsewhere; `None` where there are none.
    pub(super) fn metrics_links(
        &mut self,
        config: &Config,
        services: Services,
    ) -> Result<Option<impl Fn() -> Pool + Clone + Send + 'static + use<>>, CommandError> {
        if config.mesh.peers.metrics.is_empty() {
            return Ok(None);
        }
        let endpoints = self.endpoints(config, Service::Metrics)?;
        // One link is enough for what is told once a second.
        let identity = Identity { threads: u16::MAX, ..self.identity(services.only().unwrap_or(Service::Gateway)) };
        let (setup, wait) = (self.caller_as(identity), config.mesh.connect_wait);
        Ok(Some(move || Pool::start(setup(), Service::Metrics.name(), wait, endpoints.clone())))
    }

    /// Makes, on any thread, that thread's links to the cache services elsewhere; `None` where there are none.
    pub(super) fn cache_links(
        &mut self,
        config: &Config,
    ) -> Result<Option<impl Fn() -> Pool + Clone + Send + Sync + 'static + use<>>, CommandError> {
        if config.mesh.peers.cache.is_empty() {
            return Ok(None);
        }
        let endpoints = self.endpoints(config, Service::Cache)?;
        let (caller, wait) = (self.caller(Service::Gateway), config.mesh.connect_wait);
        let linked = self.linked.clone();
        Ok(Some(move || {
            let links = Pool::start(caller(), Service::Cache.name(), wait, endpoints.clone());
            linked.add(Service::Cache, links.instances());
            links
        }))
    }

    /// This start of this process, and its name.
    pub(super) fn instance(&self) -> (Uid, &str) {
        (self.uid, &self.name)
    }

    /// What has to stay as long as the services do.
    pub(super) fn into_sources(self) -> (Vec<Box<dyn Discovery>>, Option<Membership>) {
        (self.sources, self.membership)
    }

    fn identity(&self, service: Service) -> Identity {
        Identity {
            uid: self.uid,
            service: service.name().to_owned(),
            instance: self.name.clone(),
            threads: self.threads,
        }
    }

    fn caller(&self, service: Service) -> impl Fn() -> LinkSetup + Clone + Send + Sync + 'static + use<> {
        self.caller_as(self.identity(service))
    }

    fn caller_as(&self, identity: Identity) -> impl Fn() -> LinkSetup + Clone + Send + Sync + 'static + use<> {
        let keys = self.keys.clone();
        move || {
            let calls = [
                ContractVersion { id: Invoke::ID, version: Invoke::VERSION },
                ContractVersion { id: Report::ID, version: Report::VERSION },
                ContractVersion { id: Survey::ID, version: Survey::VERSION },
                ContractVersion { id: Operate::ID, version: Operate::VERSION },
                ContractVersion { id: Snapshot::ID, version: Snapshot::VERSION },
                ContractVersion { id: Lookup::ID, version: Lookup::VERSION },
                ContractVersion { id: Store::ID, version: Store::VERSION },
                ContractVersion { id: Lease::ID, version: Lease::VERSION },
                ContractVersion { id: Purge::ID, version: Purge::VERSION },
                ContractVersion { id: Watch::ID, version: Watch::VERSION },
            ];
            LinkSetup::caller(identity.clone(), keys.clone(), calls)
        }
    }

    fn endpoints(&mut self, config: &Config, service: Service) -> Result<watch::Receiver<Endpoints>, CommandError> {
        let peers = listed_at(&config.mesh.peers, service);
        let take = if config.mesh.discovery == config::Discovery::Static { Take::One } else { Take::All };
        let listed = || {
            discover(take, service.name(), peers).map_err(|error| {
                CommandError::new(Code::Configuration, format!("mesh.peers.{}: {error}", service.name()))
            })
        };
        let source = match &self.membership {
            Some(membership) => {
                let meanwhile = if is_unlisted(peers, service) { None } else { Some(listed()?) };
                Box::new(membership.watch(service.name(), meanwhile)) as Box<dyn Discovery>
            }
            None => listed()?,
        };
        let endpoints = source.watch();
        self.sources.push(source);
        Ok(endpoints)
    }
}

/// The services elsewhere that a process of `services` dials, and where the configuration lists them.
pub(crate) fn dialled(config: &Config, services: Services) -> Vec<(Service, &[String])> {
    let peers = &config.mesh.peers;
    let is = |service: &Service| match service {
        Service::Gateway => false,
        Service::Balancer => services.contains(Service::Gateway),
        // Without PHP, nobody is there to be linked to.
        Service::PhpPool => services.contains(Service::Balancer) && !config.php.is_empty(),
        Service::Cache => {
            services.contains(Service::Gateway) && config.cache.l2 != SecondTier::Off && !peers.cache.is_empty()
        }
        Service::Metrics => !peers.metrics.is_empty(),
    };
    let elsewhere = Service::ALL.into_iter().filter(|service| !services.contains(*service));
    elsewhere.filter(is).map(|service| (service, listed_at(peers, service))).collect()
}

/// Whether the configuration says nothing of where `service` is. Under discovery by Redis its default is not dialled.
pub(crate) fn is_unlisted(peers: &[String], service: Service) -> bool {
    peers == listed_at(&Peers::default(), service)
}

/// Where `service` is, as the configuration lists it. The gateway is called by nobody.
fn listed_at(peers: &Peers, service: Service) -> &[String] {
    match service {
        Service::PhpPool => &peers.php_pool,
        Service::Balancer => &peers.balancer,
        Service::Cache => &peers.cache,
        Service::Metrics => &peers.metrics,
        Service::Gateway => &[],
    }
}

/// What a thread of the balancer serves to gateways.
pub(super) fn balancer_services(relay: Port<Invoke>, surveyor: Surveyor) -> Served {
    Served::new().with(relay).with(Port::<Survey>::inline(Rc::new(surveyor)))
}

/// What a thread of the php-pool serves to balancers.
pub(super) fn php_services(pools: &PhpPools, index: usize) -> Served {
    let php = pools.on_thread(index);
    let served = Served::new().with(Port::<Invoke>::inline(php.clone())).with(Port::<Report>::inline(php.clone()));
    served.with(Port::<Operate>::inline(php))
}

/// What a thread of the cache service serves to gateways.
pub(super) fn cache_services(faces: &Faces) -> Served {
    let served = Served::new().with(Port::inline(faces.lookup())).with(Port::inline(faces.store()));
    let served = served.with(Port::inline(faces.lease())).with(Port::inline(faces.purge()));
    served.with(Port::inline(faces.watch()))
}

/// What a thread of the metrics service serves: snapshots to everyone, the dashboard to gateways that show it.
pub(super) fn metrics_services(
    snapshots: Rc<dyn troupe_mesh::port::Service<Snapshot>>,
    dashboard: Rc<dyn troupe_mesh::port::Service<Invoke>>,
) -> Served {
    Served::new().with(Port::inline(snapshots)).with(Port::inline(dashboard))
}

/// The instances that `links` lead to, as the balancer wants them, now and as they change.
fn as_workers(links: &Pool) -> watch::Receiver<Arc<[Instance]>> {
    let read = |instances: &[troupe_mesh::pool::Instance]| {
        let worker = |instance: &troupe_mesh::pool::Instance| {
            Instance::new(InstanceId::new(instance.uid.to_string()), Arc::clone(&instance.name))
        };
        instances.iter().map(worker).collect::<Arc<[_]>>()
    };
    let mut source = links.instances();
    let (target, workers) = watch::channel(read(&source.borrow_and_update()));
    actix_rt::spawn(async move {
        while source.changed().await.is_ok() {
            let now = read(&source.borrow_and_update());
            if target.send(now).is_err() {
                return;
            }
        }
    });
    workers
}

/// The uid behind an id of [`as_workers`], whether its instance is listed now or not: a port that is made while a link is
/// down must be the right one when it is up again. Of another id, a uid that nobody has.
fn uid(id: &InstanceId) -> Uid {
    id.as_str().parse().unwrap_or(Uid([0; 16]))
}

/// Readiness depends on a link to `service` while it is `wanted`: otherwise nobody has to be there to be linked to.
fn watch_links(links: &Pool, service: Service, mut wanted: watch::Receiver<bool>, readiness: &Readiness) {
    let reason = format!("no link to a {} is up", service.name());
    let condition = readiness.condition(service.name(), &reason);
    let mut instances = links.instances();
    actix_rt::spawn(async move {
        loop {
            let is_linked = !instances.borrow_and_update().is_empty();
            if is_linked || !*wanted.borrow_and_update() {
                condition.met()
            } else {
                condition.unmet(&reason)
            }
            let changed = tokio::select! {
                changed = instances.changed() => changed,
                changed = wanted.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    });
}

/// The pre-shared key: the file's bytes without surrounding white space.
fn keys(config: &Config) -> Result<Keys, CommandError> {
    let MeshConfig { key_file, second_key_file, .. } = &config.mesh;
    match (key("mesh.key_file", key_file)?, key("mesh.second_key_file", second_key_file)?) {
        (Some(first), second) => Ok(Keys::new(first, second)),
        (None, None) => Ok(Keys::none()),
        (None, Some(_)) => {
            let message =
                "mesh.second_key_file is set and mesh.key_file is not: the first is what this process shows to others";
            Err(CommandError::new(Code::Configuration, message))
        }
    }
}

fn key(name: &str, path: &Path) -> Result<Option<Key>, CommandError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let wrong =
        |why: String| CommandError::new(Code::Configuration, format!("{name}: cannot use {}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    Key::new(bytes.trim_ascii()).map(Some).map_err(|error| wrong(error.to_string()))
}

/// What people know this process by: `php-pool@host:4711`. In containers the process id is the same everywhere.
fn instance_name(services: Services) -> String {
    let service = services.only().map_or("troupe", Service::name);
    format!("{service}@{}:{}", telemetry::host(), std::process::id())
}

fn no_random(error: io::Error) -> CommandError {
    CommandError::failed(format!("the kernel gives no random bytes: {error}"))
}
