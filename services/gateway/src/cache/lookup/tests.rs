use proptest::prelude::*;

use super::*;
use crate::cache::sample;

/// When every entry came, in seconds.
const CAME: u64 = 1_000_000;

/// An answer that is fresh for `lifetime` seconds and took `fetch` milliseconds to fetch.
fn entry(lifetime: u64, fetch: u64) -> Entry {
    let came = sample::entry(&format!("max-age={lifetime}"), Moment::from_secs(CAME));
    // The time on the way counts to its age, which is not what this is about.
    let mut terms = came.terms().clone();
    terms.times.requested = Moment::from_millis(CAME * 1000 - fetch);
    Entry::new(terms, came.head(), came.body().clone())
}

/// The share of requests that refresh it, when it is fresh for `left` milliseconds more.
fn share(entry: &Entry, left: u64) -> f64 {
    const DRAWS: u32 = 4_000;
    let now = Moment::from_millis(CAME * 1000 + entry.terms().lifetime - left);
    assert_eq!(entry.fresh_for(now), left as i64);
    f64::from((0..DRAWS).map(|_| u32::from(is_early(entry, now))).sum::<u32>()) / f64::from(DRAWS)
}

#[test]
fn the_nearer_its_end_and_the_longer_it_takes_the_likelier_it_is_refreshed() {
    fastrand::seed(7);
    let slow = entry(600, 1000);
    // By XFetch, e to the power of minus what is left in fetches.
    for (left, expected) in [(1, 1.0), (100, 0.905), (1000, 0.368), (2000, 0.135), (5000, 0.007)] {
        let share = share(&slow, left);
        assert!((share - expected).abs() < 0.04, "{left} ms left: {share} instead of {expected}");
    }
    assert!(share(&entry(600, 10_000), 5000) > 0.5, "what takes longer is begun earlier");
    assert_eq!(share(&entry(600, 1), 5000), 0.0, "what is there at once is fetched at its end");
}

#[test]
fn however_long_a_fetch_takes_an_answer_lives_for_fifteen_sixteenths_of_its_time() {
    fastrand::seed(7);
    let endless = entry(160, 10_000_000);
    assert_eq!(share(&endless, 10_001), 0.0);
    assert!(share(&endless, 10_000) > 0.95);
}

/// Nobody's clock is exact: by times alone each of two copies could be the later one.
#[test]
fn a_version_is_ahead_of_earlier_ones_and_of_no_copy_of_itself() {
    let version = |body: &'static str, after: u64| {
        let made = sample::entry("max-age=60", Moment::from_millis(CAME * 1000 + after));
        Entry::new(made.terms().clone(), made.head(), body.into())
    };
    let mut lack = Lack::new(Forward::Stale, None, false, false, Party::default());
    assert!(!lack.is_ahead_of(&version("one", 0)), "there is none");
    lack.stale = Some(Arc::new(version("two", 100)));
    assert!(lack.is_ahead_of(&version("one", 0)));
    assert!(!lack.is_ahead_of(&version("three", 200)) && !lack.is_ahead_of(&version("two", 99)));
}

proptest! {
    #[test]
    fn nothing_is_refreshed_before_its_last_sixteenth(lifetime in 1u64..100_000, fetch in 0u64..600_000, part in 0.0f64..1.0) {
        let entry = entry(lifetime, fetch);
        let spent = (entry.terms().lifetime as f64 * part * 15.0 / 16.0) as u64;
        // The boundary itself belongs to the last sixteenth.
        let now = Moment::from_millis(CAME * 1000 + spent.saturating_sub(1));
        prop_assert!(!is_early(&entry, now));
    }
}
