//! The cache, through the gateway: what is answered out of it, what is shared, what is never kept.

mod clauses;
mod errors;
mod parts;
mod personal;
mod shared;
mod short;
mod together;
mod warm;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use troupe_contracts::invoke::{Invoke, Reply};
use troupe_gateway::cache::Cache;
use troupe_gateway::cache::config::{Amount, CacheConfig, CacheDetails, L1Config, RouteCache};
use troupe_gateway::config::RouteConfig;
use troupe_gateway::{Options, Running};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_node::units::Size;

use crate::support::*;

/// Calls that reached the service.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }
}

fn cache_config(size: Size, max_object: Size) -> CacheConfig {
    CacheConfig {
        l1: L1Config { size: Amount::Size(size), max_object, ..L1Config::default() },
        ..CacheConfig::default()
    }
}

fn route(cache: Option<RouteCache>) -> Vec<RouteConfig> {
    vec![RouteConfig { cache, ..any_function() }]
}

fn on() -> Option<RouteCache> {
    Some(RouteCache::Switch(true))
}

/// A gateway with a cache; the service is told how often it was called before.
fn cached<F, A>(cache: Option<RouteCache>, service: F) -> (Running, Calls)
where
    F: Fn(Envelope<Invoke>, usize) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Reply, Failure>> + 'static,
{
    let calls = Calls::default();
    let counted = calls.clone();
    let options = Options {
        threads: 2,
        cache: Cache::new(&cache_config(Size::from_mib(32), Size::from_mib(1))),
        ..Options::default()
    };
    let running = serve_with(config(), &route(cache), options, move |envelope| {
        let n = counted.next();
        service(envelope, n)
    });
    (running, calls)
}

fn numbered(n: usize, fields: &[(&str, &str)]) -> Reply {
    reply(200, fields, Body::full(format!("body {n}").into()))
}

const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");

/// Whether `status` begins like this and ends with a time, which depends on how busy the machine is, and `stored`.
fn is_stored(status: &str, begins: &str) -> bool {
    let ttl = status.strip_prefix(begins).and_then(|rest| rest.strip_suffix("; stored"));
    ttl.and_then(|ttl| ttl.parse::<u64>().ok()).is_some_and(|ttl| (30..=60).contains(&ttl))
}

fn status(response: &Response) -> &str {
    response.field("cache-status").unwrap_or_default()
}

/// RFC 9111 §4 and §5.1: found by its whole key, and sent with its age.
#[test]
fn a_fresh_answer_comes_out_of_the_store() {
    let (running, calls) =
        cached(
            on(),
            |_, n| async move { Ok(numbered(n, &[FRESH, ("X-A", "1"), ("Connection", "x-b"), ("X-B", "1")])) },
        );
    let mut client = Client::connect(&running);
    let first = client.get("/a?b");
    assert_eq!(first.text(), "body 1");
    assert!(is_stored(status(&first), "troupe-l1; fwd=uri-miss; ttl="), "{}", first.head);
    assert_eq!(first.field("age"), None);
    for _ in 0..3 {
        let hit = client.get("/a?b");
        assert_eq!(hit.text(), "body 1");
        assert!(status(&hit).starts_with("troupe-l1; hit; ttl="), "{}", hit.head);
        assert_eq!((hit.field("x-a"), hit.field("x-b")), (Some("1"), None));
        assert!(hit.field("age").and_then(|age| age.parse::<u64>().ok()).is_some_and(|age| age < 30), "{}", hit.head);
        assert_eq!(hit.head.matches("date:").count(), 1, "{}", hit.head);
    }
    assert_eq!(client.get("/a").text(), "body 2", "another query is another key");
    let other = client.send("GET /a?b HTTP/1.1\r\nHost: b.example\r\n\r\n").response(false);
    assert_eq!(other.text(), "body 3", "another host is another key");
    assert_eq!(calls.count(), 3);
}

#[test]
fn a_request_id_is_never_a_stored_one() {
    let (running, _) = cached(on(), |_, n| async move { Ok(numbered(n, &[FRESH, ("X-Request-Id", "theirs")])) });
    let mut client = Client::connect(&running);
    let ids: Vec<_> = (0..3).map(|_| client.get("/a").field("x-request-id").map(str::to_owned)).collect();
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && !ids.contains(&Some("theirs".to_owned())), "{ids:?}");
}

