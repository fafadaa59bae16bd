//! Starting the services of a process, callees before their callers.

use std::rc::Rc;
use std::sync::Arc;

use troupe_balancer::Surveyor;
use troupe_balancer::upstream::Upstreams;
use troupe_gateway::cache::cdn::Cdn;
use troupe_gateway::cache::l2::PortsFactory;
use troupe_gateway::cache::{self, Cache};
use troupe_gateway::{Gateway, PortFactory, Running};
use troupe_mesh::link::Services as LinkServices;
use troupe_mesh::port::Port;
use troupe_metrics::MetricsService;
use troupe_node::admin::Api;
use troupe_node::threads::{self, Pinning};

use super::apart::{self, Apart};
use super::caching::Caching;
use super::face::{self, Orders, Reach, Surveys};
use super::{Node, Ports, Served, Stack, failures, here, reporting};
use crate::config::Config;
use crate::failure::{Code, CommandError};
use crate::services::{Service, Services};

/// A start under way. Its steps are called in the order in which they stand here.
pub(super) struct Start<'a> {
    pub(super) config: &'a Config,
    pub(super) services: Services,
    pub(super) node: &'a Node,
    pub(super) api: &'a Api,
    /// How many threads take requests.
    threads: usize,
    pub(super) apart: Apart,
    pub(super) stack: Stack,
}

/// A gateway's ways to others.
struct Ways {
    workers: Ports,
    dashboard: Option<Ports>,
    /// To the cache's second tier.
    l2: Option<PortsFactory>,
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
        let threads = threads::count(config.node.threads);
        let apart = Apart::new(config, services, threads)?;
        let mut start = Start { config, services, node, api, threads, apart, stack: Self::default() };
        start.php_pool().await?;
        let relay = start.balancer().await?;
        let caching = start.cache().await?;
        start.gateway(relay, caching, metrics.as_ref()).await?;
        start.metrics(metrics).await?;
        start.answer_commands();
        // Last: whoever finds this process finds all of it.
        start.join()
    }
}

