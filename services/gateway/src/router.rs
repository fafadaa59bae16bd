//! Which route answers a request.
//!
//! Among the routes that match a request whole (host, path and method) the most specific one wins: one with a host
//! before one without, then segment by segment a literal before `{name}` before `{rest*}`, then one that names its
//! methods before one that takes all. Paths come in the one normal form that the gateway gives them first.

mod check;
mod labels;
mod own;
mod pattern;
mod table;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytestring::ByteString;
use troupe_contracts::invoke::upstream_pool;

pub use check::{Problem, check};
pub(crate) use labels::Labels;
#[cfg(test)]
pub(crate) use labels::{MAX_LABELS_GIVEN, MAX_ROUTE_LABELS};
pub(crate) use own::OwnPage;
pub use own::OwnPages;

use crate::cache::RouteCaching;
use crate::config::RouteConfig;
use crate::metrics::OTHER_ROUTES;
use pattern::Pattern;
use table::{Hit, PathTable};

/// Numbers routing tables, so that what is kept by route number is not taken for another table's.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// Longest host name that is looked up (RFC 1035 §2.3.4).
const MAX_HOST: usize = 255;

/// The routes of a configuration, ready to be looked up.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Route>,
    hosts: HashMap<Box<str>, MethodTables>,
    any_host: MethodTables,
    claims_root: bool,
    serial: u64,
}

/// One route.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Its pattern: the label of metrics and logs.
    pub(crate) label: ByteString,
    /// Whether it is counted under its label, and not with others.
    labelled: bool,
    /// The pool that answers.
    pub(crate) pool: ByteString,
    /// Whether HTTP servers answer, and not PHP.
    pub(crate) upstream: bool,
    /// Whether bodies are handed over as they arrive.
    pub(crate) streaming: bool,
    /// How answers are cached; `None`: never.
    pub(crate) caching: Option<Arc<RouteCaching>>,
    function: Function,
    /// Whether `PATH_INFO` is what `{rest*}` captured.
    path_info: bool,
}

/// A route as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteId {
    /// The routing table's number.
    pub(crate) table: u64,
    /// The route's in it.
    pub(crate) number: usize,
    /// Whether it has a label of its own in metrics.
    pub(crate) labelled: bool,
}

/// Where the function's name comes from.
#[derive(Debug, Clone)]
enum Function {
    Pinned(ByteString),
    Segment(usize),
    Rest,
}

/// Tables by method; `other` holds the routes that take every method.
#[derive(Debug, Default)]
struct MethodTables {
    named: Vec<(Box<str>, PathTable)>,
    other: PathTable,
}

/// What answers a request.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A route.
    Route(Matched<'a>),
    /// Routes match the path, none of them the method. Their methods, as `Allow` lists them.
    OtherMethods(String),
    /// No route matches.
    Nothing,
}

/// A route that matches, with what it captured.
#[derive(Debug)]
pub(crate) struct Matched<'a> {
    /// The route.
    pub(crate) route: &'a Route,
    /// The route's number.
    pub(crate) index: usize,
    /// The function, when the path names it: a part of the path.
    pub(crate) function: Option<&'a str>,
    /// Where in the path `PATH_INFO` begins; its end when there is none.
    pub(crate) path_info: usize,
}

impl RouteTable {
    /// Checks the routes and arranges them.
    ///
    /// # Errors
    /// One problem for each route that is malformed, unreachable or not told apart from another.
    pub fn build(configs: &[RouteConfig], own: OwnPages) -> Result<Self, Vec<Problem>> {
        Self::build_after(&mut Labels::default(), configs, own)
    }

