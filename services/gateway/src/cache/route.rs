//! What a route's configuration makes of caching.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytestring::ByteString;
use metrics::{Counter, counter};
use troupe_cache::key::{HostBuffer, Key, Sought};
use troupe_cache::policy::{Policy, StatusTtl};
use troupe_node::units;
use troupe_wire::head::RequestHead;

use super::config::{CacheDetails, RouteCache};
use super::l2::LookupCounts;

/// The caching of one route.
#[derive(Debug)]
pub(crate) struct RouteCaching {
    /// What it is counted under.
    label: ByteString,
    /// Counts what of the route's has to make room in the store; made with the first answer.
    evictions: OnceLock<Counter>,
    /// Counts what the second tier says to the route's requests; made with the first that asks it.
    lookups: OnceLock<LookupCounts>,
    pub(super) policy: Policy,
    ignore_query: Vec<Box<str>>,
    sort_query: bool,
    /// Seconds for which a network in front keeps what is stored.
    cdn_ttl: Option<u64>,
    /// Whether requests are looked up. A route that does not mention the cache begins to when the first answer of it
    /// asks for it.
    active: AtomicBool,
}

impl RouteCaching {
    /// `None` when the route is never cached. `label` is what it is counted under.
    pub(crate) fn new(config: Option<&RouteCache>, label: ByteString) -> Option<Self> {
        let (details, mentioned) = match config {
            Some(RouteCache::Switch(false)) => return None,
            Some(RouteCache::Switch(true)) => (CacheDetails::default(), true),
            Some(RouteCache::Details(details)) => (details.clone(), true),
            None => (CacheDetails::default(), false),
        };
        let base = Policy::new();
        let policy = Policy {
            ttl: details.ttl.map(|ttl| ttl.get()),
            max_ttl: details.max_ttl.map_or(base.max_ttl, |ttl| ttl.get()),
            statuses: details
                .status_ttl
                .iter()
                .map(|(statuses, ttl)| StatusTtl { statuses: statuses.range(), ttl: ttl.get() })
                .collect(),
            stale_while_revalidate: details.stale_while_revalidate.get(),
            stale_if_error: details.stale_if_error.get(),
            heuristic: details.heuristic,
            ignore_cookies: details.ignore_cookies,
            obey_requests: details.obey_requests,
            only_targeted: !mentioned,
        };
        let ignore_query = details.ignore_query.iter().map(|name| name.as_str().into()).collect();
        Some(Self {
            label,
            evictions: OnceLock::new(),
            lookups: OnceLock::new(),
            policy,
            ignore_query,
            sort_query: details.sort_query,
            cdn_ttl: details.cdn_ttl.map(|ttl| ttl.get().as_secs()),
            active: AtomicBool::new(mentioned),
        })
    }

    /// Counts what of the route's has to make room.
    pub(super) fn evictions(&self) -> &Counter {
        let label = || self.label.to_string();
        self.evictions
            .get_or_init(|| counter!("troupe_gateway_cache_evicted_total", "tier" => "l1", "route" => label()))
    }

    /// Counts what the second tier says to the route's requests.
    pub(super) fn lookups(&self) -> &LookupCounts {
        self.lookups.get_or_init(|| LookupCounts::of(&self.label))
    }

    /// Whether requests are looked up.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Seconds for which a network in front keeps what is stored.
    pub(crate) fn cdn_ttl(&self) -> Option<u64> {
        self.cdn_ttl
    }

    /// An answer asks for the cache: requests are looked up from now on.
    pub(crate) fn activate(&self) {
        self.active.store(true, Ordering::Relaxed);
    }

    /// By which rule answers are kept, in words.
    pub(crate) fn rule(&self) -> String {
        let time = |time: Duration| units::Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let mut rule = match self.policy.ttl {
            Some(ttl) => format!("answers that may be kept are, for {} whatever their headers say", time(ttl)),
            None if self.policy.only_targeted => "answers that ask for it are kept, as they say".to_owned(),
            None => {
                let longest = Some(self.policy.max_ttl).filter(|most| *most < Policy::default().max_ttl);
                let most = longest.map_or_else(String::new, |most| format!(", for {} at most", time(most)));
                format!("answers are kept as their headers say{most}")
            }
        };
        if !self.policy.statuses.is_empty() {
            rule.push_str("; for some statuses as status_ttl says");
        }
        if self.sort_query {
            rule.push_str("; the query is sorted");
        }
        if !self.ignore_query.is_empty() {
            rule.push_str(&format!("; left out of the query: {}", self.ignore_query.join(", ")));
        }
        rule
    }

