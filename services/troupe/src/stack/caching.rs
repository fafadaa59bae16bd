//! The tiers of the cache in this process: the service, if it runs here, and the gateway's part in it.

use std::sync::Arc;

use parking_lot::Mutex;
use troupe_cache::service::config::SecondTier;
use troupe_cache::service::{CacheService, OpenError};
use troupe_contracts::cache::{Uid, lease::Lease, lookup::Lookup, purge::Purge, store::Store, watch::Watch};
use troupe_gateway::cache::Cache;
use troupe_gateway::cache::l2::{Orders, Ports, PortsFactory, Tier, WatchPorts, follow};
use troupe_mesh::wiring::Wiring;
use troupe_node::threads::{DataThreads, Pinning, Registration, Watchdog, spawn_data_threads};

use super::THREADS_END;
use super::apart::Apart;
use super::here::wired;
use crate::config::Config;
use crate::failure::{Code, CommandError};
use crate::redis;
use crate::services::{Service, Services};

/// What of the cache lives in this process beside the gateway's memory.
#[derive(Default)]
pub(super) struct Caching {
    service: Option<CacheService>,
    threads: Vec<DataThreads<()>>,
}

impl Caching {
    /// Makes the service, where it runs here.
    ///
    /// In one process with all services the embedded store would hold what the gateway's memory holds already: it is made only to be
    /// kept on disk, and otherwise the gateway's memory is the cache.
    pub(super) fn prepare(config: &Config, services: Services, me: Uid) -> Result<Self, CommandError> {
        let service = match config.cache.l2 {
            _ if !services.contains(Service::Cache) => None,
            SecondTier::Redis => Some(CacheService::in_redis(redis::open(&config.redis)?, me, &config.cache.store)),
            SecondTier::Off if services.is_apart() => {
                let message =
                    "cache.l2 is \"off\", and the cache service is to run: set it to \"embedded\" or \"redis\"";
                return Err(CommandError::new(Code::Configuration, message));
            }
            SecondTier::Embedded if services.is_apart() || config.cache.store.is_on_disk() => {
                Some(CacheService::embedded(&config.cache.store).map_err(no_file)?)
            }
            SecondTier::Off | SecondTier::Embedded => None,
        };
        let mut caching = Self { service, threads: Vec::new() };
        if let Some(service) = &caching.service {
            let service = service.clone();
            let threads = spawn_data_threads("cache", 1, &Pinning::Off, move |_| {
                actix_rt::spawn(service.clone().run());
                std::future::ready(())
            });
            caching.threads.push(threads.map_err(no_thread)?);
        }
        Ok(caching)
    }

    /// The service of this process.
    pub(super) fn service(&self) -> Option<&CacheService> {
        self.service.as_ref()
    }

    /// Makes the gateway's cache with all its tiers, and what makes its threads' ports to the second one.
    pub(super) async fn start_gateway(
        &mut self,
        config: &Config,
        services: Services,
        apart: &mut Apart,
    ) -> Result<(Option<Arc<Cache>>, Option<PortsFactory>), CommandError> {
        let (ports, watch_ports) = match (&self.service, config.cache.l2) {
            (Some(service), _) => here(service, config.mesh.wiring),
            (None, SecondTier::Embedded | SecondTier::Redis) if services.is_apart() => match there(config, apart)? {
                Some(ports) => ports,
                None => return Ok((Cache::new(&config.cache), None)),
            },
            (None, _) => return Ok((Cache::new(&config.cache), None)),
        };
        let (uid, name) = apart.instance();
        let (tier, orders) = Tier::new(uid.0, name, config.redis.timeout.get(), &config.cache);
        let Some(cache) = Cache::with_tier(&config.cache, Some(tier)) else { return Ok((None, None)) };
        self.follow(&cache, watch_ports, orders).await?;
        Ok((Some(cache), Some(ports)))
    }

    /// Starts to hear of purges, on a thread of its own.
    async fn follow(&mut self, cache: &Arc<Cache>, ports: MakeWatchPorts, orders: Orders) -> Result<(), CommandError> {
        let (cache, orders) = (Arc::clone(cache), Arc::new(Mutex::new(Some(orders))));
        let threads = spawn_data_threads("cache-watch", 1, &Pinning::Off, move |_| {
            if let Some(orders) = orders.lock().take() {
                actix_rt::spawn(follow(Arc::clone(&cache), ports(), orders));
            }
            std::future::ready(())
        });
        let mut threads = threads.map_err(no_thread)?;
        for outcome in threads.ready().await {
            outcome.map_err(|error| CommandError::failed(error.to_string()))?;
        }
        self.threads.push(threads);
        Ok(())
    }

    /// Has the watchdog look at its threads.
    pub(super) fn watch(&self, watchdog: &Watchdog) -> Vec<Registration> {
        self.threads.iter().flat_map(|threads| threads.watch(watchdog)).collect()
    }

    /// Ends it.
    pub(super) async fn stop(self) {
        if let Some(service) = &self.service {
            service.settle().await;
        }
        for threads in self.threads {
            threads.stop_and_join(THREADS_END).await;
        }
    }
}

type MakeWatchPorts = Arc<dyn Fn() -> WatchPorts + Send + Sync>;

/// Ports to the service of this process.
fn here(service: &CacheService, wiring: Wiring) -> (PortsFactory, MakeWatchPorts) {
    let (one, other) = (service.clone(), service.clone());
    let ports: PortsFactory = Arc::new(move |_| {
        let faces = one.on_thread();
        Ports {
            lookup: wired::<Lookup>(wiring, faces.lookup()),
            store: wired::<Store>(wiring, faces.store()),
            lease: wired::<Lease>(wiring, faces.lease()),
        }
    });
    let watch_ports: MakeWatchPorts = Arc::new(move || {
        let faces = other.on_thread();
        WatchPorts {
            watch: wired::<Watch>(wiring, faces.watch()),
            purge: wired::<Purge>(wiring, faces.purge()),
            lease: wired::<Lease>(wiring, faces.lease()),
            services: None,
        }
    });
    (ports, watch_ports)
}

/// Ports to the services elsewhere; `None` where there are none.
fn there(config: &Config, apart: &mut Apart) -> Result<Option<(PortsFactory, MakeWatchPorts)>, CommandError> {
    let Some(links) = apart.cache_links(config)? else { return Ok(None) };
    let (other, one_only) = (links.clone(), config.cache.l2 == SecondTier::Embedded);
    let ports: PortsFactory = Arc::new(move |_| {
        let links = links();
        Ports { lookup: links.port(), store: links.port(), lease: links.port() }
    });
    let watch_ports: MakeWatchPorts = Arc::new(move || {
        let links = other();
        let services = one_only.then(|| links.instances());
        WatchPorts { watch: links.port(), purge: links.port(), lease: links.port(), services }
    });
    Ok(Some((ports, watch_ports)))
}

fn no_file(error: OpenError) -> CommandError {
    let code = match &error {
        OpenError::Busy(_) => Code::TryAgain,
        OpenError::Failed(_) => Code::Failed,
    };
    CommandError::new(code, error.to_string())
}

fn no_thread(error: std::io::Error) -> CommandError {
    CommandError::failed(format!("cannot start a thread of the cache: {error}"))
}
