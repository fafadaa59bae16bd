//! What a worker costs: pure arithmetic, without a clock and without atomics.
//!
//! `score = 1 / cost`, `cost = L * (q + 1) / (w * s)`: L is the peak-EWMA of outcome-adjusted latency, q the calls in
//! flight, w the weight and s the slow-start factor (both in one number here, the gain). Refinements keep noise from
//! steering traffic: a peak counts once three samples in a row agree on it, and at once only well beyond what is usual in the pool;
//! latencies within [`BAND`] of the pool's median compare as equal, so that equal workers get equal shares by their calls in
//! flight; and what nobody can disprove, because nobody calls the worker, fades faster.

/// Faster than this nothing is told apart: below it, latency is the noise of the scheduler.
pub const FLOOR_US: f32 = 100.0;
/// Latencies less than this factor from the median, either way, count as the median; and a peak less than this factor beyond
/// what is usual is none.
pub const BAND: f32 = 2.0;
/// The least a failed call counts for. A worker that fails fast must not look fast.
pub const LEAST_PENALTY_US: f32 = 1_000_000.0;
/// A failed call counts for at least this many times the pool's 95th percentile.
const PENALTY_PER_P95: f32 = 3.0;
/// An estimate fades this much faster while the worker has no call: it keeps calls away, and with them what would disprove it.
/// One that is right is confirmed again by the first call.
pub const IDLE_FADE: f32 = 4.0;
/// The share of full weight a worker starts with.
const SLOW_START_FLOOR: f32 = 0.1;
/// How much one reply moves a worker's rate of application errors: a memory of about sixty replies.
const RATE_STEP: f32 = 1.0 / 32.0;
/// A rate of application errors this much above the pool's says nothing yet: three errors in thirty replies.
const LEAST_EXCESS: f32 = 0.1;
/// Standard deviations that rule out chance. A worker wrongly found guilty loses its share for seconds, so this must not
/// happen in millions of replies.
const BEYOND_CHANCE: f32 = 4.0;

/// A remembered latency and when it was last moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Microseconds; 0 while nothing is known.
    pub latency_us: f32,
    /// Milliseconds on the balancer's clock, wrapping after 49 days.
    pub at_ms: u32,
}

impl Estimate {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { latency_us: 0.0, at_ms: 0 };

    /// In one word, for an atomic.
    pub fn pack(self) -> u64 {
        (u64::from(self.latency_us.to_bits()) << 32) | u64::from(self.at_ms)
    }

    /// The reverse of [`Estimate::pack`].
    pub fn unpack(word: u64) -> Self {
        Self { latency_us: f32::from_bits((word >> 32) as u32), at_ms: word as u32 }
    }

    /// After a call that took `sample_us`, where the least of the two before took `previous_us` (0: there were none), and
    /// `usual_us` is what 95 of 100 calls of the pool do not exceed (0: unknown).
    ///
    /// Upward at once, but only as far as all three agree, and only well beyond the usual: where calls differ in what they ask for,
    /// three long ones in a row happen to every worker. Else with time constant `decay_ms`, at most once in a millisecond,
    /// which is what makes it cheap under load.
    #[must_use]
    pub fn observe(self, sample_us: f32, previous_us: f32, usual_us: f32, now_ms: u32, decay_ms: f32) -> Self {
        let sample = sample_us.max(FLOOR_US);
        if self.latency_us == 0.0 {
            return Self { latency_us: sample, at_ms: now_ms };
        }
        let confirmed = sample.min(previous_us);
        if confirmed > self.latency_us.max(usual_us * BAND) {
            return Self { latency_us: confirmed, at_ms: now_ms };
        }
        if confirmed > self.latency_us {
            return self.toward(confirmed, now_ms, decay_ms);
        }
        if sample >= self.latency_us { self } else { self.toward(sample, now_ms, decay_ms) }
    }

    /// After a failure worth `sample_us`: it counts at once, and never lowers.
    #[must_use]
    pub fn penalise(self, sample_us: f32, now_ms: u32) -> Self {
        Self { latency_us: self.latency_us.max(sample_us).max(FLOOR_US), at_ms: now_ms }
    }

