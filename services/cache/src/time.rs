//! Moments, dates and delta-seconds.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The largest delta-seconds that is told apart (RFC 9111 §1.2.2: 2^31, more is the same).
pub const LONGEST: u32 = 1 << 31;

/// A moment on the wall clock, in milliseconds since 1970. The wall clock, because it is compared with `Date`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// A moment `millis` after 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// A moment `seconds` after 1970.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// Milliseconds since `earlier`; none when the clock was set back in between.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `time` later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Does something with [`Moment::http_date`], which each thread writes once for a second.
    pub fn with_http_date<T>(self, act: impl FnOnce(&str) -> T) -> T {
        thread_local! {
            static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
        }
        LAST.with_borrow_mut(|(second, date)| {
            if *second != self.secs() {
                (*second, *date) = (self.secs(), self.http_date());
            }
            act(date)
        })
    }

    /// The moment as an HTTP date (RFC 9110 §5.6.7).
    pub fn http_date(self) -> String {
        // What no calendar of four digits holds is a clock gone mad; it still gets a date.
        let latest = 253_402_300_799;
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(self.secs().min(latest)))
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Reads an HTTP date in any of its three forms (RFC 9110 §5.6.7), as seconds since 1970.
pub fn http_date(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim();
    // The parser is told nothing longer than the longest form: `Wednesday, 09-Nov-94 08:49:37 GMT`.
    if text.len() > 40 || !text.is_ascii() {
        return None;
    }
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// Reads delta-seconds (RFC 9111 §1.2.2): digits and nothing else; what is too large is [`LONGEST`].
pub fn delta_seconds(value: &[u8]) -> Option<u32> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = value.iter().fold(0u32, |sum, digit| sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
    Some(seconds.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9110 §5.6.7: all three forms are read, and nothing else.
    #[test]
    fn dates_are_read_in_three_forms() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(http_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for text in [
            "",
            "0",
            "-1",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 PST",
            "1994-11-06T08:49:37Z",
            "Sun, 31 Feb 1994 08:49:99 GMT",
            "\u{1F600}",
        ] {
            assert_eq!(http_date(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Moment::from_secs(784_111_777).http_date(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    /// RFC 9111 §1.2.2: non-negative integers; too large ones do not overflow.
    #[test]
    fn delta_seconds_are_digits() {
        assert_eq!((delta_seconds(b"0"), delta_seconds(b"0060")), (Some(0), Some(60)));
        assert_eq!(delta_seconds(b"99999999999999999999999999"), Some(LONGEST));
        for text in ["", "-1", "+1", "1.5", "1 ", "\"1\"", "1s", "one"] {
            assert_eq!(delta_seconds(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_date_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[A-Za-z0-9:, -]{0,40}") {
            let _ = (http_date(&bytes), http_date(text.as_bytes()), delta_seconds(&bytes));
        }

        #[test]
        fn dates_survive_writing(secs in 0u64..253_402_300_799) {
            prop_assert_eq!(http_date(Moment::from_secs(secs).http_date().as_bytes()), Some(secs));
            let _ = Moment::from_millis(u64::MAX).http_date();
        }
    }
}