/// RFC 9111 §4.3.5 and RFC 9110 §9.3.2: a HEAD is answered by what a GET stored; where it has to ask, it asks for all of it, which makes
/// anew what was stored.
#[test]
fn head_is_answered_from_get_and_fills_it() {
    let (running, calls) = cached(on(), |_, n| async move { Ok(numbered(n, &[FRESH])) });
    let mut client = Client::connect(&running);
    let head = client.send("HEAD /a HTTP/1.1\r\nHost: a.example\r\n\r\n").response(true);
    assert_eq!((head.status, head.field("content-length")), (200, Some("6")));
    assert_eq!(client.get("/a").text(), "body 1");
    let head = client.send("HEAD /a HTTP/1.1\r\nHost: a.example\r\n\r\n").response(true);
    assert_eq!((head.field("content-length"), calls.count()), (Some("6"), 1));
}

/// RFC 9111 §4.3.5: what a HEAD finds changed, the next GET is not answered with any more.
#[test]
fn head_renews_what_is_stored() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        let head = &envelope.call.head;
        assert_eq!(head.method(), "GET", "the answer to a GET is what is stored");
        Ok(match (n, head.field("if-none-match")) {
            (1, None) => numbered(1, &[("Cache-Control", "max-age=0"), ("ETag", "\"v1\"")]),
            (2, Some(b"\"v1\"")) => numbered(2, &[("Cache-Control", "max-age=600"), ("ETag", "\"v2\"")]),
            other => panic!("asked for {other:?}"),
        })
    });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/a").text(), "body 1");
    let head = client.send("HEAD /a HTTP/1.1\r\nHost: a.example\r\n\r\n").response(true);
    assert_eq!((head.status, head.field("etag")), (200, Some("\"v2\"")));
    let after = client.get("/a");
    assert!(after.text() == "body 2" && status(&after).starts_with("troupe-l1; hit"), "{}", after.head);
    assert_eq!(calls.count(), 2);
}

/// RFC 9111 §4.3.2, RFC 9110 §13.2.2 and §14.2.
#[test]
fn conditions_and_ranges_are_answered_from_the_whole() {
    let (running, calls) = cached(on(), |envelope, _| async move {
        let head = &envelope.call.head;
        assert!(head.field("range").is_none() && head.field("if-none-match").is_none(), "asked for the whole");
        Ok(reply(200, &[FRESH, ("ETag", "\"v1\""), ("Content-Type", "text/plain")], Body::full(bytes(26))))
    });
    let mut client = Client::connect(&running);
    let mut ask =
        |fields: &str| client.send(format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")).response(false);
    let part = ask("Range: bytes=2-4\r\n");
    assert_eq!((part.status, part.text().as_str(), part.field("content-range")), (206, "cde", Some("bytes 2-4/26")));
    assert_eq!(
        (ask("Range: bytes=-2\r\n").text(), ask("Range: bytes=24-\r\n").text()),
        ("yz".to_owned(), "yz".to_owned())
    );
    let unmodified = ask("If-None-Match: W/\"v1\"\r\n");
    assert_eq!(
        (unmodified.status, unmodified.field("etag"), unmodified.field("content-type")),
        (304, Some("\"v1\""), None)
    );
    assert_eq!(ask("If-None-Match: \"v2\"\r\n").status, 200);
    let outside = ask("Range: bytes=99-\r\n");
    assert_eq!((outside.status, outside.field("content-range")), (416, Some("bytes */26")));
    let several = ask("Range: bytes=0-0,25-25\r\n");
    assert!(several.field("content-type").is_some_and(|kind| kind.starts_with("multipart/byteranges; boundary=")));
    assert!(several.text().contains("Content-Range: bytes 25-25/26\r\n\r\nz\r\n"), "{}", several.text());
    assert_eq!(ask("Range: bytes=0-0\r\nIf-Range: \"v1\"\r\n").status, 206);
    assert_eq!(ask("Range: bytes=0-0\r\nIf-Range: \"v2\"\r\n").status, 200);
    assert_eq!(calls.count(), 1);
}

/// RFC 9111 §4.3.1, §4.3.3 and §4.3.4.
#[test]
fn a_stale_answer_is_validated_and_a_304_refreshes_it() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        Ok(match envelope.call.head.field("if-none-match") {
            Some(b"\"v1\"") => reply(304, &[("ETag", "\"v1\""), FRESH, ("X-New", "1")], Body::Empty),
            _ => numbered(n, &[("Cache-Control", "max-age=60"), ("Age", "60"), ("ETag", "\"v1\""), ("X-Old", "1")]),
        })
    });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/a").text(), "body 1");
    let again = client.get("/a");
    assert_eq!((again.status, again.text().as_str()), (200, "body 1"));
    assert!(is_stored(status(&again), "troupe-l1; fwd=stale; fwd-status=304; ttl="), "{}", again.head);
    assert_eq!((again.field("x-new"), again.field("x-old")), (Some("1"), Some("1")));
    assert!(status(&client.get("/a")).starts_with("troupe-l1; hit"));
    assert_eq!(calls.count(), 2);
    let forced = client.send("GET /a HTTP/1.1\r\nHost: a.example\r\nCache-Control: no-cache\r\n\r\n").response(false);
    assert!(status(&forced).starts_with("troupe-l1; fwd=request; fwd-status=304"), "{}", forced.head);
}

