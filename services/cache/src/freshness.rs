//! How old a response is and how long it is fresh (RFC 9111 §4.2).

use std::time::Duration;

use troupe_wire::head::ResponseHead;

use crate::control::ResponseControl;
use crate::fields::{Head, members};
use crate::policy::Policy;
use crate::time::{Moment, delta_seconds, http_date};

/// Share of the time since its last change for which a response is taken to be fresh (RFC 9111 §4.2.2).
const HEURISTIC_SHARE: u64 = 10;
/// Longest lifetime that is only a guess.
const LONGEST_GUESS: u64 = 24 * 60 * 60;

/// When a response was asked for and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// When the request was sent.
    pub requested: Moment,
    /// When the response's head was there.
    pub received: Moment,
}

/// How long a response is fresh, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// In milliseconds.
    pub millis: u64,
    /// Who says so.
    pub source: Source,
}

/// Who says how long a response is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The route's configuration.
    Route,
    /// `s-maxage`: the response must not be answered stale by a shared cache (§5.2.2.10).
    SharedMaxAge,
    /// `max-age`.
    MaxAge,
    /// `Expires`.
    Expires,
    /// A guess from `Last-Modified`.
    Heuristic,
    /// Nobody: the response is stale from the start.
    Nobody,
}

impl Source {
    /// Whether the response itself says how long it is fresh.
    pub fn is_explicit(self) -> bool {
        matches!(self, Self::SharedMaxAge | Self::MaxAge | Self::Expires)
    }
}

/// The response's own lifetime, by the rules of a shared cache (§4.2.1). `targeted`: `control` is from a targeted field, so
/// that `Expires` says nothing (RFC 9213 §2.1).
pub fn lifetime(
    head: &ResponseHead,
    control: &ResponseControl,
    targeted: bool,
    times: Times,
    policy: &Policy,
) -> Lifetime {
    let seconds = |seconds: u32, source| Lifetime { millis: u64::from(seconds) * 1000, source };
    if let Some(age) = control.s_maxage {
        return seconds(age, Source::SharedMaxAge);
    }
    if let Some(age) = control.max_age {
        return seconds(age, Source::MaxAge);
    }
    let date = date(head).unwrap_or(times.received.secs());
    if !targeted && let Some(expires) = head.first("expires") {
        // §5.3: a date that cannot be read is one in the past. Of several the first one counts (§4.2.1).
        let until = http_date(expires).unwrap_or(0);
        return Lifetime { millis: until.saturating_sub(date).saturating_mul(1000), source: Source::Expires };
    }
    let guessable = policy.heuristic && (is_heuristic(head.status()) || control.public);
    if guessable && let Some(modified) = head.first("last-modified").and_then(http_date) {
        let guess = (date.saturating_sub(modified) / HEURISTIC_SHARE).min(LONGEST_GUESS);
        return Lifetime { millis: guess * 1000, source: Source::Heuristic };
    }
    Lifetime { millis: 0, source: Source::Nobody }
}

/// The age that a response had when it came, in milliseconds: `corrected_initial_age` (§4.2.3).
pub fn initial_age(head: &ResponseHead, times: Times) -> u64 {
    let apparent = date(head).map_or(0, |date| times.received.since(Moment::from_secs(date)));
    // Dates have whole seconds; a response of this very second is not old.
    let apparent = apparent / 1000 * 1000;
    let delay = times.received.since(times.requested);
    let corrected = u64::from(age(head)) * 1000 + delay;
    apparent.max(corrected)
}

/// The received `Age` in seconds (§5.1): of a list the first member; what cannot be read is ignored.
pub fn age(head: &ResponseHead) -> u32 {
    head.values("age").flat_map(members).next().and_then(delta_seconds).unwrap_or(0)
}

/// The received `Date` in seconds since 1970, if there is one that can be read.
pub fn date(head: &ResponseHead) -> Option<u64> {
    head.first("date").and_then(http_date)
}

