//! A configuration takes the place of another one, in an order in which no request finds a gap: everything that may fail comes
//! first; what routes lead to is there before they do, and goes after they do not any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use troupe_balancer::Balancer;
use troupe_balancer::upstream::Upstreams;
use troupe_balancer::upstream::config::UpstreamConfig;
use troupe_gateway::Tuner;
use troupe_php_pool::PhpPools;

use super::Face;
use crate::config::Config;
use crate::stack::here;

/// How long upstreams to which routes no longer lead stay: requests that were routed before may still be on their way.
const LINGER: Duration = Duration::from_secs(1);

/// What takes parts of a configuration, as far as it is in this process.
pub(super) struct Takers {
    balancer: Option<Arc<Balancer>>,
    upstreams: Option<Arc<Upstreams>>,
    php: Option<Arc<PhpPools>>,
    tuner: Option<Tuner>,
}

impl Takers {
    /// Those that run. What is about to stop takes nothing.
    pub(super) fn of(face: &Face, tuner: Option<&Tuner>) -> Self {
        Self {
            balancer: face.balancer.as_ref().and_then(Weak::upgrade),
            upstreams: face.upstreams.as_ref().and_then(Weak::upgrade),
            php: face.php.as_ref().and_then(Weak::upgrade),
            tuner: tuner.cloned(),
        }
    }

    /// Has `new`, whose rules are checked, take the place of `old`.
    ///
    /// # Errors
    /// What does not work of it; `old` goes on whole.
    pub(super) async fn take(&self, old: &Config, new: &Config) -> Result<(), String> {
        let routes = match &self.tuner {
            // The rules have let them pass: the router says the same.
            Some(tuner) => Some(tuner.prepare(&new.routes).map_err(|problems| {
                let first = problems.first().map(|problem| problem.what.clone()).unwrap_or_default();
                format!("routes do not fit together: {first}")
            })?),
            None => None,
        };
        let pools = match &self.php {
            Some(php) => Some(php.prepare(&new.php).await.map_err(|error| error.to_string())?),
            None => None,
        };
        self.retune(new)?;
        let mut both = new.upstream.clone();
        for (name, group) in &old.upstream {
            both.entry(name.clone()).or_insert_with(|| group.clone());
        }
        let leaves = both.len() > new.upstream.len();
        if let Err(why) = self.serve(both).await {
            // That worked before.
            let _ = self.retune(old);
            return Err(why);
        }
        // Nothing fails from here on.
        if let (Some(php), Some(pools)) = (&self.php, pools) {
            php.commit(pools);
        }
        if let Some(balancer) = &self.balancer {
            balancer.look();
        }
        if let (Some(tuner), Some(routes)) = (&self.tuner, routes) {
            tuner.take(routes, &new.gateway);
        }
        if let Some(php) = &self.php {
            // The balancer of this process has nobody else for calls that wait: they are finished first.
            php.retire(self.balancer.is_none());
        }
        if leaves {
            tokio::time::sleep(LINGER).await;
            if let Err(error) = self.serve(new.upstream.clone()).await {
                tracing::warn!(error, "upstreams that are no longer configured stay until the next reload");
            }
        }
        Ok(())
    }

    fn retune(&self, to: &Config) -> Result<(), String> {
        match &self.balancer {
            Some(balancer) => balancer.retune(&to.balancer, &here::queues(to)).map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }

    async fn serve(&self, groups: BTreeMap<String, UpstreamConfig>) -> Result<(), String> {
        match &self.upstreams {
            Some(upstreams) => upstreams.reload(groups).await.map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }
}
