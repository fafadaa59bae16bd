//! What would be done with a request, step by step, without sending anything.

use std::sync::Arc;

use serde::Serialize;

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
}

impl Explainer {
    /// What this gateway would do with the request.
    pub fn explain(&self, method: &str, host: &str, target: &str) -> Explanation {
        explain(&self.shared.routes.load(), self.shared.own, method, host, target)
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
    use super::*;

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
}