impl Start<'_> {
    async fn php_pool(&mut self) -> Result<(), CommandError> {
        if !self.services.contains(Service::PhpPool) {
            return Ok(());
        }
        let php = here::start_php(self.config, self.threads)?;
        for (pool, reason) in php.booted().await {
            tracing::error!(pool, reason, "a php pool did not boot; it answers 503 and tries again");
        }
        let pools = Arc::clone(&php);
        self.serve(Service::PhpPool, move |index| apart::php_services(&pools, index)).await?;
        self.stack.php = Some(php);
        Ok(())
    }

    /// Returns the way to it, where it is in this process.
    async fn balancer(&mut self) -> Result<Option<Ports>, CommandError> {
        let Self { config, threads, .. } = *self;
        if !self.services.contains(Service::Balancer) {
            return Ok(None);
        }
        let upstreams = Upstreams::start(&config.upstream, threads)
            .map_err(|error| CommandError::new(Code::Configuration, format!("upstream: {error}")))?;
        let (balancer, ports) = match &self.stack.php {
            Some(php) => here::start_balancer(config, threads, php, &upstreams),
            None => self.apart.start_balancer(config, threads, &self.node.readiness, &upstreams)?,
        };
        let relay: Ports = {
            let (balancer, wiring) = (Arc::clone(&balancer), config.mesh.wiring);
            Arc::new(move |index| here::relay_port(&balancer, wiring, index, &ports))
        };
        let served = Arc::clone(&relay);
        let surveyor = Surveyor::new(&balancer, self.apart.instance().1);
        let serve = move |index| apart::balancer_services(served(index), surveyor.clone());
        self.serve(Service::Balancer, serve).await?;
        (self.stack.balancer, self.stack.upstreams) = (Some(balancer), Some(upstreams));
        Ok(Some(relay))
    }

    async fn cache(&mut self) -> Result<Caching, CommandError> {
        let caching = Caching::prepare(self.config, self.services, self.apart.instance().0.0)?;
        if let Some(service) = caching.service().cloned() {
            self.serve(Service::Cache, move |_| apart::cache_services(&service.on_thread())).await?;
        }
        Ok(caching)
    }

    async fn gateway(
        &mut self,
        relay: Option<Ports>,
        mut caching: Caching,
        metrics: Option<&MetricsService>,
    ) -> Result<(), CommandError> {
        let Self { config, services, node, api, .. } = *self;
        if services.contains(Service::Gateway) {
            let workers = match relay {
                Some(ports) => ports,
                None => self.apart.balancer_ports(config, &node.readiness)?,
            };
            let (cache, l2) = caching.start_gateway(config, services, &mut self.apart).await?;
            if let Some(cache) = &cache {
                cache::admin::register(api, cache, cdn(config)?);
            }
            let dashboard = match metrics {
                _ if !config.gateway.dashboard => None,
                Some(metrics) => {
                    let faces = metrics.dashboards(&node.access, config.node.development);
                    Some(Arc::new(move |_| Port::inline(faces())) as Ports)
                }
                None => self.apart.dashboard_ports(config)?,
            };
            self.stack.gateway = Some(self.bind(Ways { workers, dashboard, l2 }, cache)?);
        } else if let Some(service) = caching.service() {
            cache::admin::register_service(api, service, cdn(config)?);
        }
        self.stack.watched.extend(caching.watch(&node.watchdog));
        self.stack.caching = Some(caching);
        Ok(())
    }

    fn bind(&self, ways: Ways, cache: Option<Arc<Cache>>) -> Result<Running, CommandError> {
        let Ways { workers, dashboard, l2 } = ways;
        let plan = self.pinning().plan(self.threads);
        let cores = plan.map_err(|error| CommandError::new(Code::Configuration, error.to_string()))?;
        let options = troupe_gateway::Options {
            threads: self.threads,
            development: self.config.node.development,
            cache,
            dashboard,
            l2,
            warm: self.config.cache.warm.clone(),
            log_format: self.config.log.format,
            log_origin: self.services.origin(),
            log_to: None,
        };
        let watchdog = self.node.watchdog.clone();
        // Called once on each HTTP thread, whose event loop drops the registration when it ends.
        let ports: PortFactory = Arc::new(move |index| {
            threads::pin_current(cores.get(index).copied().flatten());
            let registration = watchdog.register_current(&format!("gateway-{index}"));
            actix_rt::spawn(async move {
                std::future::pending::<()>().await;
                drop(registration);
            });
            workers(index)
        });
        let bound = Gateway::bind(self.config.gateway.clone(), &self.config.routes, options, ports);
        bound.map_err(|error| failures::bind(&error))
    }

    /// Has `metrics` heard by others, and starts to tell it, or whoever is it elsewhere, what happens here.
    async fn metrics(&mut self, metrics: Option<MetricsService>) -> Result<(), CommandError> {
        if let Some(metrics) = &metrics {
            let faces = metrics.faces();
            let dashboards = metrics.dashboards(&self.node.access, self.config.node.development);
            self.serve(Service::Metrics, move |_| apart::metrics_services(faces(), dashboards())).await?;
            self.stack.watched.extend(metrics.watch(&self.node.watchdog));
        }
        self.stack.reporting = reporting::start(self, metrics.as_ref()).await?;
        self.stack.metrics = metrics;
        Ok(())
    }

    fn answer_commands(&self) {
        let Self { stack, apart, .. } = self;
        let (uid, name) = apart.instance();
        let orders = stack.php.as_ref().map(|php| Orders::Here(Arc::downgrade(php)));
        let surveys = stack.balancer.as_ref().map(|balancer| Surveys::Here(Surveyor::new(balancer, "")));
        let reach = Reach {
            known_as: [name.into(), uid.to_string().into()],
            linked: apart.linked(),
            orders: orders.or_else(|| apart.orders()),
            surveys: surveys.or_else(|| apart.surveys()),
            wants_php: apart.wants_php(),
        };
        face::register(self.api, self.config, stack, self.node, reach);
    }

    fn join(self) -> Result<Stack, CommandError> {
        let Self { config, node, apart, mut stack, .. } = self;
        for served in &stack.served {
            stack.watched.extend(served.threads.watch(&node.watchdog));
            apart.join(config, served.service, &served.listener)?;
        }
        let (sources, membership) = apart.into_sources();
        stack.sources = sources;
        stack.membership = membership.map(Rc::new);
        Ok(stack)
    }

    /// Serves `services` to others, where `service` accepts links in this process.
    async fn serve(
        &mut self,
        service: Service,
        services: impl Fn(usize) -> LinkServices + Clone + Send + 'static,
    ) -> Result<(), CommandError> {
        if !self.services.accepts_links(service) {
            return Ok(());
        }
        // What the metrics service is told is little: one thread, wherever it is.
        let (count, pinning) = match service {
            Service::Metrics => (1, Pinning::Off),
            _ => (self.threads, self.pinning()),
        };
        let listener = self.apart.listen(self.config, service)?;
        let setup = self.apart.callee(service);
        let acceptor = listener.acceptor();
        let init = move |index| {
            acceptor.serve(setup(services(index)));
            std::future::ready(())
        };
        let mut threads = threads::spawn_data_threads(service.name(), count, &pinning, init).map_err(|error| {
            CommandError::failed(format!("cannot start the threads of {}: {error}", service.name()))
        })?;
        for outcome in threads.ready().await {
            outcome.map_err(|error| CommandError::failed(error.to_string()))?;
        }
        self.stack.served.push(Served { service, listener, threads });
        Ok(())
    }

    fn pinning(&self) -> Pinning {
        Pinning::from(&self.config.node.pin)
    }
}

/// Whom purges are told beyond Troupe.
fn cdn(config: &Config) -> Result<Option<Arc<Cdn>>, CommandError> {
    Cdn::start(&config.cache.cdn).map_err(|why| CommandError::new(Code::Configuration, why))
}