/// RFC 9111 §3.
#[test]
fn what_is_not_to_be_stored_is_not() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        Ok(match &*envelope.call.function {
            "cookie" => numbered(n, &[FRESH, ("Set-Cookie", "a=1")]),
            "private" => numbered(n, &[("Cache-Control", "private, max-age=60")]),
            "none" => numbered(n, &[]),
            _ => numbered(n, &[("Cache-Control", "no-store")]),
        })
    });
    let mut client = Client::connect(&running);
    for (target, why) in
        [("/cookie", "set-cookie"), ("/private", "private"), ("/none", "no-freshness"), ("/x", "no-store")]
    {
        for _ in 0..2 {
            let response = client.get(target);
            assert_eq!(status(&response), format!("troupe-l1; fwd=uri-miss; detail={why}"), "{target}");
        }
    }
    assert_eq!(calls.count(), 8);
}

/// RFC 9111 §3.5.
#[test]
fn an_answer_with_credentials_is_only_shared_when_it_says_so() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        Ok(match &*envelope.call.function {
            "public" => numbered(n, &[("Cache-Control", "public, max-age=60")]),
            _ => numbered(n, &[FRESH]),
        })
    });
    let mut client = Client::connect(&running);
    let mut ask = |target: &str| {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\n\r\n")).response(false).text()
    };
    assert_eq!((ask("/own"), ask("/own")), ("body 1".to_owned(), "body 2".to_owned()));
    assert_eq!((ask("/public"), ask("/public")), ("body 3".to_owned(), "body 3".to_owned()));
    assert_eq!(calls.count(), 3);
}

/// RFC 9111 §4.1.
#[test]
fn variants_stand_beside_each_other() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        let language = envelope.call.head.field("accept-language").unwrap_or_default().to_vec();
        let text = format!("{} {n}", String::from_utf8_lossy(&language));
        Ok(reply(200, &[FRESH, ("Vary", "Accept-Language")], Body::full(text.into())))
    });
    let mut client = Client::connect(&running);
    let mut ask = |language: &str| {
        client.send(format!("GET /a HTTP/1.1\r\nHost: a\r\nAccept-Language: {language}\r\n\r\n")).response(false)
    };
    assert_eq!((ask("de").text(), ask("en").text()), ("de 1".to_owned(), "en 2".to_owned()));
    assert_eq!((ask("de").text(), ask("en").text()), ("de 1".to_owned(), "en 2".to_owned()));
    assert!(status(&ask("fr")).starts_with("troupe-l1; fwd=vary-miss"));
    assert_eq!(calls.count(), 3);
}

/// RFC 9111 §4.4.
#[test]
fn an_unsafe_request_invalidates_what_it_names() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        Ok(match envelope.call.head.method() {
            "POST" if envelope.call.head.query() == "fail" => reply(400, &[], Body::Empty),
            "POST" => reply(201, &[("Location", "/b")], Body::Empty),
            _ => numbered(n, &[FRESH]),
        })
    });
    let mut client = Client::connect(&running);
    let fill = |client: &mut Client| ["/a", "/b", "/c"].map(|target| client.get(target).text());
    let before = fill(&mut client);
    assert_eq!(
        client.send("POST /a?fail HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n").response(false).status,
        400
    );
    assert_eq!(fill(&mut client), before);
    let posted = client.send("POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nx").response(false);
    assert_eq!((posted.status, status(&posted)), (201, "troupe-l1; fwd=method"));
    let after = fill(&mut client);
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2], "{before:?} {after:?}");
    assert_eq!(calls.count(), 7);
}

