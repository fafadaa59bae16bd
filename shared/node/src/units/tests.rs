use proptest::prelude::*;

use super::{Duration, Percent, Size};

#[test]
fn durations_have_units() {
    for (text, millis) in [
        ("250ms", 250),
        ("30s", 30_000),
        ("0s", 0),
        ("1m 30s", 90_000),
        ("1m30s", 90_000),
        ("2h", 7_200_000),
        (" 5 s ", 5_000),
        ("1d", 86_400_000),
    ] {
        assert_eq!(text.parse(), Ok(Duration::from_millis(millis)), "{text}");
    }
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in [
        ("512B", 512),
        ("32KiB", 32 << 10),
        ("64MiB", 64 << 20),
        ("1.5GiB", 3 << 29),
        ("10MB", 10_000_000),
        ("1kb", 1_000),
        ("1 GiB", 1 << 30),
        ("0B", 0),
    ] {
        assert_eq!(text.parse(), Ok(Size::from_bytes(bytes)), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let duration = |text: &str| text.parse::<Duration>().unwrap_err().to_string();
    let size = |text: &str| text.parse::<Size>().unwrap_err().to_string();
    let percent = |text: &str| text.parse::<Percent>().unwrap_err().to_string();
    assert_eq!(duration("30"), "`30` has no unit; write a duration such as \"250ms\", \"30s\" or \"5m\"");
    assert_eq!(duration("5M"), "`5M` has the unit `M`, which is none of ns, us, µs, ms, s, m, min, h, d");
    assert_eq!(duration("400d"), "`400d` is more than 366 days");
    assert_eq!(duration("-1s"), "`-1s` is not a duration such as \"250ms\", \"30s\" or \"5m\"");
    assert_eq!(duration(""), "`` is not a duration such as \"250ms\", \"30s\" or \"5m\"");
    assert_eq!(size("64"), "`64` has no unit; write a size such as \"32KiB\", \"64MiB\" or \"1GiB\"");
    assert_eq!(size("64MX"), "`64MX` has the unit `MX`, which is none of TiB, GiB, MiB, KiB, TB, GB, MB, kB, B");
    assert_eq!(size("99999999TiB"), "`99999999TiB` is more than 16 EiB");
    assert_eq!(percent("50"), "`50` has no unit; write a share such as \"50%\"");
    assert_eq!(percent("5000%"), "`5000%` is more than 1000%");
}

#[test]
fn bare_numbers_are_refused_by_serde_as_well() {
    let said = |json: &str| serde_json::from_str::<Duration>(json).unwrap_err().to_string();
    assert!(said("30").starts_with("`30` has no unit"), "{}", said("30"));
    assert!(said("1.5").starts_with("`1.5` has no unit"), "{}", said("1.5"));
    assert_eq!(serde_json::to_string(&Duration::from_secs(60)).unwrap(), "\"60s\"");
    assert_eq!(serde_json::to_string(&Duration::from_secs(120)).unwrap(), "\"2m\"");
}

#[test]
fn a_share_of_a_whole_saturates() {
    assert_eq!(Percent::new(75).of(128 << 20), 96 << 20);
    assert_eq!(Percent::new(1_000).of(u64::MAX), u64::MAX);
}

proptest! {
    #[test]
    fn durations_read_back(millis in 0_u64..31_000_000_000) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(duration.to_string().parse(), Ok(duration));
    }

    #[test]
    fn sizes_read_back(bytes: u64) {
        let size = Size::from_bytes(bytes);
        prop_assert_eq!(size.to_string().parse(), Ok(size));
    }

    #[test]
    fn shares_read_back(percent in 0_u16..=1_000) {
        let percent = Percent::new(percent);
        prop_assert_eq!(percent.to_string().parse(), Ok(percent));
    }

    #[test]
    fn no_text_panics(text in "[0-9a-zA-Zµ.%+ -]{0,12}|\\PC{0,20}") {
        let _ = (text.parse::<Duration>(), text.parse::<Size>(), text.parse::<Percent>());
    }
}
