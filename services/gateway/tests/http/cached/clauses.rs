//! Rules of HTTP caching that only a whole exchange shows.

use std::sync::atomic::Ordering;
use std::time::Duration;

use troupe_contracts::invoke::Reply;
use troupe_gateway::Options;
use troupe_gateway::cache::Cache;
use troupe_gateway::cache::config::{CacheConfig, CacheDetails, L1Config, RouteCache};
use troupe_mesh::body::Body;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_node::units;

use super::{Calls, FRESH, cached, numbered, on, route, status};
use crate::support::*;

fn ask(client: &mut Client, target: &str, field: &str) -> Response {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{field}\r\n")).response(false)
}

/// RFC 9111 §4.3.4 and RFC 9110 §6.6.1: functions date none of their answers. By the date of what is stored the answer was stale again
/// as soon as a 304 had made it fresh, for ever.
#[test]
fn a_304_without_a_date_makes_fresh_what_is_older_than_its_lifetime() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        Ok(match envelope.call.head.field("if-none-match") {
            Some(_) => reply(304, &[], Body::Empty),
            None => numbered(n, &[FRESH, ("ETag", "\"a\""), ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")]),
        })
    });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/a").text(), "body 1");
    let validated = client.get("/a");
    assert_eq!((validated.text().as_str(), calls.count()), ("body 1", 2));
    assert!(
        status(&validated).contains("fwd-status=304") && status(&validated).contains("stored"),
        "{}",
        validated.head
    );
    assert_eq!(
        (validated.head.matches("date:").count(), validated.head.contains("1994")),
        (1, false),
        "{}",
        validated.head
    );
    let hit = client.get("/a");
    assert!(status(&hit).starts_with("troupe-l1; hit"), "{}", hit.head);
    assert_eq!(calls.count(), 2);
}

/// RFC 9111 §4.2.4: that nobody can be reached is no leave to give what is stale. The answer gives it by `stale-if-error`, the
/// request by `max-stale`; `must-revalidate` (§5.2.2.2), `proxy-revalidate` (§5.2.2.8), `s-maxage` (§5.2.2.10) and `no-cache`
/// (§5.2.2.4) take it from both.
#[test]
fn disconnected_it_gives_only_what_may_be_stale() {
    let (running, _) = cached(on(), |envelope, _| async move {
        let control = match &*envelope.call.function {
            "plain" => "max-age=60",
            "allowed" => "max-age=60, stale-if-error=600",
            "strict" => "max-age=60, stale-if-error=600, must-revalidate",
            "proxies" => "max-age=60, stale-if-error=600, proxy-revalidate",
            "shared" => "s-maxage=60, stale-if-error=600",
            _ => "max-age=60, stale-if-error=600, no-cache",
        };
        match envelope.call.head.field("if-none-match") {
            None => Ok(numbered(1, &[("Cache-Control", control), ("Age", "61"), ("ETag", "\"a\"")])),
            Some(_) => Err(Failure::new(Outcome::Unreachable, Stage::Balancer, "nobody is there")),
        }
    });
    let mut client = Client::connect(&running);
    let cases = [
        ("/plain", "", false),
        ("/plain", "Cache-Control: max-stale\r\n", true),
        ("/plain", "Cache-Control: stale-if-error=600\r\n", true),
        ("/allowed", "", true),
        ("/strict", "", false),
        ("/strict", "Cache-Control: max-stale\r\n", false),
        ("/strict", "Cache-Control: stale-if-error=600\r\n", false),
        ("/proxies", "", false),
        ("/proxies", "Cache-Control: max-stale\r\n", false),
        ("/shared", "", false),
        ("/shared", "Cache-Control: max-stale\r\n", false),
        ("/unchecked", "", false),
        ("/unchecked", "Cache-Control: max-stale\r\n", false),
    ];
    for (n, (path, field, given)) in cases.into_iter().enumerate() {
        let target = format!("{path}?{n}");
        assert_eq!(ask(&mut client, &target, "").status, 200);
        let answer = ask(&mut client, &target, field);
        assert_eq!(answer.status, if given { 200 } else { 503 }, "{target} {field}: {}", answer.head);
        assert_eq!(answer.field("age").is_some(), given, "{target} {field}: {}", answer.head);
    }
}

