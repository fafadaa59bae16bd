//! The services of one process, put together: who calls whom, on which threads, and how they end.
//!
//! A service is reached by a function call where it is in this process and by links where it is not; which of the two is
//! decided here and nowhere else. The threads that take requests (the gateway's, else those that serve links) are the
//! threads on which everything behind them runs.

mod apart;
mod caching;
pub(crate) mod face;
mod failures;
mod here;
mod reporting;
pub(crate) mod supervision;
mod troubles;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use troupe_balancer::upstream::Upstreams;
use troupe_balancer::{Balancer, Surveyor};
use troupe_contracts::invoke::Invoke;
use troupe_gateway::cache::cdn::Cdn;
use troupe_gateway::cache::l2::PortsFactory;
use troupe_gateway::cache::{self, Cache};
use troupe_gateway::{Gateway, PortFactory, Running};
use troupe_mesh::discovery::{Discovery, Membership};
use troupe_mesh::link::Services as LinkServices;
use troupe_mesh::listener::MeshListener;
use troupe_mesh::port::Port;
use troupe_metrics::MetricsService;
use troupe_node::admin::{Access, Api, Readiness};
use troupe_node::metrics::Metrics;
use troupe_node::notices::Notices;
use troupe_node::shutdown::Shutdown;
use troupe_node::threads::{self, DataThreads, Pinning, Registration, Watchdog};
use troupe_php_pool::PhpPools;

use crate::config::Config;
use crate::failure::{Code, CommandError};
use crate::services::{Service, Services};
use apart::Apart;
pub(crate) use apart::{dialled, is_unlisted};
use caching::Caching;
use face::{Orders, Reconfigure, Surveys};
use reporting::Reporting;

/// How often a drain looks whether the last call is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);
/// How long threads may take to end once nothing is left to do.
const THREADS_END: Duration = Duration::from_secs(1);

/// Makes a thread's port to whoever answers `Invoke` next, given the thread's index.
type Ports = Arc<dyn Fn(usize) -> Port<Invoke> + Send + Sync>;

/// A gateway's ways to others.
struct Ways {
    workers: Ports,
    dashboard: Option<Ports>,
}

/// Services that run in this process.
pub(crate) struct Stack {
    gateway: Option<Running>,
    balancer: Option<Arc<Balancer>>,
    upstreams: Option<Arc<Upstreams>>,
    php: Option<Arc<PhpPools>>,
    metrics: Option<MetricsService>,
    caching: Option<Caching>,
    reporting: Option<Reporting>,
    served: Vec<Served>,
    watched: Vec<Registration>,
    /// Where peers are; a source that is dropped tells of no change.
    sources: Vec<Box<dyn Discovery>>,
    /// Where this process is registered, if it is.
    membership: Option<Rc<Membership>>,
}

/// What the services of a process share.
pub(crate) struct Node {
    /// Whether traffic should be sent here.
    pub(crate) readiness: Readiness,
    /// Whether the threads answer.
    pub(crate) watchdog: Watchdog,
    /// What they count.
    pub(crate) metrics: Metrics,
    /// What is wrong until it is mended.
    pub(crate) notices: Notices,
    /// Who may see the admin pages, whoever shows them.
    pub(crate) access: Access,
    /// How the configuration is read anew.
    pub(crate) reconfigure: Reconfigure,
}

/// A service that is called over links, with the threads it runs on.
struct Served {
    service: Service,
    listener: MeshListener,
    threads: DataThreads<()>,
}

