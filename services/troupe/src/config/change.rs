//! What of a configuration may be taken while the process runs, and what takes a restart.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;
use troupe_node::config::Problem;

use super::{Config, rules};

/// Keys, and sections with all that is in them, that are taken while the process runs.
const TAKEN: [&str; 12] = [
    "route",
    "balancer",
    "php",
    "upstream",
    "log.level",
    "gateway.max_requests_per_connection",
    "gateway.request_timeout",
    "gateway.stream_idle",
    "gateway.head_timeout",
    "gateway.keep_alive",
    "gateway.max_head",
    "gateway.max_body",
];

/// A configuration that is to take another one's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// What would serve: the old one with all of the new one that can be taken.
    pub(crate) effective: Config,
    /// Keys whose new values are taken.
    pub(crate) taken: Vec<String>,
    /// Keys whose new values wait for a restart.
    pub(crate) waiting: Vec<String>,
}

impl Change {
    /// From `old`, which serves, to `new`, which is right by itself.
    ///
    /// # Errors
    /// When what can be taken of it does not fit what has to stay: a route where the gateway's own page is until a restart.
    pub(crate) fn new(old: &Config, new: &Config) -> Result<Self, Vec<Problem>> {
        let effective = effective(old, new);
        let problems = rules::check(&effective);
        if !problems.is_empty() {
            return Err(problems);
        }
        let (taken, waiting) = differing(old, new).into_iter().partition(|key| is_taken(key));
        Ok(Self { effective, taken, waiting })
    }
}

fn effective(old: &Config, new: &Config) -> Config {
    let mut effective = old.clone();
    effective.routes.clone_from(&new.routes);
    effective.balancer.clone_from(&new.balancer);
    effective.upstream.clone_from(&new.upstream);
    effective.php.clone_from(&new.php);
    effective.log.level.clone_from(&new.log.level);
    let (gateway, wanted) = (&mut effective.gateway, &new.gateway);
    gateway.max_requests_per_connection = wanted.max_requests_per_connection;
    gateway.request_timeout = wanted.request_timeout;
    gateway.stream_idle = wanted.stream_idle;
    gateway.head_timeout = wanted.head_timeout;
    gateway.keep_alive = wanted.keep_alive;
    gateway.max_head = wanted.max_head;
    gateway.max_body = wanted.max_body;
    effective
}

fn is_taken(key: &str) -> bool {
    let within = |section: &str| key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    TAKEN.iter().any(|section| within(section))
}

/// The keys whose values differ, as the configuration writes them; the routes are one.
fn differing(old: &impl Serialize, new: &impl Serialize) -> Vec<String> {
    let mut keys = BTreeSet::new();
    // Only maps with keys that are no strings fail, and there are none.
    let (old, new) = (serde_json::to_value(old).unwrap_or_default(), serde_json::to_value(new).unwrap_or_default());
    compare("", &old, &new, &mut keys);
    keys.into_iter().collect()
}

fn compare(key: &str, old: &Value, new: &Value, keys: &mut BTreeSet<String>) {
    if old == new {
        return;
    }
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                compare(&below(name), value, new.get(name).unwrap_or(&Value::Null), keys);
            }
            for name in new.keys().filter(|name| !old.contains_key(*name)) {
                keys.insert(below(name));
            }
        }
        _ => {
            keys.insert(key.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use troupe_balancer::upstream::config::{ServerConfig, UpstreamConfig};
    use troupe_gateway::config::RouteConfig;
    use troupe_node::units::Duration;
    use troupe_php_pool::config::PhpPoolConfig;

    use super::*;

    fn route(path: &str, pool: &str) -> RouteConfig {
        RouteConfig {
            path: path.into(),
            function: Some("f".into()),
            functions: Some(pool.into()),
            ..RouteConfig::default()
        }
    }

    #[test]
    fn what_can_be_taken_is_and_the_rest_is_named() {
        let old = Config::default();
        let mut new = old.clone();
        new.routes.push(route("/new", "default"));
        new.gateway.request_timeout = Duration::from_secs(3);
        new.gateway.max_connections = 7;
        new.node.development = true;
        new.log.level = "debug".into();
        new.php.get_mut("default").unwrap().timeout = Duration::from_secs(1);
        new.php.insert("more".into(), PhpPoolConfig::default());
        new.php.get_mut("default").unwrap().queue.max = 3;
        new.balancer.decay = Duration::from_secs(3);
        new.upstream.insert("app".into(), UpstreamConfig::default());
        new.upstream.get_mut("app").unwrap().servers =
            vec![ServerConfig { address: "127.0.0.1:1".into(), weight: 1, max_connections: None }];
        let change = Change::new(&old, &new).unwrap();
        let taken = [
            "balancer.decay",
            "gateway.request_timeout",
            "log.level",
            "php.default.queue.max",
            "php.default.timeout",
            "php.more",
            "route",
            "upstream.app",
        ];
        assert_eq!(change.taken, taken);
        assert_eq!(change.waiting, ["gateway.max_connections", "node.development"]);
        assert_eq!(change.effective.gateway.max_connections, old.gateway.max_connections);
        assert_eq!(change.effective.gateway.request_timeout, Duration::from_secs(3));
        assert_eq!(change.effective.routes, new.routes);
        assert_eq!((&change.effective.upstream, &change.effective.balancer), (&new.upstream, &new.balancer));
        assert_eq!(change.effective.php, new.php);
        // What waits is told again, until the restart.
        let again = Change::new(&change.effective, &new).unwrap();
        assert_eq!((again.taken, again.waiting), (Vec::new(), change.waiting));
    }

    #[test]
    fn a_route_in_the_place_of_an_own_page_takes_nothing() {
        let old = Config::default();
        let mut new = old.clone();
        new.gateway.health = false;
        new.routes.push(route("/health", "default"));
        assert!(rules::check(&new).is_empty());
        let problems = Change::new(&old, &new).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn every_key_that_is_said_to_be_taken_is() {
        let keys = differing(&Config::default(), &Value::Null);
        assert_eq!(keys, [""], "a whole that differs is one");
        let all = serde_json::to_value(Config::default()).unwrap();
        for key in TAKEN {
            let found = key.split('.').try_fold(&all, |value, name| value.get(name));
            assert!(found.is_some(), "{key} is no key");
        }
    }
}