    /// As [`build`](Self::build), where `labels` were given out by the tables before.
    pub(crate) fn build_after(
        labels: &mut Labels,
        configs: &[RouteConfig],
        own: OwnPages,
    ) -> Result<Self, Vec<Problem>> {
        let patterns = check::check_all(configs, own)?;
        let mut table = Self {
            routes: Vec::with_capacity(configs.len()),
            hosts: HashMap::new(),
            any_host: MethodTables::default(),
            claims_root: false,
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
        };
        let mut problems = Vec::new();
        let named = methods_named(configs);
        // Routes that name their methods go in first: where two have one pattern, the first keeps the place.
        let mut order: Vec<usize> = (0..configs.len()).collect();
        order.sort_by_key(|&index| configs.get(index).is_some_and(|config| config.methods.is_empty()));
        for ((config, pattern), (label, labelled)) in configs.iter().zip(&patterns).zip(labels.give(configs)) {
            table.routes.push(Route::new(config, pattern, label, labelled));
        }
        for index in order {
            let (Some(config), Some(pattern)) = (configs.get(index), patterns.get(index)) else { continue };
            let tables = match &config.host {
                Some(host) => table.hosts.entry(host.to_ascii_lowercase().into()).or_default(),
                None => &mut table.any_host,
            };
            let rest_may_be_empty =
                !matches!(table.routes.get(index).map(|route| &route.function), Some(Function::Rest));
            let all = named.get(&host_key(config)).map_or(&[] as &[String], Vec::as_slice);
            if let Err(what) = tables.insert(config, all, pattern, index, rest_may_be_empty) {
                problems.push(Problem { route: index, key: "path", what });
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        table.claims_root = !matches!(table.find("", "GET", "/"), Found::Nothing);
        Ok(table)
    }

    /// Finds what answers a request; `path` in normal form, `authority` as it came.
    pub(crate) fn find<'a>(&'a self, authority: &str, method: &str, path: &'a str) -> Found<'a> {
        let mut buffer = [0; MAX_HOST];
        let host = if self.hosts.is_empty() {
            None
        } else {
            lower_host(authority, &mut buffer).and_then(|host| self.hosts.get(host))
        };
        for tables in [host, Some(&self.any_host)].into_iter().flatten() {
            if let Some(hit) = tables.table(method).find(path)
                && let Some(matched) = self.matched(hit, path)
            {
                return Found::Route(matched);
            }
        }
        let mut allow: Vec<&str> = Vec::new();
        for tables in [host, Some(&self.any_host)].into_iter().flatten() {
            for (name, table) in &tables.named {
                if table.find(path).is_some() && !allow.contains(&&**name) {
                    allow.push(name);
                }
            }
        }
        if allow.is_empty() {
            return Found::Nothing;
        }
        if !allow.contains(&"OPTIONS") {
            allow.push("OPTIONS");
        }
        allow.sort_unstable();
        Found::OtherMethods(allow.join(", "))
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// What a route that was found here is counted by.
    pub(crate) fn id(&self, matched: &Matched<'_>) -> RouteId {
        RouteId { table: self.serial, number: matched.index, labelled: matched.route.labelled }
    }

    /// Whether a route of every host answers `GET /`; else the landing page does.
    pub fn claims_root(&self) -> bool {
        self.claims_root
    }

    fn matched<'a>(&'a self, hit: Hit<'_, 'a>, path: &'a str) -> Option<Matched<'a>> {
        let route = self.routes.get(hit.route)?;
        let function = match route.function {
            Function::Pinned(_) => None,
            Function::Segment(position) => Some(hit.name(position)?),
            Function::Rest => Some(hit.rest()?),
        };
        let path_info = match route.path_info {
            true => path.len().saturating_sub(hit.rest().map_or(0, str::len) + 1),
            false => path.len(),
        };
        Some(Matched { route, index: hit.route, function, path_info })
    }
}

impl Route {
    fn new(config: &RouteConfig, pattern: &Pattern, label: ByteString, labelled: bool) -> Self {
        let function = match (&config.function, pattern.position("function")) {
            _ if config.upstream.is_some() => Function::Pinned(ByteString::new()),
            (Some(name), _) => Function::Pinned(name.as_str().into()),
            (None, Some(_)) if pattern.rest() == Some("function") => Function::Rest,
            (None, position) => Function::Segment(position.unwrap_or_default()),
        };
        let counted = if labelled { label.clone() } else { ByteString::from_static(OTHER_ROUTES) };
        Self {
            label,
            labelled,
            pool: match &config.upstream {
                Some(upstream) => upstream_pool(upstream).into(),
                None => config.pool().into(),
            },
            upstream: config.upstream.is_some(),
            streaming: config.streaming,
            path_info: pattern.rest().is_some() && config.upstream.is_none() && !matches!(function, Function::Rest),
            caching: RouteCaching::new(config.cache.as_ref(), counted).map(Arc::new),
            function,
        }
    }

    /// The pinned function.
    pub(crate) fn pinned(&self) -> Option<&ByteString> {
        match &self.function {
            Function::Pinned(name) => Some(name),
            _ => None,
        }
    }
}

impl MethodTables {
    fn insert(
        &mut self,
        config: &RouteConfig,
        all: &[String],
        pattern: &Pattern,
        route: usize,
        rest_may_be_empty: bool,
    ) -> Result<(), String> {
        for method in all {
            if !config.methods.is_empty() && !takes(config, method) {
                continue;
            }
            let index = match self.named.iter().position(|(name, _)| **name == **method) {
                Some(index) => index,
                None => {
                    self.named.push((method.as_str().into(), PathTable::default()));
                    self.named.len() - 1
                }
            };
            if let Some((_, table)) = self.named.get_mut(index) {
                table.insert(pattern, route, rest_may_be_empty)?;
            }
        }
        if config.methods.is_empty() {
            self.other.insert(pattern, route, rest_may_be_empty)?;
        }
        Ok(())
    }

    fn table(&self, method: &str) -> &PathTable {
        self.named.iter().find(|(name, _)| **name == *method).map_or(&self.other, |(_, table)| table)
    }
}

/// Whether a route that lists its methods takes `method`: HEAD runs as GET.
fn takes(config: &RouteConfig, method: &str) -> bool {
    config.methods.iter().any(|listed| listed == method || (method == "HEAD" && listed == "GET"))
}

/// The methods that need a table of their own, by host: those any of its routes lists.
fn methods_named(configs: &[RouteConfig]) -> HashMap<Option<String>, Vec<String>> {
    let mut by_host: HashMap<Option<String>, Vec<String>> = HashMap::new();
    for config in configs.iter().filter(|config| !config.methods.is_empty()) {
        let all = by_host.entry(host_key(config)).or_default();
        for method in &config.methods {
            for name in [method.as_str(), if method == "GET" { "HEAD" } else { method.as_str() }] {
                if !all.iter().any(|known| known == name) {
                    all.push(name.to_owned());
                }
            }
        }
    }
    by_host
}

/// What routes of one host have in common.
fn host_key(config: &RouteConfig) -> Option<String> {
    config.host.as_deref().map(str::to_ascii_lowercase)
}

fn same_host(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        (None, None) => true,
        _ => false,
    }
}

/// The host of an authority, without its port, in lower case.
fn lower_host<'buffer>(authority: &str, buffer: &'buffer mut [u8; MAX_HOST]) -> Option<&'buffer str> {
    let host = match authority.rfind(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some(colon) if !authority.get(colon..).is_some_and(|rest| rest.contains(']')) => authority.get(..colon)?,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let place = buffer.get_mut(..host.len())?;
    place.copy_from_slice(host.as_bytes());
    place.make_ascii_lowercase();
    std::str::from_utf8(place).ok()
}

#[cfg(test)]
mod tests;
