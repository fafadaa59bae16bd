//! What a stack of processes apart is made of.

use std::collections::BTreeMap;
use std::path::Path;

use super::Stack;
use crate::ports;

/// The services in the order in which they are started: callees before their callers.
const SERVICES: [&str; 5] = ["metrics", "cache", "php-pool", "balancer", "gateway"];
/// Those of which there is none unless a test asks for them.
const BESIDE: [&str; 2] = ["metrics", "cache"];

/// How many instances of each service there are, how they are linked, and what is special about one of them.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    counts: BTreeMap<&'static str, usize>,
    unix: bool,
    redis: Vec<String>,
    peers: bool,
    settings: Vec<(String, String)>,
    silent: bool,
}

impl Plan {
    /// One gateway, one balancer, one php-pool, linked over TCP.
    pub fn apart() -> Self {
        Self::default()
    }

    /// Two instances of `service`, which the services in front of it know both.
    #[must_use]
    pub fn two(self, service: &'static str) -> Self {
        self.several(service, 2)
    }

    /// So many instances of `service`.
    #[must_use]
    pub fn several(mut self, service: &'static str, count: usize) -> Self {
        self.counts.insert(service, count);
        self
    }

    /// The instances know nothing of each other: they register in the Redis at `url` and find each other there.
    #[must_use]
    pub fn through_redis(self, url: impl Into<String>) -> Self {
        self.through_redis_with([format!("redis.url={:?}", url.into())])
    }

    /// The same, with the settings that say where Redis is.
    #[must_use]
    pub fn through_redis_with(mut self, settings: impl IntoIterator<Item = String>) -> Self {
        self.redis = vec!["mesh.discovery=redis".to_owned()];
        self.redis.extend(settings);
        self
    }

    /// They know where the others are all the same.
    #[must_use]
    pub fn and_peers(mut self) -> Self {
        self.peers = true;
        self
    }

    /// A metrics service beside the others, which all of them know.
    #[must_use]
    pub fn with_metrics(mut self) -> Self {
        self.counts.insert("metrics", 1);
        self
    }

    /// A cache service, which the gateways know.
    #[must_use]
    pub fn with_cache(self) -> Self {
        self.several("cache", 1)
    }

    /// Links over Unix sockets instead of TCP.
    #[must_use]
    pub fn over_unix(mut self) -> Self {
        self.unix = true;
        self
    }

    /// A setting (`key=value`) for the instances of `service` alone.
    #[must_use]
    pub fn set(mut self, service: &str, setting: impl Into<String>) -> Self {
        self.settings.push((service.to_owned(), setting.into()));
        self
    }

    /// The stack counts as started without having answered a call.
    #[must_use]
    pub fn without_answer(mut self) -> Self {
        self.silent = true;
        self
    }

    /// Starts it, with the functions of `root`; `config` is TOML added to the file.
    ///
    /// # Panics
    /// When it does not come up; the message holds the logs.
    pub fn start(&self, binary: &Path, root: &Path, config: &str) -> Stack {
        let mut stack = Stack::prepare(binary, root, config);
        stack.shared.clone_from(&self.redis);
        let balancers = self.mesh_addresses(&stack, "balancer");
        let php_pools = self.mesh_addresses(&stack, "php-pool");
        let metrics = self.mesh_addresses(&stack, "metrics");
        let caches = self.mesh_addresses(&stack, "cache");
        for service in SERVICES {
            for index in 0..self.count(service) {
                let mut settings = Vec::new();
                if self.redis.is_empty() || self.peers {
                    settings.push(format!("mesh.peers.balancer={balancers:?}"));
                    settings.push(format!("mesh.peers.php-pool={php_pools:?}"));
                }
                if self.redis.is_empty() || self.peers || metrics.is_empty() {
                    settings.push(format!("mesh.peers.metrics={metrics:?}"));
                }
                if self.redis.is_empty() || self.peers || caches.is_empty() {
                    settings.push(format!("mesh.peers.cache={caches:?}"));
                }
                match service {
                    "balancer" => settings.push(format!("mesh.listen={:?}", balancers[index])),
                    "metrics" => settings.push(format!("mesh.listen={:?}", metrics[index])),
                    "cache" => settings.push(format!("mesh.listen={:?}", caches[index])),
                    "php-pool" => settings.push(format!("mesh.listen={:?}", php_pools[index])),
                    _ => {
                        let address = stack.gateway_address(index);
                        settings.push(format!("gateway.listen=[\"{address}\"]"));
                    }
                }
                let own = self.settings.iter().filter(|(only, _)| only == service);
                settings.extend(own.map(|(_, setting)| setting.replace("HOME", &stack.home().display().to_string())));
                stack.start(service, &settings);
            }
        }
        // Callers first, as a request meets them.
        stack
            .instances
            .sort_by_key(|instance| std::cmp::Reverse(SERVICES.iter().position(|name| *name == instance.service)));
        if !self.silent {
            stack.await_answer();
        }
        stack
    }

    fn count(&self, service: &str) -> usize {
        self.counts.get(service).copied().unwrap_or(usize::from(!BESIDE.contains(&service)))
    }

    fn mesh_addresses(&self, stack: &Stack, service: &str) -> Vec<String> {
        let address = |index| match self.unix {
            true => format!("unix:{}/{service}-{index}.sock", stack.home().display()),
            false => ports::free().to_string(),
        };
        (0..self.count(service)).map(address).collect()
    }
}
