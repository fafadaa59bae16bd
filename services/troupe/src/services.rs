//! The services, and which of them this process runs.

use clap::ValueEnum;
use troupe_node::telemetry::Origin;

/// One of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// The HTTP front.
    Gateway,
    /// Scores, queues and picks.
    Balancer,
    /// The PHP processes.
    PhpPool,
    /// The tier of the cache that gateways share.
    Cache,
    /// What all instances count, in sum.
    Metrics,
}

/// A set of services that run in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Services {
    gateway: bool,
    balancer: bool,
    php_pool: bool,
    cache: bool,
    metrics: bool,
}

impl Service {
    pub(crate) const ALL: [Self; 5] = [Self::Gateway, Self::Balancer, Self::PhpPool, Self::Cache, Self::Metrics];

    /// The name, as the command line and the configuration write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Balancer => "balancer",
            Self::PhpPool => "php-pool",
            Self::Cache => "cache",
            Self::Metrics => "metrics",
        }
    }

    /// The admin listener's port when the service runs apart.
    pub(crate) const fn admin_port(self) -> u16 {
        match self {
            Self::Gateway => 9090,
            Self::Balancer => 9091,
            Self::PhpPool => 9092,
            Self::Cache => 9093,
            Self::Metrics => 9094,
        }
    }

    /// The port on which the service accepts links when it runs apart, if it accepts any.
    pub(crate) const fn mesh_port(self) -> Option<u16> {
        match self {
            Self::Gateway => None,
            Self::Balancer => Some(7401),
            Self::PhpPool => Some(7402),
            Self::Cache => Some(7403),
            Self::Metrics => Some(7404),
        }
    }
}

impl Services {
    /// All of them: what runs when none is named.
    pub(crate) const ALL: Self = Self { gateway: true, balancer: true, php_pool: true, cache: true, metrics: true };

    /// The ones that are named; all, when none is.
    pub(crate) fn named(names: &[Service]) -> Self {
        if names.is_empty() {
            return Self::ALL;
        }
        Self {
            gateway: names.contains(&Service::Gateway),
            balancer: names.contains(&Service::Balancer),
            php_pool: names.contains(&Service::PhpPool),
            cache: names.contains(&Service::Cache),
            metrics: names.contains(&Service::Metrics),
        }
    }

    /// Whether this process runs `service`.
    pub(crate) const fn contains(self, service: Service) -> bool {
        match service {
            Service::Gateway => self.gateway,
            Service::Balancer => self.balancer,
            Service::PhpPool => self.php_pool,
            Service::Cache => self.cache,
            Service::Metrics => self.metrics,
        }
    }

    /// Whether `service` runs here and accepts links: those of one process call each other without.
    pub(crate) fn accepts_links(self, service: Service) -> bool {
        let has_its_caller_here = match service {
            Service::Gateway => true,
            Service::Balancer => self.gateway,
            Service::PhpPool => self.balancer,
            // Gateways, and instances of every service, may be elsewhere as well.
            Service::Cache | Service::Metrics => !self.is_apart(),
        };
        self.contains(service) && !has_its_caller_here
    }

    /// The services in the order a request passes them, and then those beside its path.
    pub(crate) fn iter(self) -> impl Iterator<Item = Service> {
        Service::ALL.into_iter().filter(move |&service| self.contains(service))
    }

    /// The one service of this process, if there is just one.
    pub(crate) fn only(self) -> Option<Service> {
        let mut services = self.iter();
        let first = services.next();
        if services.next().is_some() { None } else { first }
    }

    /// As the log calls this process.
    pub(crate) fn origin(self) -> Origin {
        Origin::here(self.only().map_or("troupe", Service::name), self.is_apart())
    }

    /// Whether some service is elsewhere, so that links are needed.
    pub(crate) fn is_apart(self) -> bool {
        self != Self::ALL
    }
}
