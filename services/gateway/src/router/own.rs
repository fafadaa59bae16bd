//! Pages that the gateway answers without a route.

use crate::config::GatewayConfig;

/// Where the dashboard is; everything of it is below.
const DASHBOARD: &str = "/dashboard";

/// Which of them there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnPages {
    /// `/health`.
    pub health: bool,
    /// `/dashboard` and what is below.
    pub dashboard: bool,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnPage {
    Health,
    Dashboard,
}

impl OwnPages {
    /// Those that a configuration asks for.
    pub fn of(config: &GatewayConfig) -> Self {
        Self { health: config.health, dashboard: config.dashboard }
    }

    /// The page that has this path, in its normal form.
    pub(crate) fn find(self, path: &str) -> Option<OwnPage> {
        if self.health && path == "/health" {
            return Some(OwnPage::Health);
        }
        let below = self.dashboard.then(|| path.strip_prefix(DASHBOARD)).flatten()?;
        (below.is_empty() || below.starts_with('/')).then_some(OwnPage::Dashboard)
    }
}

impl OwnPage {
    /// The key that asks for it.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Health => "gateway.health",
            Self::Dashboard => "gateway.dashboard",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboard_has_what_is_below_it_and_nothing_beside() {
        let both = OwnPages { health: true, dashboard: true };
        for (path, page) in [
            ("/health", Some(OwnPage::Health)),
            ("/health/x", None),
            ("/dashboard", Some(OwnPage::Dashboard)),
            ("/dashboard/", Some(OwnPage::Dashboard)),
            ("/dashboard/events", Some(OwnPage::Dashboard)),
            ("/dashboards", None),
            ("/", None),
        ] {
            assert_eq!(both.find(path), page, "{path}");
            assert_eq!(OwnPages::default().find(path), None, "{path}");
        }
    }
}
