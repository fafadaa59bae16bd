//! The services, and which of them this process runs.

use clap::ValueEnum;

/// One of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Service {
    /// The HTTP front.
    Gateway,
    /// Scores, queues and picks.
    Balancer,
    /// The PHP processes.
    PhpPool,
}

/// A set of services that run in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Services {
    gateway: bool,
    balancer: bool,
    php_pool: bool,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Gateway, Self::Balancer, Self::PhpPool];

    /// The name, as the command line and the configuration write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Balancer => "balancer",
            Self::PhpPool => "php-pool",
        }
    }

    /// The admin listener's port when the service runs apart.
    pub(crate) const fn admin_port(self) -> u16 {
        match self {
            Self::Gateway => 9090,
            Self::Balancer => 9091,
            Self::PhpPool => 9092,
        }
    }

    /// The port on which the service accepts links when it runs apart, if it accepts any.
    pub(crate) const fn mesh_port(self) -> Option<u16> {
        match self {
            Self::Gateway => None,
            Self::Balancer => Some(7401),
            Self::PhpPool => Some(7402),
        }
    }
}

impl Services {
    /// All of them: what runs when none is named.
    pub(crate) const ALL: Self = Self { gateway: true, balancer: true, php_pool: true };

    /// The ones that are named; all, when none is.
    pub(crate) fn named(names: &[Service]) -> Self {
        if names.is_empty() {
            return Self::ALL;
        }
        Self {
            gateway: names.contains(&Service::Gateway),
            balancer: names.contains(&Service::Balancer),
            php_pool: names.contains(&Service::PhpPool),
        }
    }

    /// Whether this process runs `service`.
    pub(crate) const fn contains(self, service: Service) -> bool {
        match service {
            Service::Gateway => self.gateway,
            Service::Balancer => self.balancer,
            Service::PhpPool => self.php_pool,
        }
    }

    /// The services in the order a request passes them.
    pub(crate) fn iter(self) -> impl Iterator<Item = Service> {
        Service::ALL.into_iter().filter(move |&service| self.contains(service))
    }

    /// The one service of this process, if there is just one.
    pub(crate) fn only(self) -> Option<Service> {
        let mut services = self.iter();
        let first = services.next();
        if services.next().is_some() { None } else { first }
    }

    /// Whether some service is elsewhere, so that links are needed.
    pub(crate) fn is_apart(self) -> bool {
        self != Self::ALL
    }
}
