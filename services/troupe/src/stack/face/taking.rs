//! A configuration takes the place of another one, in an order in which no request finds a gap: what routes lead to is there
//! before they do, and goes after they do not any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use troupe_balancer::Balancer;
use troupe_balancer::upstream::Upstreams;
use troupe_balancer::upstream::config::UpstreamConfig;
use troupe_gateway::Tuner;

use super::Face;
use crate::config::Config;
use crate::stack::here;

/// How long what routes no longer lead to stays: requests that were routed before may still be on their way to it.
const LINGER: Duration = Duration::from_secs(1);

/// What takes parts of a configuration, as far as it is in this process.
pub(super) struct Takers {
    balancer: Option<Arc<Balancer>>,
    upstreams: Option<Arc<Upstreams>>,
    tuner: Option<Tuner>,
}

impl Takers {
    /// Those that run. What is about to stop takes nothing.
    pub(super) fn of(face: &Face, tuner: Option<&Tuner>) -> Self {
        Self {
            balancer: face.balancer.as_ref().and_then(Weak::upgrade),
            upstreams: face.upstreams.as_ref().and_then(Weak::upgrade),
            tuner: tuner.cloned(),
        }
    }

    /// Has `new`, whose rules are checked, take the place of `old`.
    ///
    /// # Errors
    /// What does not work of it; `old` goes on whole.
    pub(super) async fn take(&self, old: &Config, new: &Config) -> Result<(), String> {
        let retune = |to: &Config| match &self.balancer {
            Some(balancer) => balancer.retune(&to.balancer, &here::queues(to)).map_err(|error| error.to_string()),
            None => Ok(()),
        };
        retune(new)?;
        let mut both = new.upstream.clone();
        for (name, group) in &old.upstream {
            both.entry(name.clone()).or_insert_with(|| group.clone());
        }
        let leaves = both.len() > new.upstream.len();
        let routed = async {
            self.serve(both).await?;
            match &self.tuner {
                // The rules have let the routes pass: the router says the same.
                Some(tuner) => tuner
                    .reload(&new.routes, &new.gateway)
                    .map_err(|problems| format!("{} routes do not fit together", problems.len())),
                None => Ok(()),
            }
        };
        if let Err(why) = routed.await {
            // It worked before.
            let _ = (retune(old), self.serve(old.upstream.clone()).await);
            return Err(why);
        }
        if leaves {
            tokio::time::sleep(LINGER).await;
            if let Err(error) = self.serve(new.upstream.clone()).await {
                tracing::warn!(error, "upstreams that are no longer configured stay until the next reload");
            }
        }
        Ok(())
    }

    async fn serve(&self, groups: BTreeMap<String, UpstreamConfig>) -> Result<(), String> {
        match &self.upstreams {
            Some(upstreams) => upstreams.reload(groups).await.map_err(|error| error.to_string()),
            None => Ok(()),
        }
    }
}
