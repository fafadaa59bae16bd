//! How many cores this process may use, and which.

use std::collections::BTreeSet;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::{Pin, Threads};

/// Cores' worth of time this process may use: the affinity mask, capped by the cgroup's CPU quota (v1 and v2), at least 1.
///
/// A quota of 2.5 cores counts as 2: a third busy thread would be throttled for the rest of each period, and every
/// connection it owns with it.
pub fn usable_cores() -> usize {
    // The standard library reads both; when neither can be read, one thread is the only number that is never too many.
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The number of data threads that the configuration asks for.
pub fn count(threads: Threads) -> usize {
    match threads {
        Threads::Auto => usable_cores(),
        Threads::Count(count) => usize::from(count.get()),
    }
}

/// The cores the calling thread may run on, in ascending order; empty when the kernel does not tell.
pub fn allowed_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Whether data threads are tied to cores (`node.pin`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Pinning {
    /// The kernel places the threads.
    #[default]
    Off,
    /// Thread `i` is tied to the `i`-th core this process may use, round robin.
    Auto,
    /// Thread `i` is tied to the `i`-th core of the list, round robin.
    Cores(Vec<usize>),
}

/// A pinning that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The list names a core outside the affinity mask.
    #[error(
        "core {core} in node.pin is not one this process may use ({allowed}); name one of those, or set pin = true"
    )]
    NotAllowed {
        /// The core that was asked for.
        core: usize,
        /// The cores there are, for people.
        allowed: String,
    },
    /// An empty list.
    #[error("node.pin is an empty list; name at least one core, or set pin = false")]
    Empty,
}

impl From<&Pin> for Pinning {
    fn from(pin: &Pin) -> Self {
        match pin {
            Pin::Each(false) => Self::Off,
            Pin::Each(true) => Self::Auto,
            Pin::Cores(cores) => Self::Cores(cores.iter().copied().map(usize::from).collect()),
        }
    }
}

impl Pinning {
    /// The core of each of `count` threads.
    ///
    /// # Errors
    ///
    /// When a listed core is not among those the calling thread may run on, or the list is empty.
    pub fn plan(&self, count: usize) -> Result<Vec<Option<usize>>, PinError> {
        let cores = match self {
            Self::Off => return Ok(vec![None; count]),
            Self::Auto => allowed_cores(),
            Self::Cores(cores) => {
                if cores.is_empty() {
                    return Err(PinError::Empty);
                }
                let allowed: BTreeSet<usize> = allowed_cores().into_iter().collect();
                if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
                    return Err(PinError::NotAllowed {
                        core: *core,
                        allowed: allowed.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
                    });
                }
                cores.clone()
            }
        };
        if cores.is_empty() {
            // The kernel would not name its cores: placing the threads is left to it.
            return Ok(vec![None; count]);
        }
        Ok((0..count).map(|index| Some(cores[index % cores.len()])).collect())
    }
}

/// Ties the calling thread to `core`. A refusal (the mask shrank meanwhile) costs speed, not service: it is logged.
pub fn pin_current(core: Option<usize>) {
    let Some(core) = core.filter(|core| *core < CpuSet::MAX_CPU) else {
        return;
    };
    let mut set = CpuSet::new();
    set.set(core);
    if let Err(error) = sched_setaffinity(None, &set) {
        let error = std::io::Error::from(error);
        tracing::warn!(core, %error, "cannot tie this thread to its core; the kernel places it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_pinned_to_one_core_may_use_one() {
        let seen = std::thread::spawn(|| {
            let core = allowed_cores()[0];
            pin_current(Some(core));
            (core, allowed_cores(), usable_cores())
        })
        .join()
        .expect("the thread does not panic");
        assert_eq!(seen.1, vec![seen.0]);
        assert_eq!(seen.2, 1);
    }

    #[test]
    fn plans_go_round_the_cores_and_refuse_foreign_ones() {
        let allowed = allowed_cores();
        let plan = Pinning::Auto.plan(allowed.len() + 1).expect("allowed");
        assert_eq!(plan[0], Some(allowed[0]));
        assert_eq!(plan.last(), Some(&Some(allowed[0])));
        assert_eq!(Pinning::from(&Pin::Each(true)), Pinning::Auto);
        assert_eq!(Pinning::from(&Pin::Cores(vec![3])), Pinning::Cores(vec![3]));
        assert_eq!(count(Threads::Auto), usable_cores());
        assert_eq!(Pinning::Off.plan(2), Ok(vec![None, None]));
        assert_eq!(Pinning::Cores(vec![]).plan(1), Err(PinError::Empty));
        let error = Pinning::Cores(vec![100_000]).plan(1).expect_err("no such core");
        assert!(error.to_string().contains("core 100000"), "{error}");
    }
}
