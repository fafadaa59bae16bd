//! What is in the cache before anybody asks, and what a network in front is told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use troupe_gateway::cache::Cache;
use troupe_gateway::cache::config::{CacheDetails, RouteCache, WarmConfig};
use troupe_gateway::{Options, Running};
use troupe_mesh::body::Body;
use troupe_node::units::Size;

use super::{Calls, FRESH, cache_config, cached, numbered, on, route, status};
use crate::support::*;

fn warm(warm: WarmConfig, fresh: &'static str) -> (Running, Calls, Arc<AtomicUsize>) {
    let (calls, at_once, most) = (Calls::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let cache = Cache::new(&cache_config(Size::from_mib(32), Size::from_mib(1)));
    let options = Options { threads: 2, cache, warm, ..Options::default() };
    let (counted, seen) = (calls.clone(), Arc::clone(&most));
    let running = serve_with(config(), &route(on()), options, move |_| {
        let (n, at_once, seen) = (counted.next(), Arc::clone(&at_once), Arc::clone(&seen));
        async move {
            seen.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            at_once.fetch_sub(1, Ordering::SeqCst);
            Ok(numbered(n, &[("Cache-Control", fresh)]))
        }
    });
    (running, calls, most)
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        pause(Duration::from_millis(10));
    }
}

#[test]
fn listed_urls_are_there_before_the_first_request() {
    let mut urls: Vec<String> = (0..20).map(|number| format!("http://a.example/{number}?x=%41")).collect();
    urls.push("no url".into());
    let config = WarmConfig { urls, concurrency: 3, ..WarmConfig::default() };
    let (running, calls, most) = warm(config, "max-age=600");
    until("all are fetched", || calls.count() == 20);
    let mut client = Client::connect(&running);
    for number in 0..20 {
        let target = format!("/{number}?x=%41");
        until("all are stored", || status(&client.get(&target)).starts_with("troupe-l1; hit"));
    }
    assert_eq!(calls.count(), 20);
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?} at once");
}

#[test]
fn the_schedule_fetches_what_is_fresh() {
    let urls = vec!["http://a.example/a".into()];
    let schedule = "* * * * * *".parse().expect("every second");
    let (running, calls, _) = warm(WarmConfig { urls, schedule, ..WarmConfig::default() }, "max-age=600");
    until("it is fetched again and again", || calls.count() >= 3);
    let mut client = Client::connect(&running);
    until("the newest one is answered", || client.get("/a").text() != "body 1");
}

#[test]
fn what_is_asked_for_often_does_not_expire() {
    let (running, calls, _) = warm(WarmConfig { predict: 5, ..WarmConfig::default() }, "max-age=2");
    let mut client = Client::connect(&running);
    for _ in 0..8 {
        client.get("/often");
    }
    client.get("/seldom");
    for _ in 0..8 {
        client.send("GET /mine HTTP/1.1\r\nHost: a.example\r\nCookie: a=1\r\n\r\n").response(false);
    }
    let asked = calls.count();
    until("it is fetched without being asked for", || calls.count() >= asked + 3);
    // Nothing but the one is: it would be fetched as often.
    let refreshed = calls.count() - asked;
    assert!(status(&client.get("/often")).starts_with("troupe-l1; hit"));
    let seldom = client.get("/seldom");
    assert!(!status(&seldom).contains("; hit; ttl=1"), "{} after {refreshed}", seldom.head);
}

#[test]
fn a_network_in_front_is_told_how_long_and_what_groups() {
    let hour = troupe_node::units::Duration::from_secs(3600);
    let details = CacheDetails { cdn_ttl: Some(hour), ..CacheDetails::default() };
    let (running, _) = cached(Some(RouteCache::Details(details)), |envelope, n| async move {
        Ok(match &*envelope.call.function {
            "own" => numbered(n, &[FRESH, ("CDN-Cache-Control", "max-age=7"), ("Surrogate-Key", "theirs")]),
            "private" => numbered(n, &[("Cache-Control", "private")]),
            "cookie" => {
                numbered(n, &[("Cache-Control", "max-age=60, no-cache=\"Set-Cookie\""), ("Set-Cookie", "me=1")])
            }
            "validated" => numbered(n, &[("Cache-Control", "max-age=0, must-revalidate"), ("ETag", "\"a\"")]),
            "stale" => numbered(n, &[("Cache-Control", "max-age=0, stale-while-revalidate=60")]),
            "large" => reply(200, &[FRESH, ("Cache-Groups", "\"a\", \"b c\", \"d\"")], Body::full(bytes(20_000))),
            _ => numbered(n, &[FRESH, ("Cache-Groups", "\"a\", \"b c\", \"d\"")]),
        })
    });
    let mut client = Client::connect(&running);
    for target in ["/a", "/large"] {
        // Stored, out of the store the short way, and the long one.
        let answers = [client.get(target), client.get(target), client.get(target)];
        let long = client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")).response(true);
        for answer in answers.iter().chain([&long]) {
            let field = |name: &str| answer.field(name);
            assert_eq!(field("cdn-cache-control"), Some("max-age=3600"), "{}", answer.head);
            assert_eq!(field("surrogate-control"), Some("max-age=3600"), "{}", answer.head);
            assert_eq!((field("surrogate-key"), field("cache-tag")), (Some("a d"), Some("a,d")), "{}", answer.head);
        }
    }
    let own = client.get("/own");
    assert_eq!((own.field("cdn-cache-control"), own.field("surrogate-key")), (Some("max-age=7"), Some("theirs")));
    assert_eq!(client.get("/private").field("cdn-cache-control"), None, "what is not stored here is not stored there");
    // It would take the place of what the answer says itself: one visitor's cookie was for everybody there.
    for target in ["/cookie", "/validated", "/stale"] {
        let answers = [client.get(target), client.get(target)];
        for (answer, name) in
            answers.iter().flat_map(|answer| [(answer, "cdn-cache-control"), (answer, "surrogate-control")])
        {
            let withheld = target != "/cookie" || answer.field("set-cookie").is_some();
            assert!(answer.field(name).is_none() || !withheld, "{target}: {}", answer.head);
        }
    }
}
