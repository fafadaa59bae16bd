use std::time::Duration;

use super::*;
use crate::heads::{get, request, response};
use crate::policy::StatusTtl;
use crate::time::Moment;

const NOW: Moment = Moment::from_secs(784_111_777);
const TIMES: Times = Times { requested: NOW, received: NOW };

fn judged(asked: &[(&str, &str)], status: u16, fields: &[(&str, &str)], policy: &Policy) -> Result<Terms, Refusal> {
    judge(&get("/", asked), &response(status, fields), TIMES, policy)
}

fn cc(value: &str) -> Result<Terms, Refusal> {
    judged(&[], 200, &[("Cache-Control", value)], &Policy::new())
}

fn refusal(result: Result<Terms, Refusal>) -> Option<Refusal> {
    result.err()
}

/// §3: only methods whose caching is defined.
#[test]
fn only_get_is_stored() {
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
        let head = response(200, &[("Cache-Control", "max-age=60")]);
        let asked = request(method, "a", "/", &[]);
        assert_eq!(refusal(judge(&asked, &head, TIMES, &Policy::new())), Some(Refusal::Method), "{method}");
    }
}

/// §3: any final status with explicit freshness, known or not; never an interim one, a part, or a 304.
#[test]
fn statuses() {
    for status in [
        200, 201, 202, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 418, 451, 499, 500,
        501, 503, 599, 999,
    ] {
        assert!(judged(&[], status, &[("Cache-Control", "max-age=60")], &Policy::new()).is_ok(), "{status}");
    }
    for status in [100, 103, 206, 304] {
        assert_eq!(
            refusal(judged(&[], status, &[("Cache-Control", "max-age=60")], &Policy::new())),
            Some(Refusal::Status),
            "{status}"
        );
    }
}

/// §5.2.1.5 and §5.2.2.5: `no-store` of either side.
#[test]
fn no_store_is_not_stored() {
    assert_eq!(refusal(cc("no-store, max-age=60")), Some(Refusal::NoStore));
    assert_eq!(refusal(cc("max-age=60, NO-STORE")), Some(Refusal::NoStore));
    let fresh = &[("Cache-Control", "max-age=60")];
    assert_eq!(
        refusal(judged(&[("Cache-Control", "no-store")], 200, fresh, &Policy::new())),
        Some(Refusal::RequestNoStore)
    );
    let deaf = Policy { obey_requests: false, ..Policy::new() };
    assert!(judged(&[("Cache-Control", "no-store")], 200, fresh, &deaf).is_ok());
}

/// §3 and §5.2.2.3: `must-understand` overrides `no-store` for a status that is understood, and keeps one that is not out of the
/// store.
#[test]
fn must_understand() {
    assert!(cc("no-store, must-understand, max-age=60").is_ok());
    let strange = judged(&[], 299, &[("Cache-Control", "no-store, must-understand, max-age=60")], &Policy::new());
    assert_eq!(refusal(strange), Some(Refusal::NoStore));
    let strange = judged(&[], 299, &[("Cache-Control", "must-understand, max-age=60")], &Policy::new());
    assert_eq!(refusal(strange), Some(Refusal::Status));
    let part = response(
        206,
        &[("Cache-Control", "must-understand, max-age=60"), ("ETag", "\"a\""), ("Content-Range", "bytes 0-1/9")],
    );
    assert!(judge_part(&get("/", &[]), &part, TIMES, &Policy::new()).is_ok());
}

/// RFC 9110 §15.1 and RFC 9111 §4.2.2: every status that is cacheable by a guess is stored by one, and no other is; with
/// freshness of its own, any final one is, errors included.
#[test]
fn every_status_that_may_be_guessed_is_and_no_other() {
    let modified = &[("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT")];
    for status in 200..600 {
        let guessable = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501].contains(&status);
        assert_eq!(judged(&[], status, modified, &Policy::new()).is_ok(), guessable, "{status}");
        let fresh = judged(&[], status, &[("Cache-Control", "max-age=60")], &Policy::new()).is_ok();
        // 416 is about the range of the one who asked.
        assert_eq!(fresh, !matches!(status, 206 | 304 | 416), "{status}");
    }
    let fields = &[modified[0], ("ETag", "\"a\""), ("Content-Range", "bytes 0-1/9")];
    let terms = judge_part(&get("/", &[]), &response(206, fields), TIMES, &Policy::new()).unwrap();
    assert_eq!(terms.source, Source::Heuristic, "a part, as a part");
    let sure = Policy { heuristic: false, ..Policy::new() };
    assert_eq!(
        refusal(judged(&[], 404, modified, &sure)),
        Some(Refusal::NoFreshness),
        "where the route forbids guesses"
    );
}

/// §5.2.2.7: a shared cache stores nothing private, but what is left when only some fields are.
#[test]
fn private_is_not_stored() {
    assert_eq!(refusal(cc("private, max-age=60")), Some(Refusal::Private));
    let part = cc("private=\"x-user\", max-age=60").unwrap();
    assert_eq!(part.withheld, [Box::from("x-user")]);
}