impl Stack {
    /// Starts `services`, callees before their callers; `metrics` is the metrics service, which runs already.
    pub(crate) async fn start(
        config: &Config,
        services: Services,
        node: &Node,
        metrics: Option<MetricsService>,
        api: &Api,
    ) -> Result<Self, CommandError> {
        let Node { readiness, watchdog, .. } = node;
        let count = threads::count(config.node.threads);
        let pinning = Pinning::from(&config.node.pin);
        let mut apart = Apart::new(config, services, count)?;
        let mut stack = Self {
            gateway: None,
            balancer: None,
            upstreams: None,
            php: None,
            metrics: None,
            caching: None,
            reporting: None,
            served: Vec::new(),
            watched: Vec::new(),
            sources: Vec::new(),
            membership: None,
        };
        if services.contains(Service::PhpPool) {
            let php = here::start_php(config, count)?;
            for (pool, reason) in php.booted().await {
                tracing::error!(pool, reason, "a php pool did not boot; it answers 503 and tries again");
            }
            if services.accepts_links(Service::PhpPool) {
                let pools = Arc::clone(&php);
                let serve = move |index| apart::php_services(&pools, index);
                stack.serve(Service::PhpPool, config, &apart, (count, &pinning), serve).await?;
            }
            stack.php = Some(php);
        }
        let mut next: Option<Ports> = None;
        if services.contains(Service::Balancer) {
            let upstreams = Upstreams::start(&config.upstream, count)
                .map_err(|error| CommandError::new(Code::Configuration, format!("upstream: {error}")))?;
            let (balancer, ports) = match &stack.php {
                Some(php) => here::start_balancer(config, count, php, &upstreams),
                None => apart.start_balancer(config, count, readiness, &upstreams)?,
            };
            let relay: Ports = {
                let (balancer, wiring) = (Arc::clone(&balancer), config.mesh.wiring);
                Arc::new(move |index| here::relay_port(&balancer, wiring, index, &ports))
            };
            if services.accepts_links(Service::Balancer) {
                let relay = Arc::clone(&relay);
                let surveyor = Surveyor::new(&balancer, apart.instance().1);
                let serve = move |index| apart::balancer_services(relay(index), surveyor.clone());
                stack.serve(Service::Balancer, config, &apart, (count, &pinning), serve).await?;
            }
            (stack.balancer, stack.upstreams) = (Some(balancer), Some(upstreams));
            next = Some(relay);
        }
        let mut caching = Caching::prepare(config, services, apart.instance().0.0)?;
        if let Some(service) = caching.service().filter(|_| services.accepts_links(Service::Cache)) {
            let service = service.clone();
            let serve = move |_| apart::cache_services(&service.on_thread());
            stack.serve(Service::Cache, config, &apart, (count, &pinning), serve).await?;
        }
        if services.contains(Service::Gateway) {
            let ports = match next {
                Some(ports) => ports,
                None => apart.balancer_ports(config, readiness)?,
            };
            let (cache, l2) = caching.start_gateway(config, services, &mut apart).await?;
            if let Some(cache) = &cache {
                cache::admin::register(api, cache, cdn(config)?);
            }
            let dashboard = match (config.gateway.dashboard, &metrics) {
                (false, _) => None,
                (true, Some(metrics)) => {
                    let faces = metrics.dashboards(&node.access, config.node.development);
                    Some(Arc::new(move |_| Port::inline(faces())) as Ports)
                }
                (true, None) => apart.dashboard_ports(config)?,
            };
            let ways = Ways { workers: ports, dashboard };
            stack.gateway =
                Some(start_gateway((config, services), (count, &pinning), ways, watchdog.clone(), (cache, l2))?);
        } else if let Some(service) = caching.service() {
            cache::admin::register_service(api, service, cdn(config)?);
        }
        stack.watched.extend(caching.watch(watchdog));
        stack.caching = Some(caching);
        if let Some(metrics) = &metrics
            && services.accepts_links(Service::Metrics)
        {
            let faces = metrics.faces();
            let dashboards = metrics.dashboards(&node.access, config.node.development);
            let serve = move |_| apart::metrics_services(faces(), dashboards());
            stack.serve(Service::Metrics, config, &apart, (1, &Pinning::Off), serve).await?;
        }
        stack.watched.extend(metrics.iter().flat_map(|metrics| metrics.watch(watchdog)));
        stack.reporting = reporting::start(config, services, &mut apart, node, (metrics.as_ref(), &stack, api)).await?;
        stack.metrics = metrics;
        for served in &stack.served {
            stack.watched.extend(served.threads.watch(watchdog));
        }
        let here = stack.php.as_ref().map(|php| Orders::Here(Arc::downgrade(php)));
        let (peers, orders) = (apart.linked(), here.or_else(|| apart.orders()));
        let own = stack.balancer.as_ref().map(|balancer| Surveys::Here(Surveyor::new(balancer, "")));
        let surveys = own.or_else(|| apart.surveys());
        let ways = (apart.instance(), peers, orders, surveys);
        face::register(api, config, &stack, node, ways, apart.wants_php());
        // Only now: whoever finds this process finds all of it.
        for served in &stack.served {
            apart.join(config, served.service, &served.listener)?;
        }
        let (sources, membership) = apart.into_sources();
        stack.sources = sources;
        stack.membership = membership.map(Rc::new);
        Ok(stack)
    }

    async fn serve(
        &mut self,
        service: Service,
        config: &Config,
        apart: &Apart,
        (count, pinning): (usize, &Pinning),
        services: impl Fn(usize) -> LinkServices + Clone + Send + 'static,
    ) -> Result<(), CommandError> {
        let listener = apart.listen(config, service)?;
        let setup = apart.callee(service);
        let acceptor = listener.acceptor();
        let init = move |index| {
            acceptor.serve(setup(services(index)));
            std::future::ready(())
        };
        let mut threads = threads::spawn_data_threads(service.name(), count, pinning, init).map_err(|error| {
            CommandError::failed(format!("cannot start the threads of {}: {error}", service.name()))
        })?;
        for outcome in threads.ready().await {
            outcome.map_err(|error| CommandError::failed(error.to_string()))?;
        }
        self.served.push(Served { service, listener, threads });
        Ok(())
    }

