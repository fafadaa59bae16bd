//! What a running process answers to the commands: registered with the admin listener once its services stand.
//!
//! Everything here is held weakly: who asks keeps no service alive.

mod counts;
mod explain;
mod linked;
mod orders;
mod reconfigure;
mod renewals;
mod status;
mod surveys;
mod taking;
mod workers;

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;
use troupe_balancer::Balancer;
use troupe_balancer::upstream::Upstreams;
use troupe_gateway::Insight;
use troupe_gateway::explain::Explanation;
use troupe_node::admin::{Api, Refusal};
use troupe_node::metrics::Metrics;
use troupe_node::notices::Notices;
use troupe_php_pool::PhpPools;

pub(super) use linked::Linked;
pub(super) use orders::{Orders, carry_out};
pub(crate) use reconfigure::{Reconfigure, on_signal};
pub(super) use surveys::{Surveys, pass_on};

use super::{Node, Stack};
use crate::config::Config;

/// What the endpoints read.
#[derive(Clone)]
struct Face {
    config: Arc<ArcSwap<Config>>,
    /// What this instance is known by: its name, and the id that tells those of one name apart.
    known_as: [Arc<str>; 2],
    insight: Option<Insight>,
    balancer: Option<Weak<Balancer>>,
    upstreams: Option<Weak<Upstreams>>,
    php: Option<Weak<PhpPools>>,
    linked: Linked,
    orders: Option<Orders>,
    surveys: Option<Surveys>,
    /// Whether the configuration has pools of PHP, for who watches the links to them.
    wants_php: watch::Sender<bool>,
    notices: Notices,
    metrics: Metrics,
}

/// What this process is known by, and how the commands reach beyond it.
pub(super) struct Reach {
    /// What this instance is known by: its name, and the id that tells those of one name apart.
    pub(super) known_as: [Arc<str>; 2],
    pub(super) linked: Linked,
    pub(super) orders: Option<Orders>,
    pub(super) surveys: Option<Surveys>,
    /// Whether the configuration has pools of PHP, for who watches the links to them.
    pub(super) wants_php: watch::Sender<bool>,
}

/// Registers what the services of `stack` answer.
pub(super) fn register(api: &Api, config: &Config, stack: &Stack, node: &Node, reach: Reach) {
    let Reach { known_as, linked, orders, surveys, wants_php } = reach;
    let face = Face {
        config: Arc::new(ArcSwap::from_pointee(config.clone())),
        known_as,
        insight: stack.gateway.as_ref().map(troupe_gateway::Running::insight),
        balancer: stack.balancer.as_ref().map(Arc::downgrade),
        upstreams: stack.upstreams.as_ref().map(Arc::downgrade),
        php: stack.php.as_ref().map(Arc::downgrade),
        linked,
        orders,
        surveys,
        wants_php,
        notices: node.notices.clone(),
        metrics: node.metrics.clone(),
    };
    status::register(api, &face);
    workers::register(api, &face);
    renewals::register(api, &face);
    explain::register(api, &face);
    let tuner = stack.gateway.as_ref().map(troupe_gateway::Running::tuner);
    reconfigure::register(api, &face, tuner, &node.reconfigure);
}

/// The explanation of a request with what the configuration says of it, where nothing runs.
pub(crate) fn explained(explained: &Explanation, config: &Config) -> Value {
    explain::whole(explained, config, Value::Null)
}

impl Face {
    fn balancer(&self) -> Result<Arc<Balancer>, Refusal> {
        let balancer = self.balancer.as_ref().ok_or_else(no_balancer)?;
        balancer.upgrade().ok_or_else(stopping)
    }

    /// The pool of this php-pool that `wanted` names: `pool`, or `pool/worker` with this instance as the worker.
    fn own_pool<'a>(&self, wanted: &'a str) -> Result<&'a str, Refusal> {
        let Some((pool, worker)) = wanted.split_once('/') else { return Ok(wanted) };
        if self.known_as.iter().any(|known| **known == *worker) {
            return Ok(pool);
        }
        let [name, _] = &self.known_as;
        let why = format!(
            "{worker} is not this php-pool, which is {name}: write {pool} for this one, or ask a balancer for the other"
        );
        Err(Refusal::new(404, why))
    }
}

fn no_gateway() -> Refusal {
    Refusal::new(404, "no gateway runs in this process: ask one (--service gateway, or --admin URL)")
}

fn no_balancer() -> Refusal {
    Refusal::new(404, "no balancer runs in this process: ask one (--service balancer, or --admin URL)")
}

fn stopping() -> Refusal {
    Refusal::new(503, "the process is about to stop")
}