/// §3.5: with credentials only what the response opens to others.
#[test]
fn authorization() {
    let asked = &[("Authorization", "Basic eA==")];
    assert_eq!(
        refusal(judged(asked, 200, &[("Cache-Control", "max-age=60")], &Policy::new())),
        Some(Refusal::Authorization)
    );
    for opening in ["public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60"] {
        assert!(judged(asked, 200, &[("Cache-Control", opening)], &Policy::new()).is_ok(), "{opening}");
    }
    let route = Policy { ttl: Some(Duration::from_secs(60)), ..Policy::new() };
    assert!(judged(asked, 200, &[], &route).is_err(), "the configuration does not open it");
}

/// §7.3: a response that sets a cookie is somebody's, unless it says that the cookie may be left out.
#[test]
fn set_cookie() {
    let with = |control| judged(&[], 200, &[("Cache-Control", control), ("Set-Cookie", "a=1")], &Policy::new());
    assert_eq!(refusal(with("max-age=60")), Some(Refusal::SetCookie));
    assert_eq!(refusal(with("public, max-age=60")), Some(Refusal::SetCookie));
    assert!(with("max-age=60, no-cache=\"Set-Cookie\"").is_ok());
}

/// §3: something must say that it may be stored: a lifetime, `public`, or a status of RFC 9110 §15.1 that can be validated.
#[test]
fn something_has_to_allow_it() {
    assert_eq!(refusal(judged(&[], 200, &[], &Policy::new())), Some(Refusal::NoFreshness));
    assert!(judged(&[], 200, &[("ETag", "\"a\"")], &Policy::new()).is_ok());
    assert!(judged(&[], 200, &[("Expires", "Sun, 06 Nov 1994 08:50:37 GMT")], &Policy::new()).is_ok());
    for status in [204, 404, 405, 410, 414, 501] {
        let modified = &[("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT")];
        assert!(judged(&[], status, modified, &Policy::new()).is_ok(), "{status}");
    }
    assert_eq!(
        refusal(judged(&[], 403, &[("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT")], &Policy::new())),
        Some(Refusal::NoFreshness)
    );
    assert_eq!(refusal(cc("max-age=0")), Some(Refusal::NoFreshness));
}

/// §5.2.2.4: stored, but used only after validation.
#[test]
fn no_cache_is_stored_for_validation() {
    let terms =
        judged(&[], 200, &[("Cache-Control", "no-cache, max-age=60"), ("ETag", "\"a\"")], &Policy::new()).unwrap();
    assert!(terms.no_cache);
    assert_eq!(refusal(cc("no-cache, max-age=60")), Some(Refusal::NoFreshness), "nothing to validate with");
}

/// §4.1: what varies on everything answers nothing.
#[test]
fn vary_star_is_not_stored() {
    let fields = &[("Cache-Control", "max-age=60"), ("Vary", "accept, *")];
    assert_eq!(refusal(judged(&[], 200, fields, &Policy::new())), Some(Refusal::Vary));
}

/// §5.2.2.10: `s-maxage` implies `proxy-revalidate`; §5.2.2.2 and §5.2.2.8: never stale, whatever RFC 5861 or the
/// configuration would allow.
#[test]
fn revalidation_rules_out_stale_answers() {
    let generous = Policy {
        stale_if_error: Duration::from_secs(9),
        stale_while_revalidate: Duration::from_secs(9),
        ..Policy::new()
    };
    for strict in ["s-maxage=60", "max-age=60, must-revalidate", "max-age=60, proxy-revalidate"] {
        let value = format!("{strict}, stale-while-revalidate=5, stale-if-error=5");
        let terms = judged(&[], 200, &[("Cache-Control", &value)], &generous).unwrap();
        assert_eq!((terms.stale_while_revalidate, terms.stale_if_error), (0, 0), "{strict}");
        assert!(terms.must_revalidate);
    }
    let terms = judged(&[], 200, &[("Cache-Control", "max-age=60, stale-if-error=5")], &generous).unwrap();
    assert_eq!(
        (terms.stale_while_revalidate, terms.stale_if_error),
        (9000, 5000),
        "the response before the configuration"
    );
}

