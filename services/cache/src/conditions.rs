//! Conditional requests, answered from the store (RFC 9111 §4.3.2).

use troupe_wire::head::RequestHead;

use crate::entry::Entry;
use crate::fields::Head;
use crate::time::http_date;
use crate::validators::is_listed;

/// Whether the client's copy is as good as the entry: it is answered 304.
///
/// `If-None-Match` is compared weakly and takes precedence over `If-Modified-Since` (RFC 9110 §13.2.2), and both come before `Range`: so
/// what answers from a part is compared as well. For other statuses the condition means nothing (RFC 9110 §13.1).
pub fn is_unmodified(request: &RequestHead, entry: &Entry) -> bool {
    if !matches!(entry.status(), 200 | 206) {
        return false;
    }
    if request.has("if-none-match") {
        return is_listed(request.values("if-none-match"), entry.tag());
    }
    let mut dates = request.values("if-modified-since");
    let since = match (dates.next().and_then(http_date), dates.next()) {
        (Some(since), None) => since,
        _ => return false,
    };
    // Without Last-Modified, the time at which the response was made stands in.
    let changed = match entry.last_modified() {
        Some((_, seconds)) => Some(seconds),
        None => entry.head().field("date").and_then(http_date),
    };
    changed.is_some_and(|changed| changed <= since)
}

/// Fields of a 304 (RFC 9110 §15.4.5): those that a cache behind this one needs, and none that describe a body.
pub fn belongs_to_304(name: &[u8]) -> bool {
    const OF_THE_BODY: [&str; 6] =
        ["content-type", "content-encoding", "content-language", "content-range", "content-length", "last-modified"];
    !OF_THE_BODY.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::freshness::Times;
    use crate::heads::{get, response};
    use crate::policy::Policy;
    use crate::storing::judge;
    use crate::time::Moment;

    fn unmodified(status: u16, fields: &[(&str, &str)], asked: &[(&str, &str)]) -> bool {
        let now = Moment::from_secs(784_111_777);
        let mut all = vec![("Cache-Control", "max-age=60")];
        all.extend_from_slice(fields);
        let head = response(status, &all);
        let times = Times { requested: now, received: now };
        let entry = Entry::new(judge(&get("/", &[]), &head, times, &Policy::new()).unwrap(), &head, Bytes::new());
        is_unmodified(&get("/", asked), &entry)
    }

    /// §4.3.2: lists, weak comparison, `*`.
    #[test]
    fn if_none_match() {
        let tagged = &[("ETag", "\"a\"")];
        assert!(unmodified(200, tagged, &[("If-None-Match", "\"x\", W/\"a\"")]));
        assert!(unmodified(200, tagged, &[("If-None-Match", "*")]));
        assert!(!unmodified(200, tagged, &[("If-None-Match", "\"x\"")]));
        assert!(!unmodified(200, &[], &[("If-None-Match", "\"x\"")]));
    }

    /// §4.3.2: with `Last-Modified`, and without it against `Date`.
    #[test]
    fn if_modified_since() {
        let modified = &[("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT")];
        for (since, expected) in [
            ("Sun, 06 Nov 1994 08:00:00 GMT", true),
            ("Sunday, 06-Nov-94 09:00:00 GMT", true),
            ("Sun, 06 Nov 1994 07:59:59 GMT", false),
            ("nonsense", false),
        ] {
            assert_eq!(unmodified(200, modified, &[("If-Modified-Since", since)]), expected, "{since}");
        }
        assert!(unmodified(200, &[], &[("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT")]));
        assert!(!unmodified(200, &[], &[("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT")]));
    }

    /// RFC 9110 §13.2.2: `If-None-Match` decides alone where both are there.
    #[test]
    fn tags_come_before_dates() {
        let both = &[("ETag", "\"a\""), ("Last-Modified", "Sun, 06 Nov 1994 08:00:00 GMT")];
        let since = ("If-Modified-Since", "Sun, 06 Nov 1994 09:00:00 GMT");
        assert!(!unmodified(200, both, &[("If-None-Match", "\"b\""), since]));
    }

    /// RFC 9110 §13.1: a condition is about a successful answer.
    #[test]
    fn other_statuses_are_not_compared() {
        assert!(!unmodified(404, &[("ETag", "\"a\"")], &[("If-None-Match", "\"a\"")]));
    }
}