/// RFC 5861 §3 and §4.
#[test]
fn a_stale_answer_stands_in_while_it_is_refreshed_and_when_the_origin_fails() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        match &*envelope.call.function {
            "refresh" => Ok(numbered(
                n,
                &[("Cache-Control", "max-age=60, stale-while-revalidate=60"), ("Age", if n == 1 { "61" } else { "0" })],
            )),
            _ if n == 1 => Ok(numbered(n, &[("Cache-Control", "max-age=60, stale-if-error=60"), ("Age", "61")])),
            "status" => Ok(reply(503, &[], Body::Empty)),
            _ => Err(Failure::new(Outcome::Unreachable, Stage::Balancer, "nobody is there")),
        }
    });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/refresh").text(), "body 1");
    let stale = client.get("/refresh");
    assert_eq!((stale.text().as_str(), status(&stale).contains("hit; ttl=-")), ("body 1", true), "{}", stale.head);
    while client.get("/refresh").text() != "body 2" {
        pause(Duration::from_millis(5));
    }
    assert_eq!(calls.count(), 2);
    for target in ["/status", "/failure"] {
        calls.0.store(0, Ordering::SeqCst);
        assert_eq!(client.get(target).text(), "body 1");
        let stale = client.get(target);
        assert_eq!((stale.status, stale.text().as_str()), (200, "body 1"));
        // RFC 9211 §2.1: it was forwarded, so it is no hit, whatever came of it.
        let said = status(&stale);
        assert!(said.starts_with("troupe-l1; fwd=stale; ") && !said.contains("hit"), "{}", stale.head);
        assert!(said.contains("; ttl=-") && said.ends_with("; detail=origin-failed"), "{}", stale.head);
        assert_eq!(said.contains("; fwd-status=503; "), target == "/status", "{}", stale.head);
        assert!(stale.field("age").is_some_and(|age| age.parse::<u64>().is_ok_and(|age| age >= 61)), "{}", stale.head);
    }
}

/// RFC 9111 §5.2.2.2.
#[test]
fn without_permission_a_failure_is_a_failure() {
    let (running, _) = cached(on(), |_, n| async move {
        match n {
            1 => Ok(numbered(
                n,
                &[
                    ("Cache-Control", "max-age=60, must-revalidate, stale-if-error=60"),
                    ("Age", "60"),
                    ("ETag", "\"a\""),
                ],
            )),
            _ => Err(Failure::new(Outcome::Unreachable, Stage::Balancer, "nobody is there")),
        }
    });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/a").status, 200);
    let failed = client.get("/a");
    assert_eq!((failed.status, status(&failed)), (503, "troupe-l1; fwd=stale"));
}

/// RFC 9111 §5.2.1.7.
#[test]
fn only_if_cached_fetches_nothing() {
    let (running, calls) = cached(on(), |_, n| async move { Ok(numbered(n, &[FRESH])) });
    let mut client = Client::connect(&running);
    let ask = "GET /a HTTP/1.1\r\nHost: a.example\r\nCache-Control: only-if-cached\r\n\r\n";
    assert_eq!(client.send(ask).response(false).status, 504);
    assert_eq!(calls.count(), 0);
    client.get("/a");
    assert_eq!(client.send(ask).response(false).text(), "body 1");
}

/// RFC 9111 §7.1: cache poisoning.
#[test]
fn nothing_outside_of_the_key_has_a_say() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        let head = &envelope.call.head;
        let seen = ["x-forwarded-host", "x-forwarded-for", "x-original-url"]
            .iter()
            .filter(|name| head.field(name).is_some())
            .count();
        Ok(reply(200, &[FRESH], Body::full(format!("{n} {seen} {:?}", envelope.call.body.len()).into())))
    });
    let mut client = Client::connect(&running);
    let mut ask = |fields: &str, body: &str| {
        client.send(format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n{body}")).response(false)
    };
    // Fields that frameworks obey: neither answered from the store nor put there. Those that name another client are not passed on.
    for poison in ["X-Original-URL: /evil\r\n", "X-HTTP-Method-Override: DELETE\r\n", "X-Rewrite-URL: /evil\r\n"] {
        assert_eq!(status(&ask(poison, "")), "troupe-l1; fwd=bypass", "{poison}");
    }
    // A GET with a body, which is in no key.
    let fat = ask("Content-Length: 4\r\n", "evil");
    assert!(fat.text().ends_with("Some(4)") && status(&fat) == "troupe-l1; fwd=bypass", "{}", fat.head);
    assert_eq!(calls.count(), 4);
    assert_eq!(ask("X-Forwarded-Host: evil.example\r\n", "").text(), "5 0 Some(0)");
    assert_eq!(ask("", "").text(), "5 0 Some(0)");
}

