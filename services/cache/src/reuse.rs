//! May a stored response answer a request (RFC 9111 §4)?

use std::time::Duration;

use troupe_wire::head::RequestHead;

use crate::control::RequestControl;
use crate::entry::Entry;
use crate::freshness::Source;
use crate::policy::Policy;
use crate::time::Moment;

/// What a request says that matters to caching, found in one pass over its fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its `Cache-Control`.
    pub control: RequestControl,
    /// It carries cookies or credentials.
    pub personal: bool,
    /// It carries credentials.
    pub authorized: bool,
    /// It is conditional by `If-None-Match` or `If-Modified-Since`, which a cache evaluates (§4.3.2).
    pub conditional: bool,
    /// It asks for a part.
    pub range: bool,
    /// It has some field by which it may be answered with less than the whole.
    pub narrowed: bool,
    /// It has a condition that only the origin can evaluate (`If-Match`, `If-Unmodified-Since`), or a field that makes
    /// frameworks answer another request than the key says: such a request is neither answered from the store nor does
    /// its answer go there.
    pub foreign: bool,
}

/// Fields by which some frameworks let a client change method, host or URL. None of them is in the key.
const OVERRIDES: [&str; 7] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-host",
    "x-http-host-override",
];

impl Asked {
    /// Reads a request.
    pub fn of(request: &RequestHead) -> Self {
        let mut asked = Self::default();
        for (name, value) in request.fields() {
            match name {
                "cache-control" => asked.control.add_line(value),
                "cookie" => asked.personal = true,
                "authorization" => (asked.personal, asked.authorized) = (true, true),
                "if-none-match" | "if-modified-since" => (asked.conditional, asked.narrowed) = (true, true),
                "range" => (asked.range, asked.narrowed) = (true, true),
                "if-range" => asked.narrowed = true,
                "if-match" | "if-unmodified-since" => asked.foreign = true,
                _ if name.starts_with("x-") => asked.foreign |= OVERRIDES.contains(&name),
                _ => {}
            }
        }
        asked
    }
}

/// What may be done with a stored response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It answers.
    Fresh,
    /// It answers, while a new one is fetched (RFC 5861 §3).
    WhileRevalidating,
    /// It answers although it is stale, because the client takes it (§5.2.1.2).
    Stale,
    /// It must be validated first.
    Validate {
        /// Because the request says so, although it is fresh.
        by_request: bool,
        /// It answers where the origin fails (RFC 5861 §4).
        on_error: bool,
    },
    /// It is not for this request: the response to it is fetched, and kept apart.
    NotForThis,
}

/// Decides whether `entry`, whose URL and selection fit the request, answers it.
pub fn decide(asked: &Asked, entry: &Entry, now: Moment, policy: &Policy) -> Reuse {
    decide_within(asked, entry, now, policy, Duration::MAX)
}

/// The same in a tier where nothing counts as fresh for longer than `ceiling` after it came, whatever is said elsewhere.
pub fn decide_within(asked: &Asked, entry: &Entry, now: Moment, policy: &Policy, ceiling: Duration) -> Reuse {
    let terms = entry.terms();
    // Cookies may be declared to say nothing; credentials always do.
    if terms.source == Source::Route && (asked.authorized || asked.personal && !policy.ignore_cookies) {
        return Reuse::NotForThis;
    }
    let control = if policy.obey_requests { asked.control } else { RequestControl::default() };
    let ceiling = i64::try_from(ceiling.as_millis()).unwrap_or(i64::MAX);
    let left = entry.fresh_for(now).min(ceiling.saturating_sub_unsigned(now.since(terms.times.received)));
    let stale_for = u64::try_from(left.saturating_neg()).unwrap_or(0);
    let never_stale = terms.must_revalidate || terms.no_cache;
    let validate = |by_request| {
        let allowed = match control.stale_if_error {
            Some(seconds) if !never_stale => terms.stale_if_error.max(millis(seconds)),
            _ => terms.stale_if_error,
        };
        Reuse::Validate { by_request, on_error: !terms.no_cache && (left > 0 || stale_for <= allowed && allowed > 0) }
    };
    if control.no_cache {
        return validate(left > 0);
    }
    if terms.no_cache {
        return validate(false);
    }
    let too_old = control.max_age.is_some_and(|limit| entry.age(now) > millis(limit));
    if left > 0 {
        let too_soon_stale = control.min_fresh.is_some_and(|wanted| u64::try_from(left).unwrap_or(0) < millis(wanted));
        return if too_old || too_soon_stale { validate(true) } else { Reuse::Fresh };
    }
    if too_old && control.max_stale.is_none() || control.min_fresh.is_some() {
        return validate(false);
    }
    // A purge has made it stale, and what it was about may be wrong: nobody's patience is for that.
    if entry.is_made_stale() {
        return validate(false);
    }
    if !never_stale && control.max_stale.is_some_and(|limit| limit == u32::MAX || stale_for <= millis(limit)) {
        return Reuse::Stale;
    }
    if terms.stale_while_revalidate > 0 && stale_for <= terms.stale_while_revalidate {
        return Reuse::WhileRevalidating;
    }
    validate(false)
}

