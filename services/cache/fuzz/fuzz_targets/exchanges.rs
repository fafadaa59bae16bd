//! Any request and any response to it: what is stored keeps the promises of its terms, whatever is asked of it later.
#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use troupe_cache::conditions::is_unmodified;
use troupe_cache::entry::Entry;
use troupe_cache::freshness::Times;
use troupe_cache::invalidation;
use troupe_cache::policy::Policy;
use troupe_cache::range::{Wanted, multipart, wanted};
use troupe_cache::reuse::{Asked, Reuse, decide};
use troupe_cache::storing::judge;
use troupe_cache::time::Moment;
use troupe_wire::head::{
    RequestHead, RequestHeadBuilder, RequestParts, ResponseHead, ResponseHeadBuilder, Scheme, Version,
};

/// Fields with a meaning to a cache; anything else is carried.
const NAMES: [&str; 24] = [
    "cache-control",
    "cdn-cache-control",
    "troupe-cache-control",
    "expires",
    "date",
    "age",
    "last-modified",
    "etag",
    "vary",
    "set-cookie",
    "connection",
    "content-length",
    "cache-groups",
    "surrogate-key",
    "location",
    "content-location",
    "if-none-match",
    "if-modified-since",
    "if-range",
    "range",
    "authorization",
    "cookie",
    "accept-encoding",
    "x-any",
];

#[derive(Debug, Arbitrary)]
struct Exchange<'a> {
    asked: Vec<(u8, &'a [u8])>,
    status: u16,
    fields: Vec<(u8, &'a [u8])>,
    update: Vec<(u8, &'a [u8])>,
    again: Vec<(u8, &'a [u8])>,
    post: bool,
    later: u32,
    body: &'a [u8],
}

fuzz_target!(|exchange: Exchange<'_>| {
    let request = request(if exchange.post { "POST" } else { "GET" }, &exchange.asked);
    let response = response(exchange.status, &exchange.fields);
    let _ = invalidation::of(&request, &response, |path| Some(path.to_owned()));
    let now = Moment::from_secs(784_111_777);
    let times = Times { requested: now, received: now };
    let policy = Policy::new();
    let Ok(terms) = judge(&request, &response, times, &policy) else { return };
    assert!(!exchange.post, "a POST's response is not for others");
    let entry = Entry::new(terms, &response, Bytes::copy_from_slice(exchange.body));
    assert!(!entry.head().has_any(&["connection", "age", "content-length", "troupe-cache-control"]));
    assert!(entry.terms().selection.fits(&request), "it answers the request it was made for");

    let later = Moment::from_secs(784_111_777 + u64::from(exchange.later));
    let again = self::request("GET", &exchange.again);
    let asked = Asked::of(&again);
    match decide(&asked, &entry, later, &policy) {
        Reuse::Fresh => assert!(entry.fresh_for(later) > 0 && !entry.terms().no_cache),
        Reuse::Stale | Reuse::WhileRevalidating => {
            assert!(entry.fresh_for(later) <= 0 && !entry.terms().no_cache);
            assert!(!entry.terms().must_revalidate, "never stale past must-revalidate");
        }
        Reuse::Validate { .. } | Reuse::NotForThis => {}
    }
    let _ = is_unmodified(&again, &entry);
    match wanted(&again, &entry) {
        Wanted::One(part) => assert!(part.first <= part.last && part.last < entry.body().len()),
        Wanted::Several(parts) => {
            let sum: usize = parts.iter().map(|part| part.of(entry.body()).len()).sum();
            assert!(sum <= entry.body().len(), "parts are never more than the whole");
            let _ = multipart(&parts, entry.body(), None, "boundary");
        }
        Wanted::Whole | Wanted::Nothing | Wanted::Missing => {}
    }
    let unmodified = self::response(304, &exchange.update);
    if entry.is_meant_by(&unmodified)
        && let Ok(fresh) = entry.refreshed(&again, &unmodified, Times { requested: later, received: later }, &policy)
    {
        assert_eq!((fresh.status(), fresh.body()), (entry.status(), entry.body()));
        assert!(!fresh.head().has_any(&["connection", "age", "content-length", "troupe-cache-control"]));
    }
});

trait HasAny {
    fn has_any(&self, names: &[&str]) -> bool;
}

impl HasAny for ResponseHead {
    fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.field(name).is_some())
    }
}

fn fields<'a>(fields: &'a [(u8, &'a [u8])]) -> impl Iterator<Item = (&'static str, &'a [u8])> {
    fields.iter().take(32).map(|(name, value)| (NAMES[usize::from(*name) % NAMES.len()], value.trim_ascii()))
}

fn request(method: &str, all: &[(u8, &[u8])]) -> RequestHead {
    let mut builder = RequestHeadBuilder::default();
    for (name, value) in fields(all) {
        // What cannot stand in a head does not come in.
        let _ = builder.field(name, value);
    }
    let parts = RequestParts {
        version: Version::Http11,
        scheme: Scheme::Http,
        method,
        target: "/a/b?c",
        authority: "a.example",
        remote_addr: "192.0.2.1",
        remote_port: "1",
        local_addr: "192.0.2.2",
        local_port: "80",
    };
    builder.finish(&parts).expect("a small head")
}

fn response(status: u16, all: &[(u8, &[u8])]) -> ResponseHead {
    let mut builder = ResponseHeadBuilder::default();
    for (name, value) in fields(all) {
        let _ = builder.field(name.as_bytes(), value);
    }
    builder.finish(status)
}
