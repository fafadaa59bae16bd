//! The admin page of the cache: `POST /api/cache/purge` with one of
//!
//! ```text
//! ?url=http://app.example/a%3Fb=c           one URL, all variants
//! ?prefix=http://app.example/news/          every URL that begins like this
//! ?host=app.example                         every URL of a host
//! ?group=news                               every member of a group
//! ?all=true                                 everything
//! ```
//!
//! With `soft=true` it is made stale instead of removed. The answer counts what was found; with a second tier it comes when
//! no gateway gives it any more.

use std::sync::Arc;

use serde_json::{Value, json};
use troupe_cache::key::{HostBuffer, Key, Sought};
use troupe_cache::service::CacheService;
use troupe_cache::store::Selector;
use troupe_contracts::cache::purge::{Purge, Purged, Target};
use troupe_node::admin::{Api, Ask, Refusal};
use troupe_wire::head::Scheme;

use super::Cache;
use super::cdn::Cdn;
use crate::path;

/// Adds the page to the interface of the process that `cache` belongs to.
///
/// A network in front is told of what was purged, if one is configured.
pub fn register(api: &Api, cache: &Arc<Cache>, cdn: Option<Arc<Cdn>>) {
    let cache = Arc::clone(cache);
    api.post("cache/purge", move |ask| {
        let (cache, cdn) = (Arc::clone(&cache), cdn.clone());
        async move {
            let (selector, soft) = ordered(&ask)?;
            let mut done = Done::default();
            // What is found by another form of the URL first: the answer is that to the order itself.
            if let Selector::Url(key) = &selector
                && let Some(key) = cache.stored_as(key)
            {
                done = purge(&cache, &Selector::Url(key), soft).await?;
            }
            let done = done.and(purge(&cache, &selector, soft).await?);
            Ok(answer(done, soft, cdn.as_deref(), &selector))
        }
    });
}

/// Adds the page to the interface of a process with the cache service, which carries purges out by itself.
pub fn register_service(api: &Api, service: &CacheService, cdn: Option<Arc<Cdn>>) {
    let service = service.clone();
    api.post("cache/purge", move |ask| {
        let (service, cdn) = (service.clone(), cdn.clone());
        async move {
            let (selector, soft) = ordered(&ask)?;
            let call = Purge { target: Target::from(&selector), soft, source: None };
            let purged = service.purge(call).await.map_err(|failure| Refusal::new(503, failure.to_string()))?;
            Ok(answer(purged.into(), soft, cdn.as_deref(), &selector))
        }
    });
}

/// What is to be taken out, and whether it is only to become stale.
fn ordered(ask: &Ask) -> Result<(Selector, bool), Refusal> {
    let selector = selector(&|name| ask.get(name)).map_err(|why| Refusal::new(400, why))?;
    Ok((selector, ask.flag("soft")))
}

/// What an order has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Done {
    urls: u64,
    responses: u64,
    /// Gateways that have confirmed, and those that did not and have nothing fresh any more; where there is a second tier.
    gateways: Option<(u32, u32)>,
}

impl From<Purged> for Done {
    fn from(purged: Purged) -> Self {
        let Purged { urls, responses, confirmed, lapsed } = purged;
        Self { urls, responses, gateways: Some((confirmed, lapsed)) }
    }
}

impl Done {
    /// What two orders for the same have come to, the later one to the same gateways or fewer.
    fn and(self, later: Self) -> Self {
        let gateways = later.gateways.map(|(confirmed, lapsed)| {
            let before = self.gateways.map_or(0, |(_, lapsed)| lapsed);
            (confirmed, lapsed.max(before))
        });
        Self { urls: self.urls + later.urls, responses: self.responses + later.responses, gateways }
    }
}

async fn purge(cache: &Cache, selector: &Selector, soft: bool) -> Result<Done, Refusal> {
    let Some(tier) = &cache.tier else {
        let purged = cache.purge(selector, soft);
        return Ok(Done { urls: purged.urls as u64, responses: purged.responses as u64, gateways: None });
    };
    tier.purge(selector, soft).await.map(Done::from).map_err(|failed| {
        let here = cache.purge(selector, soft).urls;
        let why = format!(
            "{here} URLs went from this gateway's memory alone, and may come back from the second tier: {failed}; try again"
        );
        Refusal::new(503, why)
    })
}

