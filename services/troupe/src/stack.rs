//! The services of one process, put together: who calls whom, on which threads, and how they end.
//!
//! A service is reached by a function call where it is in this process and by links where it is not; which of the two is
//! decided here and nowhere else. The threads that take requests (the gateway's, else those that serve links) are the
//! threads on which everything behind them runs.

mod apart;
mod caching;
mod drain;
pub(crate) mod face;
mod failures;
mod here;
mod reporting;
mod start;
pub(crate) mod supervision;
mod troubles;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use troupe_balancer::Balancer;
use troupe_balancer::upstream::Upstreams;
use troupe_contracts::invoke::Invoke;
use troupe_gateway::Running;
use troupe_mesh::discovery::{Discovery, Membership};
use troupe_mesh::listener::MeshListener;
use troupe_mesh::port::Port;
use troupe_metrics::MetricsService;
use troupe_node::admin::{Access, Readiness};
use troupe_node::metrics::Metrics;
use troupe_node::notices::Notices;
use troupe_node::threads::{DataThreads, Registration, Watchdog};
use troupe_php_pool::PhpPools;

use crate::services::Service;
pub(crate) use apart::{dialled, is_unlisted};
use caching::Caching;
use face::Reconfigure;
use reporting::Reporting;

/// How long threads may take to end once nothing is left to do.
const THREADS_END: Duration = Duration::from_secs(1);

/// Makes a thread's port to whoever answers `Invoke` next, given the thread's index.
type Ports = Arc<dyn Fn(usize) -> Port<Invoke> + Send + Sync>;

/// Services that run in this process.
#[derive(Default)]
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
    /// Where the services listen, for the ready line.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let gateway = self.gateway.iter().flat_map(Running::addresses).map(|address| format!("http://{address}"));
        let served =
            self.served.iter().map(|served| format!("{} {}", served.service.name(), served.listener.address()));
        gateway.chain(served).collect()
    }
}
