//! Services that are in this process.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use troupe_balancer::Balancer;
use troupe_balancer::instances::{InstanceId, only_local};
use troupe_balancer::upstream::Upstreams;
use troupe_contracts::invoke::{Invoke, upstream_pool};
use troupe_mesh::contract::Contract;
use troupe_mesh::port::{Port, Service};
use troupe_mesh::wiring::Wiring;
use troupe_node::config::QueueConfig;
use troupe_php_pool::{Options, PhpPools};

use super::failures;
use crate::config::Config;
use crate::failure::CommandError;

/// Makes, on a thread, what resolves php-pool instances to that thread's ports.
pub(super) type Resolvers = Arc<dyn Fn(usize) -> Box<dyn Fn(&InstanceId) -> Port<Invoke>> + Send + Sync>;

/// Starts the PHP pools for `threads` calling threads.
pub(super) fn start_php(config: &Config, threads: usize) -> Result<Arc<PhpPools>, CommandError> {
    let options = Options { threads, development: config.node.development };
    PhpPools::start(&config.php, options).map_err(|error| failures::php(&error))
}

/// Starts the balancer in front of the pools of this process and of upstream servers.
pub(super) fn start_balancer(
    config: &Config,
    threads: usize,
    php: &Arc<PhpPools>,
    upstreams: &Arc<Upstreams>,
) -> (Arc<Balancer>, Resolvers) {
    let reports = php.on_thread(0);
    let reports = upstreams.reports(move |_| Port::inline(Rc::clone(&reports) as Rc<dyn Service<_>>));
    let instances = upstreams.instances_beside(only_local());
    let (queues, wait) = (queues(config), config.mesh.connect_wait);
    let balancer = Balancer::start(&config.balancer, &queues, threads, wait, instances, reports);
    let (php, wiring, upstreams) = (Arc::clone(php), config.mesh.wiring, Arc::clone(upstreams));
    let resolvers: Resolvers = Arc::new(move |index| {
        let service: Rc<dyn Service<Invoke>> = php.on_thread(index);
        Box::new(upstreams.resolver(index, move |_| wired(wiring, Rc::clone(&service))))
    });
    (balancer, resolvers)
}

/// The calling thread's port to the balancer of this process.
pub(super) fn relay_port(balancer: &Balancer, wiring: Wiring, index: usize, resolvers: &Resolvers) -> Port<Invoke> {
    wired::<Invoke>(wiring, balancer.on_thread(index, resolvers(index)))
}

/// The bounds of each pool's queue.
pub(super) fn queues(config: &Config) -> BTreeMap<String, QueueConfig> {
    let php = config.php.iter().map(|(pool, config)| (pool.clone(), config.queue));
    php.chain(config.upstream.iter().map(|(group, config)| (upstream_pool(group), config.queue))).collect()
}

/// A port to a service of this thread, as services of one process are wired.
pub(super) fn wired<C: Contract>(wiring: Wiring, service: Rc<dyn Service<C>>) -> Port<C> {
    wiring.port(Rc::clone(&service)).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot wire the services as configured; they call each other inline");
        Port::inline(service)
    })
}