/// RFC 9213 §2.1: the targeted field stands in for `Cache-Control` and `Expires`, both ways.
#[test]
fn targeted_fields_come_first() {
    let both = |cdn, plain| judged(&[], 200, &[("CDN-Cache-Control", cdn), ("Cache-Control", plain)], &Policy::new());
    assert_eq!(both("max-age=10", "no-store").unwrap().lifetime, 10_000);
    assert_eq!(both("max-age=10", "max-age=600").unwrap().lifetime, 10_000);
    assert_eq!(refusal(both("no-store", "max-age=600")), Some(Refusal::NoStore));
    assert_eq!(both("", "max-age=600").unwrap().lifetime, 600_000);
    assert_eq!(both("nonsense here", "max-age=600").unwrap().lifetime, 600_000);
    assert_eq!(refusal(both("max-age=\"10\"", "max-age=600")), Some(Refusal::NoFreshness));
    let expires = &[("CDN-Cache-Control", "public"), ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT")];
    assert_eq!(refusal(judged(&[], 201, expires, &Policy::new())), Some(Refusal::NoFreshness));
}

/// §4.2.3: an `Age` that was received counts against every lifetime, targeted ones included.
#[test]
fn age_is_subtracted() {
    let terms = judged(&[], 200, &[("CDN-Cache-Control", "max-age=10"), ("Age", "4")], &Policy::new()).unwrap();
    assert_eq!((terms.lifetime, terms.initial_age), (10_000, 4000));
    assert!(judged(&[], 200, &[("Cache-Control", "max-age=10"), ("Age", "10")], &Policy::new()).is_err());
}

/// A route's lifetime comes before the response's, but opens nothing that the response or the request closes.
#[test]
fn a_route_may_say_how_long() {
    let route = Policy { ttl: Some(Duration::from_secs(60)), ..Policy::new() };
    assert_eq!(judged(&[], 200, &[], &route).unwrap().lifetime, 60_000);
    assert_eq!(judged(&[], 200, &[("Cache-Control", "max-age=5")], &route).unwrap().lifetime, 60_000);
    assert_eq!(refusal(judged(&[], 200, &[("Cache-Control", "no-store")], &route)), Some(Refusal::NoStore));
    assert_eq!(refusal(judged(&[], 200, &[("Cache-Control", "private")], &route)), Some(Refusal::Private));
    let cookie = &[("Cookie", "session=1")];
    assert_eq!(refusal(judged(cookie, 200, &[], &route)), Some(Refusal::Cookie));
    assert_eq!(judged(cookie, 200, &[("Cache-Control", "max-age=5")], &route).unwrap().lifetime, 5000);
    let ignoring = Policy { ignore_cookies: true, ..route };
    assert_eq!(judged(cookie, 200, &[], &ignoring).unwrap().lifetime, 60_000);
    let capped = Policy { max_ttl: Duration::from_secs(7), ..Policy::new() };
    assert_eq!(judged(&[], 200, &[("Cache-Control", "max-age=60")], &capped).unwrap().lifetime, 7000);
}

/// A route's lifetime is not for statuses that nobody wants to see again, unless they are named; and for each there may be a
/// longest one, whoever says how long.
#[test]
fn statuses_may_have_lifetimes_of_their_own() {
    let route = Policy { ttl: Some(Duration::from_secs(60)), ..Policy::new() };
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        assert_eq!(judged(&[], status, &[], &route).unwrap().lifetime, 60_000, "{status}");
    }
    for status in [201, 302, 307, 400, 403, 429, 500, 502, 503, 504] {
        assert_eq!(refusal(judged(&[], status, &[], &route)), Some(Refusal::NoFreshness), "{status}");
        assert!(judged(&[], status, &[("Cache-Control", "max-age=5")], &route).is_ok(), "{status}");
    }
    let ttl = |statuses, seconds| StatusTtl { statuses, ttl: Duration::from_secs(seconds) };
    let named = Policy { statuses: vec![ttl(400..=499, 10), ttl(404..=404, 3), ttl(500..=599, 0)], ..route };
    assert_eq!(judged(&[], 404, &[], &named).unwrap().lifetime, 3000);
    assert_eq!(judged(&[], 404, &[("Cache-Control", "max-age=99")], &named).unwrap().lifetime, 3000);
    assert_eq!(judged(&[], 403, &[], &named).unwrap().lifetime, 10_000);
    assert_eq!(
        judged(&[], 403, &[("Cache-Control", "max-age=4")], &Policy { ttl: None, ..named.clone() }).unwrap().lifetime,
        4000
    );
    assert_eq!(refusal(judged(&[], 503, &[("Cache-Control", "max-age=99")], &named)), Some(Refusal::NoFreshness));
    assert_eq!(judged(&[], 200, &[], &named).unwrap().lifetime, 60_000);
}

/// A route that does not mention the cache stores only what speaks to this cache by name.
#[test]
fn an_unconfigured_route_stores_what_asks_for_it() {
    let quiet = Policy { only_targeted: true, ..Policy::new() };
    assert_eq!(refusal(judged(&[], 200, &[("Cache-Control", "max-age=60")], &quiet)), Some(Refusal::NoFreshness));
    assert_eq!(refusal(judged(&[], 200, &[("CDN-Cache-Control", "max-age=60")], &quiet)), Some(Refusal::NoFreshness));
    assert_eq!(judged(&[], 200, &[("Troupe-Cache-Control", "max-age=60")], &quiet).unwrap().lifetime, 60_000);
}
