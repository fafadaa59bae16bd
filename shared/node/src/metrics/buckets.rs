//! A histogram of fixed buckets: what is recorded costs two additions and no memory.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::HistogramFn;

/// Bucket bounds of histograms in seconds: from a cache hit to the default timeout of a function.
pub const SECONDS: [f64; 16] =
    [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bucket bounds of histograms in bytes: from a small head to the largest download worth telling apart.
pub const SIZES: [f64; 12] = [
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
];

/// How many values fell between which bounds, and their sum.
#[derive(Debug)]
pub struct Buckets {
    bounds: &'static [f64],
    /// One more than bounds: the last is for what exceeds all.
    counts: Box<[AtomicU64]>,
    /// As f64.
    sum: AtomicU64,
}

impl Buckets {
    /// Empty buckets with the bounds that fit the name's unit: bytes where it ends in `_bytes`, else seconds.
    pub(super) fn named(name: &str) -> Self {
        let bounds: &'static [f64] = if name.ends_with("_bytes") { &SIZES } else { &SECONDS };
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }
    }

    /// The upper bounds, rising; a value on a bound belongs below it.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// The counts, each of its own bucket alone; the last is for what exceeds all bounds.
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// The sum of all values.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.sum.load(Ordering::Relaxed))
    }

    fn add(&self, value: f64, count: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.counts.get(place) {
            bucket.fetch_add(count, Ordering::Relaxed);
        }
        let more = value * count as f64;
        // Only `None` from the closure is an error, and it returns none.
        let _ = self
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sum| Some((f64::from_bits(sum) + more).to_bits()));
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        self.add(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.add(value, count as u64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let buckets = Buckets::named("troupe_x_seconds");
        buckets.record(0.0001);
        buckets.record(0.000_100_1);
        buckets.record_many(11.0, 3);
        let counts = buckets.counts();
        assert_eq!((counts[0], counts[1], counts[16]), (1, 1, 3));
        assert!((buckets.sum() - 33.000_200_1).abs() < 1e-9);
        assert_eq!(Buckets::named("troupe_x_bytes").bounds(), SIZES);
    }

    proptest! {
        #[test]
        fn every_value_is_counted_once(values in proptest::collection::vec(0f64..100.0, 0..200)) {
            let buckets = Buckets::named("troupe_x_seconds");
            for value in &values { buckets.record(*value); }
            prop_assert_eq!(buckets.counts().iter().sum::<u64>(), values.len() as u64);
            prop_assert!((buckets.sum() - values.iter().sum::<f64>()).abs() < 1e-6);
        }
    }
}
