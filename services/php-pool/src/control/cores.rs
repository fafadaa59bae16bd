//! Whether the processes of a pool want for cores, which more processes would not give them.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// Two looks closer together than this tell more about the scheduler's slices than about the processes.
const LEAST_SPAN: Duration = Duration::from_millis(10);
/// What was seen longer ago than this tells nothing of the load now.
const LONGEST_SPAN: Duration = Duration::from_secs(1);

/// How the processes spent the time between two looks at them.
#[derive(Debug, Default)]
pub(crate) struct Cores {
    last: Option<Look>,
}

#[derive(Debug)]
struct Look {
    at: Instant,
    /// By process, the nanoseconds for which it ran or waited for a core.
    spent: HashMap<u32, u64>,
    /// Whether they computed between the look before and this one. Not known yet counts as yes: the next look tells.
    computing: bool,
}

impl Cores {
    /// Whether the processes, given by number and process id, spent more than half of the time since the last look on a core
    /// or in wait of one. `false` where the kernel does not tell.
    pub(crate) fn computing(&mut self, now: Instant, processes: impl Iterator<Item = (u32, i32)>) -> bool {
        self.look(now, || processes.filter_map(|(id, pid)| Some((id, spent(pid)?))).collect())
    }

    fn look(&mut self, now: Instant, read: impl FnOnce() -> HashMap<u32, u64>) -> bool {
        let last = match self.last.take() {
            Some(last) if now.duration_since(last.at) < LEAST_SPAN => {
                return self.last.insert(last).computing;
            }
            last => last.filter(|last| now.duration_since(last.at) <= LONGEST_SPAN),
        };
        let spent = read();
        let computing = match &last {
            Some(last) => {
                let span = now.duration_since(last.at).as_nanos();
                let both = spent.iter().filter_map(|(id, spent)| Some(spent.saturating_sub(*last.spent.get(id)?)));
                let (count, sum) =
                    both.fold((0_u128, 0_u128), |(count, sum), spent| (count + 1, sum + u128::from(spent)));
                sum * 2 > span * count
            }
            None => !spent.is_empty(),
        };
        self.last = Some(Look { at: now, spent, computing });
        computing
    }
}

/// Nanoseconds for which the process `pid` has run or waited for a core: the first two numbers of `/proc/PID/schedstat`.
fn spent(pid: i32) -> Option<u64> {
    parse(&fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?)
}

fn parse(schedstat: &str) -> Option<u64> {
    let mut numbers = schedstat.split_ascii_whitespace().map(str::parse::<u64>);
    let (ran, waited) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    ran.checked_add(waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        assert_eq!(parse("5000 300 2\n"), Some(5_300));
        assert_eq!(parse("5000"), None);
        assert_eq!(parse("a b c"), None);
        assert!(spent(std::process::id() as i32).is_some_and(|spent| spent > 0));
        assert_eq!(spent(-1), None);
    }

    fn looks(looks: &[(u64, &[(u32, u64)])]) -> Vec<bool> {
        let begun = Instant::now();
        let mut cores = Cores::default();
        let look = |(at_ms, spent_ms): &(u64, &[(u32, u64)])| {
            let spent = spent_ms.iter().map(|(id, spent)| (*id, spent * 1_000_000)).collect();
            cores.look(begun + Duration::from_millis(*at_ms), || spent)
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn processes_that_want_for_cores_are_told_from_those_that_wait_for_something_else() {
        assert_eq!(looks(&[(0, &[(1, 0), (2, 0)]), (20, &[(1, 20), (2, 18)])]), [true, true]);
        assert_eq!(looks(&[(0, &[(1, 0), (2, 0)]), (20, &[(1, 20), (2, 0)])]), [true, false]);
        assert_eq!(looks(&[(0, &[(1, 0), (2, 0)]), (20, &[(1, 1), (2, 1)])]), [true, false]);
    }

    #[test]
    fn a_look_too_soon_repeats_the_last_and_one_too_late_begins_anew() {
        assert_eq!(
            looks(&[(0, &[(1, 0)]), (20, &[(1, 0)]), (25, &[(1, 5)]), (40, &[(1, 20)])]),
            [true, false, false, true]
        );
        assert_eq!(looks(&[(0, &[(1, 0)]), (20, &[(1, 0)]), (2_000, &[(1, 0)])]), [true, false, true]);
    }

    #[test]
    fn only_processes_seen_twice_count() {
        assert_eq!(looks(&[(0, &[(1, 0)]), (20, &[(1, 20), (2, 0), (3, 0)])]), [true, true]);
        assert_eq!(looks(&[(0, &[(1, 0)]), (20, &[(2, 500)])]), [true, false]);
    }

    #[test]
    fn where_the_kernel_does_not_tell_nothing_is_known_to_compute() {
        assert_eq!(looks(&[(0, &[]), (20, &[])]), [false, false]);
    }
}
