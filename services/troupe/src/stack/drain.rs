//! Ending the services of a process, callers before their callees.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use troupe_node::shutdown::Shutdown;

use super::caching::Caching;
use super::{Served, Stack, THREADS_END};
use crate::services::Service;

/// How often a drain looks whether the last call is done.
const DRAIN_POLL: Duration = Duration::from_millis(10);

impl Stack {
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