    /// Moves toward `target_us` as time passes.
    #[must_use]
    pub fn toward(self, target_us: f32, now_ms: u32, decay_ms: f32) -> Self {
        let elapsed = now_ms.wrapping_sub(self.at_ms) as i32;
        if elapsed <= 0 || self.latency_us == 0.0 {
            return self;
        }
        // -exp_m1(-x) is 1 - exp(-x) without losing small x.
        let share = if decay_ms > 0.0 { -f32::exp_m1(-(elapsed as f32) / decay_ms) } else { 1.0 };
        let latency_us = (self.latency_us + (target_us - self.latency_us) * share).max(FLOOR_US);
        Self { latency_us, at_ms: now_ms }
    }
}

/// The latency that a worker is compared by: unknown counts as the median, and so does whatever is close to it.
///
/// `stalled_us` is for how long at least one of its calls has waited without any reply of the worker: a lower bound of
/// its latency that needs no reply, which is how a frozen worker is noticed.
pub fn compared(latency_us: f32, stalled_us: f32, median_us: f32) -> f32 {
    let known = if latency_us == 0.0 { median_us } else { latency_us };
    let latency = known.max(stalled_us).max(FLOOR_US);
    if latency * BAND >= median_us && latency <= median_us * BAND { median_us } else { latency }
}

/// What one more call on this worker costs; lower is better.
pub fn cost(compared_us: f32, calls: u32, gain: f32) -> f32 {
    compared_us * (calls as f32 + 1.0) / gain
}

/// What a failed call counts for, given the pool's 95th percentile.
pub fn penalty(p95_us: f32) -> f32 {
    LEAST_PENALTY_US.max(PENALTY_PER_P95 * p95_us)
}

/// The slow-start factor, `elapsed` into a window of `window` (same unit).
pub fn slow_start(elapsed: u64, window: u64) -> f32 {
    if elapsed >= window { 1.0 } else { (elapsed as f32 / window as f32).max(SLOW_START_FLOOR) }
}

/// A rate of application errors after one more reply.
pub fn error_rate(rate: f32, failed: bool) -> f32 {
    let next = rate + (if failed { 1.0 } else { 0.0 } - rate) * RATE_STEP;
    // Ends the tail, so that a healthy worker has nothing to write.
    if next < 1e-4 { 0.0 } else { next }
}

/// By how much a worker's rate of application errors stands out of its pool's: 0 unless chance is ruled out.
///
/// An application that fails everywhere is not the worker's fault. The bound is in standard deviations of such an
/// estimate at a rate between the two, since the pool's may not be known any better than the worker's.
pub fn excess(rate: f32, pool_rate: f32) -> f32 {
    let between = 0.5 * (rate + pool_rate);
    let variance = between * (1.0 - between) * RATE_STEP / (2.0 - RATE_STEP);
    let above = rate - pool_rate;
    if above > LEAST_EXCESS + BEYOND_CHANCE * variance.max(0.0).sqrt() { above } else { 0.0 }
}

