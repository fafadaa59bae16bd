//! Whatever stands in a field: nothing panics, what restricts is never lost to what stands around it, and lines in front of
//! others never make a response fresher than it is without them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use troupe_cache::control::{Argument, RequestControl, ResponseControl, directives};
use troupe_cache::fields::members;
use troupe_cache::time::{delta_seconds, http_date};
use troupe_cache::validators::EntityTag;
use troupe_cache::{freshness, groups, targeted};
use troupe_wire::head::{ResponseHead, ResponseHeadBuilder};

fuzz_target!(|data: &[u8]| {
    for member in members(data) {
        assert!(!member.is_empty() && member.len() <= data.len());
    }
    for (name, argument) in directives(data) {
        assert!(name.len() <= data.len());
        if let Argument::Text(text) = argument {
            assert!(text.len() <= data.len());
        }
    }
    let mut request = RequestControl::default();
    request.add_line(data);
    let _ = (delta_seconds(data), http_date(data), EntityTag::parse(data));

    let Some(alone) = head(&[("cache-control", data)]) else { return };
    let control = ResponseControl::of(&alone);
    if let Some(more) = head(&[("cache-control", data), ("cache-control", b"no-store, private, no-cache")]) {
        let more = ResponseControl::of(&more);
        assert!(more.no_store && more.private && more.no_cache, "a line of its own cannot be undone");
        assert_eq!((more.max_age, more.s_maxage), (control.max_age, control.s_maxage));
    }
    for name in ["troupe-cache-control", "cdn-cache-control", "age", "date", "cache-groups", "surrogate-key"] {
        let Some(head) = head(&[(name, data)]) else { continue };
        let _ = (targeted::of(&head), freshness::age(&head), freshness::date(&head), groups::of(&head));
    }
});

/// A head of these fields; `None` where they cannot stand in one.
fn head(fields: &[(&str, &[u8])]) -> Option<ResponseHead> {
    let mut builder = ResponseHeadBuilder::default();
    for (name, value) in fields {
        builder.field(name.as_bytes(), value).ok()?;
    }
    Some(builder.finish(200))
}
