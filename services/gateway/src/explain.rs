//! What would be done with a request, step by step, without sending anything.

use std::sync::Arc;

use serde::Serialize;
use troupe_cache::key::{HostBuffer, Sought};
use troupe_wire::head::Scheme;

use crate::cache::RouteCaching;
use crate::front::Shared;
use crate::path;
use crate::router::{Found, OwnPage, OwnPages, RouteTable};

/// Explains by the routes that a gateway has now.
#[derive(Debug, Clone)]
pub struct Explainer {
    pub(crate) shared: Arc<Shared>,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The method.
    pub method: String,
    /// The host the request names; empty: none.
    pub host: String,
    /// The path as it was given.
    pub path: String,
    /// The path in its one normal form, which routes are matched with; none when it has none.
    pub normal_path: Option<String>,
    /// The status, where the gateway would answer by itself.
    pub status: Option<u16>,
    /// What happens, in words.
    pub why: String,
    /// The route that would answer.
    pub route: Option<RouteExplained>,
}

/// A route that matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteExplained {
    /// Its number in the configuration, from 0.
    pub index: usize,
    /// Its host and pattern: the label of metrics and logs.
    pub label: String,
    /// The pool that answers.
    pub pool: String,
    /// The function, where the route leads to one.
    pub function: Option<String>,
    /// `PATH_INFO`, where there is any.
    pub path_info: Option<String>,
    /// Whether bodies are handed over as they arrive.
    pub streaming: bool,
    /// What the cache has to do with it.
    pub cache: CacheExplained,
}

/// What the cache would do with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheExplained {
    /// Whether it is looked up, and by which rule answers are kept; in words.
    pub rule: String,
    /// What it would be looked up by, where it is; of an `https` request the scheme is another.
    pub key: Option<String>,
}

impl CacheExplained {
    fn of(caching: Option<&RouteCaching>, method: &str, host: &str, target: &str) -> Self {
        let not = |why: &str| Self { rule: why.to_owned(), key: None };
        let Some(caching) = caching else { return not("never: the route has cache = false") };
        if !matches!(method, "GET" | "HEAD") {
            return not("passed by: only GET and HEAD are looked up");
        }
        if !caching.is_active() {
            return not("not looked up: the route does not mention the cache, and no answer has asked for it yet");
        }
        let target = caching.target(target);
        let mut buffer = HostBuffer::default();
        let Some(sought) = Sought::new(Scheme::Http, host, &target, &mut buffer) else {
            return not("passed by: the host is too long for a key");
        };
        let key = sought.to_key();
        Self { rule: caching.rule(), key: Some(format!("{}://{}{}", key.scheme().as_str(), key.host(), key.target())) }
    }
}

impl Explainer {
    /// What this gateway would do with the request.
    pub fn explain(&self, method: &str, host: &str, target: &str) -> Explanation {
        let mut explained = explain(&self.shared.routes.load(), self.shared.own, method, host, target);
        if self.shared.cache.is_none()
            && let Some(route) = &mut explained.route
        {
            route.cache = CacheExplained { rule: "never: cache.l1.size is nothing".to_owned(), key: None };
        }
        explained
    }
}

/// What a gateway with these routes would do with the request. `own`: what it answers without one. `target` is a path
/// with or without a query.
pub fn explain(routes: &RouteTable, own: OwnPages, method: &str, host: &str, target: &str) -> Explanation {
    let given = target.split(['?', '#']).next().unwrap_or_default();
    let mut explained = Explanation {
        method: method.to_owned(),
        host: host.to_owned(),
        path: given.to_owned(),
        normal_path: None,
        status: None,
        why: String::new(),
        route: None,
    };
    let normal = match path::normalise(given) {
        Ok(normal) => normal,
        Err(bad) => {
            explained.status = Some(400);
            explained.why = format!("refused: {bad}");
            return explained;
        }
    };
    explained.normal_path = Some(normal.clone().into_owned());
    let query = target.split('#').next().and_then(|target| target.split_once('?')).map(|(_, query)| query);
    let whole = query.map_or_else(|| normal.clone().into_owned(), |query| format!("{normal}?{query}"));
    if let Some(page) = own.find(&normal) {
        explained.status = Some(200);
        explained.why = match page {
            OwnPage::Health => "answered by the gateway itself (gateway.health)",
            OwnPage::Dashboard => "answered by the metrics service (gateway.dashboard), to whoever has the admin token",
        }
        .to_owned();
        return explained;
    }
    match routes.find(host, method, &normal) {
        Found::Route(matched) => {
            let function = match (matched.function, matched.route.pinned()) {
                (Some(name), _) => Some(path::decode(name).into_owned()),
                (None, pinned) => pinned.map(ToString::to_string),
            }
            .filter(|function| !function.is_empty());
            let path_info = normal.get(matched.path_info..).filter(|info| !info.is_empty());
            explained.why = format!("the route {} is the most specific one that matches", matched.route.label);
            explained.route = Some(RouteExplained {
                index: matched.index,
                label: matched.route.label.to_string(),
                pool: matched.route.pool.to_string(),
                function,
                path_info: path_info.map(str::to_owned),
                streaming: matched.route.streaming,
                cache: CacheExplained::of(matched.route.caching.as_deref(), method, host, &whole),
            });
        }
        Found::OtherMethods(allow) if method == "OPTIONS" => {
            explained.status = Some(204);
            explained.why = format!("answered by the gateway itself: the path takes {allow}");
        }
        Found::OtherMethods(allow) => {
            explained.status = Some(405);
            explained.why = format!("routes match the path, but none takes {method}; they take {allow}");
        }
        Found::Nothing if normal == "/" && matches!(method, "GET" | "HEAD") => {
            explained.status = Some(200);
            explained.why = "the landing page: no route claims /".to_owned();
        }
        Found::Nothing => {
            explained.status = Some(404);
            explained.why = "no route matches this host and path".to_owned();
        }
    }
    explained
}