    /// The path and query that tell answers apart. What is not in it is not passed on either, so that nothing outside of
    /// the key has a say in what is stored under it.
    pub(crate) fn target<'a>(&self, target: &'a str) -> Cow<'a, str> {
        if !self.sort_query && self.ignore_query.is_empty() {
            return Cow::Borrowed(target);
        }
        let Some((path, query)) = target.split_once('?') else { return Cow::Borrowed(target) };
        let mut kept: Vec<&str> = query.split('&').filter(|parameter| !self.is_ignored(parameter)).collect();
        if self.sort_query {
            // By name alone and keeping the order of equal names, whose values form lists.
            kept.sort_by_key(|parameter| name(parameter));
        }
        let query = kept.join("&");
        Cow::Owned(if query.is_empty() { path.to_owned() } else { [path, "?", &query].concat() })
    }

    /// What the answer to a request of the route is found by; `None` when its host is no host that is cached.
    pub(crate) fn key(&self, head: &RequestHead) -> Option<Arc<Key>> {
        let (target, mut buffer) = (self.target(head.target()), HostBuffer::default());
        Some(Arc::new(Sought::new(head.scheme(), head.authority(), &target, &mut buffer)?.to_key()))
    }

    /// What the answer to a GET of the URL `key` is found by, where that is not `key` itself.
    pub(crate) fn other_key(&self, key: &Key) -> Option<Key> {
        let target = self.target(key.target());
        (target != key.target()).then(|| Key::of_parts(key.scheme(), key.host(), &target))
    }

    fn is_ignored(&self, parameter: &str) -> bool {
        // Encoded it is the same name; PHP reads `a[]=1` as a list named `a`, which is another parameter than `a`.
        let name = crate::path::decode(name(parameter));
        self.ignore_query.iter().any(|ignored| match ignored.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => *name == **ignored,
        })
    }
}

fn name(parameter: &str) -> &str {
    parameter.split('=').next().unwrap_or(parameter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(details: CacheDetails, target: &str) -> String {
        RouteCaching::new(Some(&RouteCache::Details(details)), "/".into()).unwrap().target(target).into_owned()
    }

    #[test]
    fn the_query_is_kept_as_it_is() {
        assert_eq!(target(CacheDetails::default(), "/a?b=1&a=2&"), "/a?b=1&a=2&");
    }

    #[test]
    fn parameters_are_ignored_by_name() {
        let ignoring = CacheDetails { ignore_query: vec!["utm_*".into(), "fbclid".into()], ..CacheDetails::default() };
        assert_eq!(target(ignoring.clone(), "/a?utm_source=x&b=1&fbclid=2&fbclid2=3"), "/a?b=1&fbclid2=3");
        assert_eq!(target(ignoring.clone(), "/a?%75tm_x=1"), "/a");
        assert_eq!(target(ignoring, "/a?utm_source=x"), "/a");
    }

    #[test]
    fn parameters_are_sorted_but_equal_names_keep_their_order() {
        let sorting = CacheDetails { sort_query: true, ..CacheDetails::default() };
        assert_eq!(target(sorting, "/a?b=2&a=9&b=1"), "/a?a=9&b=2&b=1");
    }

    #[test]
    fn the_rule_names_a_longest_time_where_there_is_one() {
        let rule = |max_ttl| {
            let details = CacheDetails { max_ttl, ..CacheDetails::default() };
            RouteCaching::new(Some(&RouteCache::Details(details)), "/".into()).unwrap().rule()
        };
        assert_eq!(rule(None), "answers are kept as their headers say");
        let hour = units::Duration::from_millis(3_600_000);
        assert_eq!(rule(Some(hour)), "answers are kept as their headers say, for 1h at most");
    }

    #[test]
    fn false_comes_first() {
        assert!(RouteCaching::new(Some(&RouteCache::Switch(false)), "/".into()).is_none());
        assert!(RouteCaching::new(Some(&RouteCache::Switch(true)), "/".into()).is_some_and(|route| route.is_active()));
        let silent = RouteCaching::new(None, "/".into()).unwrap();
        assert!(!silent.is_active() && silent.policy.only_targeted);
        silent.activate();
        assert!(silent.is_active());
    }
}