/// RFC 9110 §9.3.3 and RFC 9111 §4: an answer to a POST that says how long it is fresh, and of which URL it is, might be kept
/// for a GET of that URL. Here it is not: the POST's body made it and is in no key. It takes out what was there (§4.4).
#[test]
fn an_answer_to_a_post_is_never_kept() {
    let (running, calls) = cached(on(), |_, n| async move { Ok(numbered(n, &[FRESH, ("Content-Location", "/a")])) });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/a").text(), "body 1");
    let posted = client.send("POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nx").response(false);
    assert_eq!((posted.text().as_str(), status(&posted)), ("body 2", "troupe-l1; fwd=method"));
    assert_eq!(client.get("/a").text(), "body 3");
    assert_eq!(client.get("/a").text(), "body 3");
    let posted = client.send("POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nx").response(false);
    assert_eq!(posted.text(), "body 4", "no POST is answered from the store");
    assert_eq!(calls.count(), 4);
}

/// `cache.l1.max_ttl`: what the origin calls fresh for a minute is validated when its time here is up.
#[test]
fn the_first_tier_has_a_ceiling() {
    let calls = Calls::default();
    let counted = calls.clone();
    let l1 = L1Config { max_ttl: units::Duration::from_millis(300), ..L1Config::default() };
    let cache = Cache::new(&CacheConfig { l1, ..CacheConfig::default() });
    let options = Options { threads: 1, cache, ..Options::default() };
    let running = serve_with(config(), &route(on()), options, move |envelope| {
        counted.next();
        async move {
            Ok::<Reply, Failure>(match envelope.call.head.field("if-none-match") {
                None => numbered(1, &[FRESH, ("ETag", "\"a\"")]),
                Some(_) => reply(304, &[FRESH, ("ETag", "\"a\"")], troupe_mesh::body::Body::Empty),
            })
        }
    });
    let mut client = Client::connect(&running);
    for _ in 0..3 {
        calls.0.store(0, Ordering::SeqCst);
        let answer = loop {
            let answer = client.get("/a");
            if !status(&answer).starts_with("troupe-l1; hit") {
                break answer;
            }
            assert_eq!(calls.count(), 0, "a hit asks nobody");
            pause(Duration::from_millis(10));
        };
        assert_eq!((answer.status, answer.text().as_str(), calls.count()), (200, "body 1", 1), "{}", answer.head);
    }
    let told = client.get("/b");
    // Whole seconds that are left, of which the first may have begun.
    let ttl = status(&told).split_once("ttl=").and_then(|(_, rest)| rest.split([';', ',']).next()?.parse().ok());
    assert!(
        ttl.is_some_and(|ttl: u32| (50..=60).contains(&ttl)),
        "what others are told stays as it was: {}",
        told.head
    );
}

/// RFC 9111 §4.4: what a POST to a URL has changed is not given any more, though it was stored under another form of that URL.
#[test]
fn an_unsafe_request_invalidates_what_is_stored_under_a_sorted_query() {
    let details = CacheDetails { sort_query: true, ignore_query: vec!["utm_*".into()], ..CacheDetails::default() };
    let (running, _) = cached(Some(RouteCache::Details(details)), |_, n| async move { Ok(numbered(n, &[FRESH])) });
    let mut client = Client::connect(&running);
    let url = "/a?b=1&utm_x=7&a=2";
    assert_eq!((client.get(url).text().as_str(), client.get("/a?a=2&b=1").text().as_str()), ("body 1", "body 1"));
    let post = format!("POST {url} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.send(post).response(false).text(), "body 2");
    assert_eq!(client.get(url).text(), "body 3");
}
