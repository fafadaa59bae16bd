//! The functions of one generation of a pool's code, and how fast each of them is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use troupe_mesh::failure::{Failure, Outcome, Stage};

use crate::metrics::{FunctionMeters, FunctionSeries};

/// A call that took longer counts as slow.
const SLOW_MICROS: u32 = 1_000;
/// Calls seen before a function may count as fast.
const SAMPLES: u32 = 100;
/// The share of slow calls is kept in units of 1 / `ONE`.
const ONE: u32 = 1 << 20;
/// A function is fast until one call in this many is slow. On a busy machine a call of 30 µs is interrupted about one time in a
/// hundred, for longer than a millisecond.
const FAST_SHARE: u32 = 20;
/// It is fast again when less than one call in this many is slow. A function that takes about a millisecond would otherwise be
/// the one and the other by turns, and with it the number of calls that the pool asks for.
const FAST_AGAIN_SHARE: u32 = 40;
/// Each call moves the share by 1 / 2^`WEIGHT`: about the last 256 calls count.
const WEIGHT: u32 = 8;

/// Functions by name, as the zygote found them.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    loaded: HashMap<Box<str>, Function>,
    /// Files that should be functions and are none, with the reason.
    broken: HashMap<Box<str>, Box<str>>,
    /// One process found them by itself, and others may find others.
    pub(crate) are_its_own: bool,
}

/// One function.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    /// What the processes of this generation know it by.
    pub(crate) index: u16,
    /// What is known of it over generations.
    pub(crate) known: Arc<Known>,
}

/// What is learnt of a function, and counted.
#[derive(Debug)]
pub(crate) struct Known {
    /// How fast it is.
    pub(crate) pace: Pace,
    pub(crate) meters: FunctionMeters,
}

impl Functions {
    /// The functions of a new generation, counted in `series`; those that were there before keep what is known of them.
    pub(crate) fn new(found: impl IntoIterator<Item = (String, u16)>, before: &Self, series: &FunctionSeries) -> Self {
        let loaded = found.into_iter().map(|(name, index)| {
            let known = match before.get(&name) {
                Some(function) => Arc::clone(&function.known),
                None => Arc::new(Known { pace: Pace::default(), meters: series.of(&name) }),
            };
            (name.into_boxed_str(), Function { index, known })
        });
        Self { loaded: loaded.collect(), broken: HashMap::new(), are_its_own: false }
    }

    /// The same, and what could not be loaded: names with the reason.
    pub(crate) fn with_broken(mut self, broken: impl IntoIterator<Item = (String, String)>) -> Self {
        self.broken = broken.into_iter().map(|(name, why)| (name.into(), why.into())).collect();
        self
    }

    /// The same, as one process found them by itself.
    pub(crate) fn of_one_process(mut self) -> Self {
        self.are_its_own = true;
        self
    }

    /// Why the function of this name could not be loaded, if it is there and could not.
    pub(crate) fn why_broken(&self, name: &str) -> Option<&str> {
        self.broken.get(name).map(|why| &**why)
    }

    /// The failure of a call of a function that could not be loaded; `None`: there is no such function.
    pub(crate) fn broken(&self, name: &str) -> Option<Failure> {
        let why = self.why_broken(name)?;
        Some(Failure::new(Outcome::Internal, Stage::Php, "the function cannot be loaded").with_detail(why))
    }

    /// The failure of a call of a function that is not among these.
    pub(crate) fn missing(&self, name: &str) -> Failure {
        self.broken(name).unwrap_or_else(|| Failure::refused(Stage::PhpPool, 404, "there is no such function"))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Function> {
        self.loaded.get(name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.loaded.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    }
}

/// The share of slow calls, as a moving average. Calls on several threads may overwrite each other's sample, which costs
/// nothing but that sample; a fast function's share stays zero and is then only read. Being slow ends later than it begins.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    samples: AtomicU32,
    slow: AtomicU32,
    is_slow: AtomicBool,
}

impl Pace {
    /// Counts a call that took `micros`.
    pub(crate) fn record(&self, micros: u32) {
        let samples = self.samples.load(Ordering::Relaxed);
        if samples < SAMPLES {
            self.samples.store(samples + 1, Ordering::Relaxed);
        }
        let before = self.slow.load(Ordering::Relaxed);
        let sample = if micros >= SLOW_MICROS { ONE >> WEIGHT } else { 0 };
        let decayed = before - (before >> WEIGHT);
        // Below this the decay rounds to nothing and would never reach zero.
        let decayed = if decayed < 1 << WEIGHT { 0 } else { decayed };
        let after = decayed + sample;
        if after != before {
            self.slow.store(after, Ordering::Relaxed);
            let was_slow = self.is_slow.load(Ordering::Relaxed);
            let is_slow = after >= ONE / if was_slow { FAST_AGAIN_SHARE } else { FAST_SHARE };
            if is_slow != was_slow {
                self.is_slow.store(is_slow, Ordering::Relaxed);
            }
        }
    }

    /// Whether nothing is known against it being fast: true from the start, so that a burst at a new function does not grow
    /// the pool to its maximum before its first replies tell.
    pub(crate) fn may_be_fast(&self) -> bool {
        !self.is_slow.load(Ordering::Relaxed)
    }

    /// Whether 95 of 100 calls take less than a millisecond by the clock on the wall, waits for a core included: only then a
    /// call may wait behind another one. The rest is seen to by taking calls back from behind a slow one.
    pub(crate) fn is_fast(&self) -> bool {
        self.samples.load(Ordering::Relaxed) >= SAMPLES && self.may_be_fast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_fast_after_enough_fast_calls_and_no_more_after_some_slow_ones() {
        let pace = Pace::default();
        for _ in 0..SAMPLES - 1 {
            pace.record(10);
        }
        assert!(!pace.is_fast());
        pace.record(10);
        assert!(pace.is_fast());
        for _ in 0..3 {
            pace.record(SLOW_MICROS);
        }
        assert!(pace.is_fast(), "three in a row may have waited for a core");
        for _ in 0..20 {
            pace.record(SLOW_MICROS);
        }
        assert!(!pace.is_fast());
        for _ in 0..1_000 {
            pace.record(10);
        }
        assert!(pace.is_fast());
    }

    #[test]
    fn a_function_near_the_border_does_not_change_sides_with_each_call() {
        let pace = Pace::default();
        let (mut before, mut changes) = (true, 0);
        for call in 1..=40_000 {
            // One slow call in 24 and one in 17 by turns, for longer than the average remembers.
            let every = if call / 1_000 % 2 == 0 { 24 } else { 17 };
            pace.record(if call % every == 0 { 5_000 } else { 10 });
            changes += u32::from(pace.may_be_fast() != before);
            before = pace.may_be_fast();
        }
        assert_eq!((changes, before), (1, false), "slow once, and never fast again");
    }

    #[test]
    fn one_slow_call_in_ten_is_not_fast_and_one_in_a_hundred_is() {
        for (every, fast) in [(10, false), (100, true)] {
            let pace = Pace::default();
            let mut last_fast = 0;
            for call in 1..=20_000 {
                pace.record(if call % every == 0 { 5_000 } else { 10 });
                last_fast += u32::from(call > 10_000 && pace.is_fast());
            }
            assert_eq!(last_fast > 9_000, fast, "{every}: {last_fast}");
        }
    }
}