/// RFC 9111 §7.1: one path, one key.
#[test]
fn paths_that_servers_disagree_about_are_no_keys() {
    let (running, calls) = cached(on(), |envelope, n| async move {
        // A function that reads its path loosely: whatever is behind `;` or an extension is the same page to it.
        Ok(reply(200, &[FRESH], Body::full(format!("{n} {}", envelope.call.head.path()).into())))
    });
    let mut client = Client::connect(&running);
    for refused in ["/me%2f..%2fx.css", "/me%00.css", "/me\\x.css", "/me//x.css", "/%2e%2e/me"] {
        assert_eq!(client.get(refused).status, 400, "{refused}");
    }
    assert_eq!(calls.count(), 0);
    let texts: Vec<_> = ["/me", "/me;x.css", "/me/x.css", "/me%3Fx.css", "/me.css", "/me%23x.css"]
        .map(|target| client.get(target).text())
        .into();
    assert_eq!(calls.count(), 6, "each is a key of its own: {texts:?}");
    assert_eq!(client.get("/%6de").text(), texts[0], "what means the same is the same key");
}

/// RFC 9111 §7.3: what is made for one client is not given to another.
#[test]
fn a_deceived_client_does_not_fill_the_store_for_others() {
    let details = CacheDetails { ttl: Some(troupe_node::units::Duration::from_secs(60)), ..CacheDetails::default() };
    let (running, calls) = cached(Some(RouteCache::Details(details)), |envelope, n| async move {
        let who = envelope.call.head.field("cookie").map(|cookie| String::from_utf8_lossy(cookie).into_owned());
        Ok(reply(200, &[], Body::full(format!("{n} {who:?}").into())))
    });
    let mut client = Client::connect(&running);
    let mine = client.send("GET /me/x.css HTTP/1.1\r\nHost: a.example\r\nCookie: me\r\n\r\n").response(false);
    assert!(mine.text().contains("me"));
    assert_eq!(client.get("/me/x.css").text(), "2 None");
    assert_eq!(client.get("/me/x.css").text(), "2 None", "what is the same for all is kept");
    let mine = client.send("GET /me/x.css HTTP/1.1\r\nHost: a.example\r\nCookie: me\r\n\r\n").response(false);
    assert!(mine.text().contains("me") && status(&mine).contains("fwd=bypass"), "{}", mine.head);
    assert_eq!(calls.count(), 3);
}

#[test]
fn a_route_that_says_nothing_caches_what_asks_for_it() {
    let (running, calls) = cached(None, |envelope, n| async move {
        Ok(match &*envelope.call.function {
            "asks" => numbered(n, &[("Troupe-Cache-Control", "max-age=60")]),
            _ => numbered(n, &[FRESH]),
        })
    });
    let mut client = Client::connect(&running);
    let plain = client.get("/plain");
    assert_eq!(plain.field("cache-status"), None);
    assert_eq!(client.get("/plain").text(), "body 2");
    let texts: Vec<_> = (0..4).map(|_| client.get("/asks")).collect();
    assert!(texts.iter().all(|response| response.field("troupe-cache-control").is_none()));
    assert_eq!(texts[3].text(), texts[2].text());
    assert!(status(&texts[3]).starts_with("troupe-l1; hit"), "{}", texts[3].head);
    assert_eq!(client.get("/plain").text(), format!("body {}", calls.count()), "its neighbours are not cached");
}

#[test]
fn a_route_that_says_false_caches_nothing() {
    let (running, calls) = cached(Some(RouteCache::Switch(false)), |_, n| async move {
        Ok(numbered(n, &[FRESH, ("Troupe-Cache-Control", "max-age=60")]))
    });
    let mut client = Client::connect(&running);
    for _ in 0..3 {
        assert_eq!(client.get("/a").field("cache-status"), None);
    }
    assert_eq!(calls.count(), 3);
}

#[test]
fn parameters_that_are_ignored_are_not_passed_on() {
    let details = CacheDetails { ignore_query: vec!["utm_*".into()], sort_query: true, ..CacheDetails::default() };
    let (running, calls) = cached(Some(RouteCache::Details(details)), |envelope, _| async move {
        Ok(reply(200, &[FRESH], Body::full(envelope.call.head.query().to_owned().into())))
    });
    let mut client = Client::connect(&running);
    assert_eq!(client.get("/a?b=1&utm_source=evil&a=2").text(), "a=2&b=1");
    assert_eq!(client.get("/a?a=2&b=1").text(), "a=2&b=1");
    assert_eq!(calls.count(), 1);
}