#[cfg(test)]
mod tests {
    use troupe_node::units::Duration;

    use super::*;
    use crate::cache::config::{CacheDetails, RouteCache};

    const OWN: OwnPages = OwnPages { health: true, dashboard: true };
    use crate::config::RouteConfig;

    fn table() -> RouteTable {
        let route = |host: Option<&str>, path: &str, methods: &[&str]| RouteConfig {
            host: host.map(str::to_owned),
            path: path.to_owned(),
            methods: methods.iter().map(|&method| method.to_owned()).collect(),
            functions: Some("default".to_owned()),
            ..RouteConfig::default()
        };
        let app = RouteConfig { function: Some("front".to_owned()), ..route(Some("app.example"), "/{rest*}", &[]) };
        RouteTable::build(&[route(None, "/api/{function*}", &["GET"]), app], OWN).unwrap()
    }

    #[test]
    fn what_is_explained_is_what_the_router_does() {
        let table = table();
        let explain = |method: &str, host: &str, target: &str| explain(&table, OWN, method, host, target);
        let found = explain("GET", "x.example", "/api/%61dmin/list?x=1");
        let route = found.route.unwrap();
        assert_eq!(found.normal_path.as_deref(), Some("/api/admin/list"));
        assert_eq!((route.index, route.pool.as_str(), route.function.as_deref()), (0, "default", Some("admin/list")));
        let pinned = explain("POST", "APP.example:8080", "/a/b").route.unwrap();
        assert_eq!((pinned.index, pinned.function.as_deref()), (1, Some("front")));
        assert_eq!((&*pinned.cache.rule, pinned.cache.key), ("passed by: only GET and HEAD are looked up", None));
        assert_eq!(pinned.path_info.as_deref(), Some("/a/b"));
        for (method, target, status) in [
            ("POST", "/api/x", Some(405)),
            ("OPTIONS", "/api/x", Some(204)),
            ("GET", "/nothing", Some(404)),
            ("GET", "/", Some(200)),
            ("GET", "/health", Some(200)),
            ("GET", "/dashboard/", Some(200)),
            ("GET", "/a%2fb", Some(400)),
        ] {
            let explained = explain(method, "x.example", target);
            assert_eq!((explained.status, explained.route), (status, None), "{method} {target}: {}", explained.why);
        }
        assert!(explain("GET", "", "/a//b").why.contains("empty segment"));
    }

    #[test]
    fn the_caches_key_and_rule_are_those_of_the_route() {
        let cached = |cache| RouteConfig { path: "/{rest*}".into(), cache, ..RouteConfig::default() };
        let of = |cache: Option<RouteCache>| {
            let table = RouteTable::build(&[RouteConfig { function: Some("f".into()), ..cached(cache) }], OWN).unwrap();
            explain(&table, OWN, "GET", "Shop.Example:80", "/%61?utm_source=x&b=1#c").route.unwrap().cache
        };
        let details = CacheDetails {
            ttl: Some(Duration::from_secs(60)),
            ignore_query: vec!["utm_*".into()],
            ..CacheDetails::default()
        };
        let ours = of(Some(RouteCache::Details(details)));
        assert_eq!(ours.key.as_deref(), Some("http://shop.example/a?b=1"));
        assert!(ours.rule.contains("60s whatever"), "{}", ours.rule);
        let theirs = of(Some(RouteCache::Switch(true)));
        assert_eq!(theirs.key.as_deref(), Some("http://shop.example/a?utm_source=x&b=1"));
        assert!(theirs.rule.contains("as their headers say"), "{}", theirs.rule);
        assert!(of(Some(RouteCache::Switch(false))).rule.starts_with("never"));
        assert!(of(None).rule.starts_with("not looked up"));
    }
}
