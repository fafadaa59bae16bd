//! Values by bucket, merged over instances that may have other bounds.

/// How many values fell between which bounds, as numbers or as rates.
///
/// Merging two with different bounds keeps the bounds that both have: at those, both know exactly how many values are
/// below; anything finer would be made up.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Distribution {
    bounds: Vec<f64>,
    /// Each bucket by itself; one more than bounds, or none at all while nothing was merged.
    counts: Vec<f64>,
    sum: f64,
}

impl Distribution {
    /// One with these buckets. `counts` beyond the last bound are one bucket; missing ones are empty.
    pub(super) fn new(bounds: &[f64], counts: &[f64], sum: f64) -> Self {
        let mut own: Vec<f64> = counts.iter().copied().take(bounds.len()).collect();
        own.resize(bounds.len(), 0.0);
        own.push(counts.iter().skip(bounds.len()).sum());
        Self { bounds: bounds.to_vec(), counts: own, sum }
    }

    pub(super) fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    pub(super) fn counts(&self) -> &[f64] {
        &self.counts
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    pub(super) fn total(&self) -> f64 {
        self.counts.iter().sum()
    }

    /// Adds another one.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            self.clone_from(other);
            return;
        }
        self.sum += other.sum;
        if self.bounds == other.bounds {
            for (own, more) in self.counts.iter_mut().zip(&other.counts) {
                *own += more;
            }
            return;
        }
        let common: Vec<f64> = self.bounds.iter().copied().filter(|bound| other.bounds.contains(bound)).collect();
        let (mut counts, more) = (self.onto(&common), other.onto(&common));
        for (own, more) in counts.iter_mut().zip(&more) {
            *own += more;
        }
        (self.bounds, self.counts) = (common, counts);
    }

    /// The counts by coarser bounds, which are all among the own.
    fn onto(&self, bounds: &[f64]) -> Vec<f64> {
        let mut counts = vec![0.0; bounds.len() + 1];
        for (place, count) in self.counts.iter().enumerate() {
            let upper = self.bounds.get(place).copied().unwrap_or(f64::INFINITY);
            let place = bounds.partition_point(|bound| *bound < upper);
            if let Some(bucket) = counts.get_mut(place) {
                *bucket += count;
            }
        }
        counts
    }

    /// The value below which the share `q` lies, as far as the buckets tell; `None` of nothing. What exceeds all bounds
    /// counts as the highest of them.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total <= 0.0 {
            return None;
        }
        let rank = q * total;
        let (mut below, mut lower) = (0.0, 0.0);
        for (place, count) in self.counts.iter().enumerate() {
            let Some(upper) = self.bounds.get(place).copied() else { return Some(lower) };
            if below + count >= rank && *count > 0.0 {
                return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            lower = upper;
        }
        Some(lower)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bounds: &[f64], values: &[f64]) -> Distribution {
        let mut counts = vec![0.0; bounds.len() + 1];
        for value in values {
            counts[bounds.partition_point(|bound| bound < value)] += 1.0;
        }
        Distribution::new(bounds, &counts, values.iter().sum())
    }

    #[test]
    fn quantiles_lie_in_their_buckets() {
        let distribution = of(&[0.1, 0.2, 0.4], &[0.05, 0.15, 0.15, 0.3, 9.0]);
        assert_eq!(Distribution::default().quantile(0.5), None);
        let median = distribution.quantile(0.5).unwrap();
        assert!(median > 0.1 && median <= 0.2, "{median}");
        assert_eq!(distribution.quantile(0.99), Some(0.4));
    }

    proptest! {
        #[test]
        fn merging_is_counting_together(
            one in proptest::collection::vec(0f64..10.0, 0..50),
            other in proptest::collection::vec(0f64..10.0, 0..50),
            shared in 0usize..4,
        ) {
            let all = [0.5, 1.0, 2.0, 4.0, 8.0];
            let few: Vec<f64> = all.iter().copied().skip(shared).chain([9.0]).collect();
            let mut merged = of(&all, &one);
            merged.merge(&of(&few, &other));
            let values: Vec<f64> = one.iter().chain(&other).copied().collect();
            let expected = of(merged.bounds(), &values);
            prop_assert_eq!(merged.counts(), expected.counts());
            prop_assert!(merged.bounds().iter().all(|bound| all.contains(bound) && few.contains(bound)));
            prop_assert!((merged.sum() - expected.sum()).abs() < 1e-9);
            // In whatever order.
            let mut reversed = of(&few, &other);
            reversed.merge(&of(&all, &one));
            prop_assert_eq!(reversed.counts(), merged.counts());
        }
    }
}