/// The lower median of what is known, 0 when nothing is. Sorts `latencies`.
pub fn median(latencies: &mut Vec<f32>) -> f32 {
    latencies.retain(|&latency| latency > 0.0);
    latencies.sort_unstable_by(f32::total_cmp);
    latencies.get(latencies.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DECAY: f32 = 10_000.0;

    #[test]
    fn a_peak_is_noise_until_others_confirm_it() {
        let calm = Estimate::UNKNOWN.observe(1_000.0, 0.0, 0.0, 1, DECAY);
        let after_one = calm.observe(50_000.0, 1_000.0, 0.0, 2, DECAY);
        assert_eq!(after_one, calm);
        assert_eq!(after_one.observe(60_000.0, 50_000.0, 0.0, 3, DECAY).latency_us, 50_000.0);
    }

    #[test]
    fn what_is_usual_in_the_pool_is_no_peak() {
        let calm = Estimate::UNKNOWN.observe(1_000.0, 0.0, 0.0, 0, DECAY);
        let usual = calm.observe(50_000.0, 50_000.0, 65_536.0, 50, DECAY);
        assert!((1_200.0..1_300.0).contains(&usual.latency_us), "{usual:?}");
        assert_eq!(calm.observe(140_000.0, 140_000.0, 65_536.0, 50, DECAY).latency_us, 140_000.0);
        // A worker that is slow at every call is found out within a few seconds all the same.
        let always = (1..=60).fold(calm, |slow, turn| slow.observe(50_000.0, 50_000.0, 65_536.0, turn * 50, DECAY));
        assert!(always.latency_us > 10_000.0, "{always:?}");
    }

    #[test]
    fn a_failure_counts_at_once() {
        let calm = Estimate::UNKNOWN.observe(1_000.0, 0.0, 0.0, 1, DECAY);
        assert_eq!(calm.penalise(penalty(5_000.0), 2).latency_us, 1_000_000.0);
        assert_eq!(penalty(1_000_000.0), 3_000_000.0);
    }

    #[test]
    fn a_peak_fades_to_a_third_in_one_decay() {
        let peak = Estimate { latency_us: 1_000_000.0, at_ms: 0 };
        let faded = peak.observe(1_000.0, 1_000.0, 0.0, 10_000, DECAY).latency_us;
        assert!((360_000.0..380_000.0).contains(&faded), "{faded}");
    }

    #[test]
    fn close_latencies_compare_as_equal_and_unknown_as_the_median() {
        assert_eq!(compared(15_000.0, 0.0, 10_000.0), 10_000.0);
        assert_eq!(compared(6_000.0, 0.0, 10_000.0), 10_000.0);
        assert_eq!(compared(25_000.0, 0.0, 10_000.0), 25_000.0);
        assert_eq!(compared(3_000.0, 0.0, 10_000.0), 3_000.0);
        assert_eq!(compared(0.0, 0.0, 10_000.0), 10_000.0);
        assert_eq!(compared(10_000.0, 400_000.0, 10_000.0), 400_000.0);
    }

    #[test]
    fn errors_stand_out_only_against_a_pool_that_works() {
        let mut rate = 0.0;
        let mut errors = 0;
        while excess(rate, 0.0) == 0.0 {
            rate = error_rate(rate, true);
            errors += 1;
        }
        assert!((5..=12).contains(&errors), "{errors}");
        assert_eq!(excess(0.55, 0.5), 0.0);
        assert_eq!(excess(error_rate(0.0, true), 0.0), 0.0);
    }

    #[test]
    fn the_median_of_two_is_the_better_one() {
        assert_eq!(median(&mut vec![30.0, 0.0, 10.0]), 10.0);
        assert_eq!(median(&mut vec![]), 0.0);
        assert_eq!(median(&mut vec![3.0, 1.0, 2.0]), 2.0);
    }

    proptest! {
        #[test]
        fn an_estimate_stays_between_what_was_seen(usual in 0.0f32..1e6, samples in proptest::collection::vec((1.0f32..1e7, 0u32..2_000), 1..60)) {
            let mut estimate = Estimate::UNKNOWN;
            let (mut now, mut previous) = (u32::MAX - 20_000, 0.0);
            let (mut low, mut high) = (f32::MAX, FLOOR_US);
            for (sample, gap) in samples {
                now = now.wrapping_add(gap);
                estimate = estimate.observe(sample, previous, usual, now, DECAY);
                previous = sample;
                low = low.min(sample.max(FLOOR_US));
                high = high.max(sample);
                prop_assert!(estimate.latency_us >= low * 0.999 && estimate.latency_us <= high * 1.001);
                prop_assert_eq!(Estimate::unpack(estimate.pack()), estimate);
            }
        }

        #[test]
        fn cost_is_finite_and_grows_with_calls(latency in 0.0f32..1e9, stalled in 0.0f32..1e9, median in 0.0f32..1e9, calls in 0u32..100_000, gain in 0.1f32..100.0) {
            let compared = compared(latency, stalled, median);
            let here = cost(compared, calls, gain);
            prop_assert!(here.is_finite() && here > 0.0);
            prop_assert!(cost(compared, calls + 1, gain) >= here);
        }
    }
}
