//! The pool's 95th percentile, from a histogram in powers of two.
//!
//! It only sets what a failure counts for, so a factor of two is precise enough, and one fast reply in sixteen is
//! counted (for sixteen): a line that all threads write would cost more than the answer is worth.

use std::sync::atomic::{AtomicU32, Ordering};

const BUCKETS: usize = 32;
/// Replies faster than this are sampled.
const SLOW_US: f32 = 65_536.0;
/// One in this many.
const SAMPLED: usize = 16;

/// Counts of replies by the power of two of their microseconds.
#[derive(Debug, Default)]
pub(crate) struct Sketch([AtomicU32; BUCKETS]);

impl Sketch {
    /// A reply after `rtt_us`; `turn` counts up with each reply of a thread.
    pub(crate) fn add(&self, rtt_us: f32, turn: usize) {
        let slow = rtt_us >= SLOW_US;
        if !slow && !turn.is_multiple_of(SAMPLED) {
            return;
        }
        let bucket = (32 - (rtt_us as u32).leading_zeros() as usize).min(BUCKETS - 1);
        self.0[bucket].fetch_add(if slow { 1 } else { SAMPLED as u32 }, Ordering::Relaxed);
    }

    /// The 95th percentile's bucket's upper end in microseconds; 0 while empty.
    pub(crate) fn p95_us(&self) -> f32 {
        let counts = self.0.each_ref().map(|count| u64::from(count.load(Ordering::Relaxed)));
        let total: u64 = counts.iter().sum();
        let mut below = 0;
        for (bucket, count) in counts.iter().enumerate() {
            below += count;
            if total > 0 && below * 100 >= total * 95 {
                return (1u64 << bucket) as f32;
            }
        }
        0.0
    }

    /// Halves all counts, so that old replies fade. The last one goes, too: it would be all that a quiet pool remembers.
    pub(crate) fn fade(&self) {
        for count in &self.0 {
            count.fetch_sub(count.load(Ordering::Relaxed).div_ceil(2), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_right_within_a_factor_of_two() {
        let sketch = Sketch::default();
        assert_eq!(sketch.p95_us(), 0.0);
        for turn in 0..1_600 {
            sketch.add(1_000.0, turn);
        }
        assert_eq!(sketch.p95_us(), 1_024.0);
        for turn in 0..200 {
            sketch.add(700_000.0, turn);
        }
        assert_eq!(sketch.p95_us(), 1_048_576.0);
    }

    #[test]
    fn a_single_slow_reply_is_forgotten() {
        let sketch = Sketch::default();
        sketch.add(60e6, 1);
        assert!(sketch.p95_us() > 60e6);
        for _ in 0..40 {
            sketch.fade();
        }
        assert_eq!(sketch.p95_us(), 0.0);
    }
}