/// Tells the network in front, behind our own: what it fetches from then on is what is true.
fn answer(done: Done, soft: bool, cdn: Option<&Cdn>, selector: &Selector) -> Value {
    let Done { urls, responses, gateways } = done;
    let mut answer = json!({ "urls": urls, "responses": responses, "soft": soft });
    if let Some((confirmed, lapsed)) = gateways {
        answer["confirmed"] = confirmed.into();
        answer["lapsed"] = lapsed.into();
    }
    if let Some(cdn) = cdn {
        cdn.tell(selector);
        answer["cdn"] = "told behind this answer".into();
    }
    answer
}

/// What an order is about, whose parameters `get` knows.
fn selector<'a>(get: &dyn Fn(&str) -> Option<&'a str>) -> Result<Selector, String> {
    let all = get("all").filter(|all| matches!(*all, "true" | "1" | ""));
    let named = [get("url"), get("prefix"), get("host"), get("group"), all];
    match named {
        [Some(url), None, None, None, None] => Ok(Selector::Url(key(url)?)),
        [None, Some(prefix), None, None, None] => Ok(Selector::Prefix(key(prefix)?)),
        [None, None, Some(host), None, None] => Ok(Selector::Host(host.to_ascii_lowercase().into())),
        [None, None, None, Some(group), None] => Ok(Selector::Group(group.into(), None)),
        [None, None, None, None, Some(_)] => Ok(Selector::All),
        _ => Err("name one of url, prefix, host, group and all".to_owned()),
    }
}

/// The key of an absolute URL.
fn key(url: &str) -> Result<Key, String> {
    let wrong = |why: &str| format!("`{url}` is not a URL such as http://app.example/path: {why}");
    let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(wrong("the scheme is neither http nor https")),
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.is_empty() {
        return Err(wrong("it has no host"));
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let normal = path::normalise(if path.is_empty() { "/" } else { path }).map_err(|bad| wrong(bad.0))?;
    let target = match query {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    let mut buffer = HostBuffer::default();
    let sought = Sought::new(scheme, authority, &target, &mut buffer).ok_or_else(|| wrong("its host is too long"))?;
    Ok(sought.to_key())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(parameters: &[(&str, &'static str)]) -> Result<Selector, String> {
        super::selector(&|name| parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    #[test]
    fn two_orders_for_the_same_count_what_both_found_and_each_gateway_once() {
        let done = |urls, gateways| Done { urls, responses: 2 * urls, gateways };
        assert_eq!(done(1, None).and(done(2, None)), done(3, None));
        assert_eq!(done(1, Some((2, 1))).and(done(2, Some((2, 0)))), done(3, Some((2, 1))));
        assert_eq!(Done::default().and(done(2, Some((3, 1)))), done(2, Some((3, 1))));
    }

    #[test]
    fn orders_name_one_thing() {
        for wrong in [&[][..], &[("all", "false")], &[("all", "true"), ("host", "a")], &[("soft", "true")]] {
            assert!(selector(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(selector(&[("all", "true")]), Ok(Selector::All));
        assert_eq!(selector(&[("group", "G h"), ("soft", "true")]), Ok(Selector::Group("G h".into(), None)));
        assert_eq!(selector(&[("host", "A")]), Ok(Selector::Host("a".into())));
    }

    #[test]
    fn urls_get_the_form_that_keys_have() {
        let url = |url: &'static str| match selector(&[("url", url)]) {
            Ok(Selector::Url(key)) => Ok(key.to_string()),
            other => Err(other),
        };
        assert_eq!(url("HTTP://A.example:80/%61/./b?c=%64"), Ok("http://a.example/a/b?c=%64".to_owned()));
        assert_eq!(url("https://a.example:443"), Ok("https://a.example/".to_owned()));
        for wrong in ["/a", "ftp://a/", "http:///a", "http://a/%2e%2e/b", "http://a//b"] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