fn millis(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::freshness::Times;
    use crate::heads::{get, response};
    use crate::storing::judge;

    const NOW: Moment = Moment::from_secs(784_111_777);

    fn stored(fields: &[(&str, &str)], policy: &Policy) -> Entry {
        let head = response(200, fields);
        let times = Times { requested: NOW, received: NOW };
        Entry::new(judge(&get("/", &[]), &head, times, policy).unwrap(), &head, Bytes::new())
    }

    fn used(control: &str, asked: &[(&str, &str)], after: u64) -> Reuse {
        let entry = stored(&[("Cache-Control", control), ("ETag", "\"a\"")], &Policy::new());
        decide(&Asked::of(&get("/", asked)), &entry, NOW.after(Duration::from_secs(after)), &Policy::new())
    }

    const VALIDATE: Reuse = Reuse::Validate { by_request: false, on_error: false };

    /// §4.2: fresh while its lifetime is longer than its age.
    #[test]
    fn fresh_answers() {
        assert_eq!(used("max-age=10", &[], 9), Reuse::Fresh);
        assert_eq!(used("max-age=10", &[], 10), VALIDATE);
        assert_eq!(used("max-age=10", &[], 1_000_000), VALIDATE);
    }

    /// §5.2.1.1, §5.2.1.3, §5.2.1.4: what the request wants fresher.
    #[test]
    fn requests_may_want_it_fresher() {
        let by_request = Reuse::Validate { by_request: true, on_error: true };
        assert_eq!(used("max-age=10", &[("Cache-Control", "max-age=3")], 3), Reuse::Fresh);
        assert_eq!(used("max-age=10", &[("Cache-Control", "max-age=3")], 4), by_request);
        assert_eq!(used("max-age=10", &[("Cache-Control", "max-age=0")], 1), by_request);
        assert_eq!(used("max-age=10", &[("Cache-Control", "min-fresh=5")], 5), Reuse::Fresh);
        assert_eq!(used("max-age=10", &[("Cache-Control", "min-fresh=6")], 5), by_request);
        assert_eq!(used("max-age=10", &[("Cache-Control", "no-cache")], 0), by_request);
        assert_eq!(used("max-age=10", &[("Cache-Control", "x=no-cache")], 0), Reuse::Fresh);
    }

    /// §5.2.1.2: a client may take it stale, unless the response forbids it (§4.2.4).
    #[test]
    fn requests_may_take_it_stale() {
        assert_eq!(used("max-age=10", &[("Cache-Control", "max-stale")], 1000), Reuse::Stale);
        assert_eq!(used("max-age=10", &[("Cache-Control", "max-stale=5")], 15), Reuse::Stale);
        assert_eq!(used("max-age=10", &[("Cache-Control", "max-stale=5")], 16), VALIDATE);
        for strict in
            ["max-age=10, must-revalidate", "max-age=10, proxy-revalidate", "s-maxage=10", "max-age=10, no-cache"]
        {
            assert_eq!(used(strict, &[("Cache-Control", "max-stale")], 11), VALIDATE, "{strict}");
        }
    }

    /// RFC 5861 §3: within its time it answers while it is refreshed; after that it does not.
    #[test]
    fn stale_while_revalidate() {
        assert_eq!(used("max-age=10, stale-while-revalidate=5", &[], 15), Reuse::WhileRevalidating);
        assert_eq!(used("max-age=10, stale-while-revalidate=5", &[], 16), VALIDATE);
        assert_eq!(used("max-age=10, stale-while-revalidate=5, must-revalidate", &[], 11), VALIDATE);
        assert_eq!(used("max-age=10, stale-while-revalidate=5", &[("Cache-Control", "max-age=3")], 11), VALIDATE);
    }

    /// What a soft purge made stale, or a gap in what was heard of purges: it may be just what was purged.
    #[test]
    fn what_was_made_stale_is_validated_whatever_else_may_be_used_stale() {
        let decide = |control: &str, asked: &[(&str, &str)]| {
            let entry = stored(&[("Cache-Control", control), ("ETag", "\"a\"")], &Policy::new());
            entry.make_stale(NOW);
            decide(&Asked::of(&get("/", asked)), &entry, NOW.after(Duration::from_secs(1)), &Policy::new())
        };
        assert_eq!(decide("max-age=10, stale-while-revalidate=50", &[]), VALIDATE);
        assert_eq!(decide("max-age=10", &[("Cache-Control", "max-stale")]), VALIDATE);
        let on_error = Reuse::Validate { by_request: false, on_error: true };
        assert_eq!(decide("max-age=10, stale-if-error=50", &[]), on_error, "it stands in where the origin fails");
    }

    /// RFC 5861 §4, of the response and of the request; never past `must-revalidate` (§4.2.4).
    #[test]
    fn stale_if_error() {
        let on_error = Reuse::Validate { by_request: false, on_error: true };
        assert_eq!(used("max-age=10, stale-if-error=5", &[], 15), on_error);
        assert_eq!(used("max-age=10, stale-if-error=5", &[], 16), VALIDATE);
        assert_eq!(used("max-age=10", &[("Cache-Control", "stale-if-error=5")], 14), on_error);
        assert_eq!(used("max-age=10, must-revalidate", &[("Cache-Control", "stale-if-error=5")], 14), VALIDATE);
        assert_eq!(used("no-cache, stale-if-error=5", &[], 1), VALIDATE);
    }

    /// What is fresh for long is asked for again when its time in a tier is up, and is used stale from there on as it may be
    /// past its own lifetime.
    #[test]
    fn a_tier_may_have_a_ceiling() {
        let within = |control: &str, asked: &[(&str, &str)], after: u64| {
            let entry = stored(&[("Cache-Control", control), ("ETag", "\"a\"")], &Policy::new());
            let now = NOW.after(Duration::from_secs(after));
            decide_within(&Asked::of(&get("/", asked)), &entry, now, &Policy::new(), Duration::from_secs(10))
        };
        assert_eq!(within("max-age=600", &[], 9), Reuse::Fresh);
        assert_eq!(within("max-age=600", &[], 10), VALIDATE);
        assert_eq!(within("max-age=5", &[], 6), VALIDATE, "it makes nothing fresher");
        assert_eq!(within("max-age=600, stale-while-revalidate=5", &[], 15), Reuse::WhileRevalidating);
        assert_eq!(within("max-age=600, stale-while-revalidate=5", &[], 16), VALIDATE);
        assert_eq!(within("max-age=600", &[("Cache-Control", "max-stale=5")], 15), Reuse::Stale);
        assert_eq!(within("max-age=600, must-revalidate", &[("Cache-Control", "max-stale=5")], 15), VALIDATE);
    }

    /// §5.2.2.4: never without validation, however fresh.
    #[test]
    fn no_cache_is_validated_first() {
        assert_eq!(used("no-cache, max-age=10", &[], 0), VALIDATE);
    }

    /// §5.2.1: all of it is advice, which a route may choose not to take.
    #[test]
    fn a_route_may_be_deaf_to_requests() {
        let deaf = Policy { obey_requests: false, ..Policy::new() };
        let entry = stored(&[("Cache-Control", "max-age=10")], &deaf);
        let asked = Asked::of(&get("/", &[("Cache-Control", "no-cache, max-age=0")]));
        assert_eq!(decide(&asked, &entry, NOW, &deaf), Reuse::Fresh);
    }

    /// What is stored because the configuration says so is not for those who bring cookies or credentials.
    #[test]
    fn configured_entries_are_for_the_anonymous() {
        let route = Policy { ttl: Some(Duration::from_secs(10)), ..Policy::new() };
        let entry = stored(&[], &route);
        let decide = |fields: &[(&str, &str)], policy| decide(&Asked::of(&get("/", fields)), &entry, NOW, policy);
        assert_eq!(decide(&[], &route), Reuse::Fresh);
        assert_eq!(decide(&[("Cookie", "a=1")], &route), Reuse::NotForThis);
        assert_eq!(decide(&[("Authorization", "x")], &route), Reuse::NotForThis);
        let ignoring = Policy { ignore_cookies: true, ..route.clone() };
        assert_eq!(decide(&[("Cookie", "a=1")], &ignoring), Reuse::Fresh);
        assert_eq!(decide(&[("Authorization", "x")], &ignoring), Reuse::NotForThis);
        assert_eq!(decide(&[("Cookie", "a=1"), ("Authorization", "x")], &ignoring), Reuse::NotForThis);
    }

    /// §4.3.2: conditions for the origin are left to it; poisoning: fields that change what is asked for are foreign.
    #[test]
    fn foreign_requests_are_known() {
        for name in [
            "If-Match",
            "If-Unmodified-Since",
            "X-HTTP-Method-Override",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Host",
            "X-HTTP-Host-Override",
        ] {
            assert!(Asked::of(&get("/", &[(name, "x")])).foreign, "{name}");
        }
        assert!(!Asked::of(&get("/", &[("X-Anything", "x"), ("If-None-Match", "x")])).foreign);
    }
}