    /// Where the services listen, for the ready line.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let gateway = self.gateway.iter().flat_map(Running::addresses).map(|address| format!("http://{address}"));
        let served =
            self.served.iter().map(|served| format!("{} {}", served.service.name(), served.listener.address()));
        gateway.chain(served).collect()
    }

    /// Has `shutdown` end the services, callers before their callees, so that nothing in flight loses its way.
    pub(crate) fn drain_with(self, shutdown: &mut Shutdown) {
        let Self {
            gateway,
            balancer,
            upstreams,
            php,
            metrics,
            caching,
            reporting,
            served,
            watched,
            sources,
            membership,
        } = self;
        // Callers without a link are told here, those with one by the links.
        if let Some(membership) = membership.clone() {
            shutdown.on_begin(move || membership.drain());
        }
        if let Some(gateway) = gateway {
            let insight = gateway.insight();
            // Ahead of the last snapshot, which tells what is lost.
            shutdown.last("access log", move |_| async move {
                insight.logged().await;
                true
            });
            let gateway = Rc::new(gateway);
            let unready = Rc::clone(&gateway);
            shutdown.on_begin(move || unready.unready());
            shutdown.stage("gateway", move |deadline| async move {
                // The other handle is gone: what begins the shutdown has run.
                let Ok(gateway) = Rc::try_unwrap(gateway) else { return false };
                let drained = gateway.drain(deadline.saturating_duration_since(Instant::now())).await;
                if drained.cut_off > 0 {
                    tracing::warn!(
                        connections = drained.cut_off,
                        "connections were still busy when the drain's time was up"
                    );
                }
                drained.cut_off == 0
            });
        }
        // Balancers elsewhere take their calls to other instances; one of this process has no other, and its calls that
        // wait are finished first.
        if let Some(php) = php.clone().filter(|_| balancer.is_none()) {
            shutdown.on_begin(move || php.drain());
        }
        if let Some(membership) = membership.clone() {
            shutdown.stage("membership", move |_| async move {
                membership.leave().await;
                true
            });
        }
        let mut all_threads = Vec::new();
        for Served { service, listener, threads } in served {
            let watched = caching.as_ref().and_then(Caching::service).filter(|_| service == Service::Cache).cloned();
            shutdown.stage(service.name(), move |_| async move {
                listener.drain("the instance stops");
                if let Some(cache) = watched {
                    cache.end_watches();
                }
                listener.drained().await;
                true
            });
            all_threads.push(threads);
        }
        if let Some(balancer) = balancer {
            shutdown.stage("calls", move |_| async move {
                while balancer.busy() != (0, 0) {
                    tokio::time::sleep(DRAIN_POLL).await;
                }
                true
            });
        }
        shutdown.last("metrics", move |_| async move {
            if let Some(reporting) = reporting {
                reporting.leave().await;
            }
            if let Some(metrics) = metrics {
                metrics.stop(THREADS_END).await;
            }
            true
        });
        shutdown.last("threads", move |_| async move {
            drop((watched, sources, membership, upstreams));
            if let Some(caching) = caching {
                caching.stop().await;
            }
            for threads in all_threads {
                threads.stop_and_join(THREADS_END).await;
            }
            true
        });
        if let Some(php) = php {
            shutdown.last("php processes", move |_| async move {
                php.stop().await;
                true
            });
        }
    }
}

/// Whom purges are told beyond Troupe.
fn cdn(config: &Config) -> Result<Option<Arc<Cdn>>, CommandError> {
    Cdn::start(&config.cache.cdn).map_err(|why| CommandError::new(Code::Configuration, why))
}

fn start_gateway(
    (config, services): (&Config, Services),
    (count, pinning): (usize, &Pinning),
    ways: Ways,
    watchdog: Watchdog,
    (cache, l2): (Option<Arc<Cache>>, Option<PortsFactory>),
) -> Result<Running, CommandError> {
    let cores = pinning.plan(count).map_err(|error| CommandError::new(Code::Configuration, error.to_string()))?;
    let (development, log_format, log_origin) = (config.node.development, config.log.format, services.origin());
    let Ways { workers: ports, dashboard } = ways;
    let warm = config.cache.warm.clone();
    let options = troupe_gateway::Options {
        threads: count,
        development,
        cache,
        dashboard,
        l2,
        warm,
        log_format,
        log_origin,
        log_to: None,
    };
    // Called once on each HTTP thread, whose event loop drops the registration when it ends.
    let ports: PortFactory = Arc::new(move |index| {
        threads::pin_current(cores.get(index).copied().flatten());
        let registration = watchdog.register_current(&format!("gateway-{index}"));
        actix_rt::spawn(async move {
            std::future::pending::<()>().await;
            drop(registration);
        });
        ports(index)
    });
    Gateway::bind(config.gateway.clone(), &config.routes, options, ports).map_err(|error| failures::bind(&error))
}