/// Statuses whose responses may be stored without being told to (RFC 9110 §15.1).
pub fn is_heuristic(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// A configured time in milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::heads::response;

    /// Sun, 06 Nov 1994 08:49:37 GMT
    const NOW: u64 = 784_111_777;

    fn times() -> Times {
        Times { requested: Moment::from_secs(NOW), received: Moment::from_secs(NOW) }
    }

    fn life(status: u16, fields: &[(&str, &str)]) -> (u64, Source) {
        let head = response(status, fields);
        let lifetime = lifetime(&head, &ResponseControl::of(&head), false, times(), &Policy::new());
        (lifetime.millis / 1000, lifetime.source)
    }

    /// §4.2.1: `s-maxage` before `max-age` before `Expires`.
    #[test]
    fn the_order_of_lifetimes() {
        let expires = ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(life(200, &[("Cache-Control", "max-age=5, s-maxage=7"), expires]), (7, Source::SharedMaxAge));
        assert_eq!(life(200, &[("Cache-Control", "max-age=5"), expires]), (5, Source::MaxAge));
        assert_eq!(life(200, &[expires]), (60, Source::Expires));
        assert_eq!(life(200, &[]), (0, Source::Nobody));
        assert_eq!(life(200, &[("Cache-Control", "max-age=x"), expires]), (0, Source::MaxAge));
    }

    /// §4.2.1: `Expires` minus `Date`, both as the origin wrote them: its clock need not be ours.
    #[test]
    fn expires_counts_from_date() {
        let skewed = &[("Date", "Sat, 05 Nov 1994 08:00:00 GMT"), ("Expires", "Sat, 05 Nov 1994 08:01:00 GMT")];
        assert_eq!(life(200, skewed), (60, Source::Expires));
        assert_eq!(life(200, &[("Date", "x"), ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT")]), (60, Source::Expires));
    }

    /// §5.3: invalid dates, `0` above all, are in the past; of several the first one counts.
    #[test]
    fn an_invalid_expires_is_in_the_past() {
        for value in ["0", "-1", "", "tomorrow", "Sun, 06 Nov 1994 08:48:37 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(life(200, &[("Expires", value)]), (0, Source::Expires), "{value}");
        }
        let two = &[("Expires", "0"), ("Expires", "Sun, 06 Nov 1994 08:50:37 GMT")];
        assert_eq!(life(200, two), (0, Source::Expires));
    }

    /// §4.2.2: a guess only from `Last-Modified`, only for the statuses of RFC 9110 §15.1, or with `public`.
    #[test]
    fn guesses_are_a_tenth_of_the_time_since_the_last_change() {
        let modified = ("Last-Modified", "Sun, 06 Nov 1994 08:48:37 GMT");
        for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(life(status, &[modified]), (6, Source::Heuristic), "{status}");
        }
        for status in [201, 202, 302, 303, 307, 400, 403, 500, 503, 599] {
            assert_eq!(life(status, &[modified]), (0, Source::Nobody), "{status}");
        }
        assert_eq!(life(302, &[modified, ("Cache-Control", "public")]), (6, Source::Heuristic));
        assert_eq!(life(200, &[("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")]), (86_400, Source::Heuristic));
        assert_eq!(life(200, &[("Last-Modified", "Mon, 07 Nov 1994 08:48:37 GMT")]), (0, Source::Heuristic));
    }

    /// §5.1: `Age` in every odd form.
    #[test]
    fn ages_are_read_or_ignored() {
        let age = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("Age", *value)).collect();
            age(&response(200, &fields))
        };
        assert_eq!((age(&["30"]), age(&[]), age(&["0030"])), (30, 0, 30));
        assert_eq!((age(&["30, 60"]), age(&["30", "60"])), (30, 30), "the first member of a list");
        for odd in ["-1", "1.5", "\"30\"", "abc", "", "30s", "30;x"] {
            assert_eq!(age(&[odd]), 0, "{odd}");
        }
        assert_eq!(age(&["99999999999999999999"]), crate::time::LONGEST);
    }

    /// §4.2.3: the larger of what `Date` and what `Age` with the response's delay say.
    #[test]
    fn the_age_on_arrival() {
        let at = |fields: &[(&str, &str)], delay| {
            let times = Times { requested: Moment::from_millis(NOW * 1000 - delay), received: Moment::from_secs(NOW) };
            initial_age(&response(200, fields), times)
        };
        assert_eq!(at(&[], 0), 0);
        assert_eq!(at(&[("Age", "5")], 2500), 7500);
        assert_eq!(at(&[("Date", "Sun, 06 Nov 1994 08:49:27 GMT"), ("Age", "5")], 0), 10_000);
        assert_eq!(at(&[("Date", "Sun, 06 Nov 1994 08:59:27 GMT")], 0), 0, "a clock that is ahead");
        assert_eq!(at(&[("Date", "nonsense")], 0), 0);
        assert_eq!(at(&[("Age", "99999999999999999999")], 0), u64::from(crate::time::LONGEST) * 1000);
    }

    proptest! {
        #[test]
        fn no_value_overflows(age in "[ -~]{0,24}", date in "[ -~]{0,32}", expires in "[ -~]{0,32}", now in any::<u64>()) {
            let head = response(200, &[("Age", &age), ("Date", &date), ("Expires", &expires)]);
            let times = Times { requested: Moment::from_millis(now / 2), received: Moment::from_millis(now) };
            let _ = (initial_age(&head, times), lifetime(&head, &ResponseControl::of(&head), false, times, &Policy::new()));
        }
    }
}
