//! Whether the processes of a pool want for cores, which more processes would not give them.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::process::ProcessInfo;

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
    /// By process.
    seen: HashMap<u32, Seen>,
    /// Whether they computed between the look before and this one. Not known yet counts as yes: the next look tells.
    computing: bool,
}

/// What a process has done since it was started.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// For how long its whole calls took.
    worked: Duration,
    /// For how long it ran, or waited for a core.
    spent: Duration,
    /// It has no call now.
    idle: bool,
}

impl Cores {
    /// Whether the processes spent more than half of the time that their calls took since the last look on a core or in wait of
    /// one. `false` where the kernel does not tell. `idle` are those that have no call.
    pub(crate) fn computing<'a>(
        &mut self,
        now: Instant,
        processes: impl Iterator<Item = &'a ProcessInfo>,
        idle: &[u32],
    ) -> bool {
        let see = |info: &ProcessInfo| {
            let (worked, idle) = (Duration::from_micros(info.worked()), idle.contains(&info.id));
            Some((info.id, Seen { worked, spent: spent(info.pid())?, idle }))
        };
        self.look(now, || processes.filter_map(see).collect())
    }

    fn look(&mut self, now: Instant, see: impl FnOnce() -> HashMap<u32, Seen>) -> bool {
        let last = match self.last.take() {
            Some(last) if now.duration_since(last.at) < LEAST_SPAN => {
                return self.last.insert(last).computing;
            }
            last => last.filter(|last| now.duration_since(last.at) <= LONGEST_SPAN),
        };
        let seen = see();
        let computing = match &last {
            Some(last) => {
                let span = now.duration_since(last.at);
                let both = seen.iter().filter_map(|(id, seen)| Some((seen, last.seen.get(id)?)));
                let (mut worked, mut spent) = (Duration::ZERO, Duration::ZERO);
                for (seen, before) in both {
                    // One that ended no call has one that takes long, unless it has none: calls of one thread may wait while
                    // another thread's processes are idle. It may rest between calls otherwise: where the front keeps the
                    // cores busy, that is no reason for more processes.
                    worked += match seen.worked.saturating_sub(before.worked) {
                        Duration::ZERO if !seen.idle => span,
                        worked => worked,
                    };
                    spent += seen.spent.saturating_sub(before.spent);
                }
                spent * 2 > worked
            }
            None => !seen.is_empty(),
        };
        self.last = Some(Look { at: now, seen, computing });
        computing
    }
}

/// For how long the process `pid` has run or waited for a core: the first two numbers of `/proc/PID/schedstat`.
fn spent(pid: i32) -> Option<Duration> {
    parse(&fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?)
}

fn parse(schedstat: &str) -> Option<Duration> {
    let mut numbers = schedstat.split_ascii_whitespace().map(str::parse::<u64>);
    let (ran, waited) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    ran.checked_add(waited).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_kernel_tells() {
        assert_eq!(parse("5000 300 2\n"), Some(Duration::from_nanos(5_300)));
        assert_eq!(parse("5000"), None);
        assert_eq!(parse("a b c"), None);
        assert!(spent(std::process::id() as i32).is_some_and(|spent| spent > Duration::ZERO));
        assert_eq!(spent(-1), None);
    }

    /// Processes from this number on are idle.
    const IDLE: u32 = 100;

    /// A process: its number, how long its calls took, how long it had a core, in ms.
    type Process = (u32, u32, u32);

    /// Looks at these moments, in ms.
    fn looks(looks: &[(u32, &[Process])]) -> Vec<bool> {
        let begun = Instant::now();
        let mut cores = Cores::default();
        let look = |(at, seen): &(u32, &[Process])| {
            let seen = seen
                .iter()
                .map(|(id, worked, spent)| (*id, Seen { worked: MS * *worked, spent: MS * *spent, idle: *id >= IDLE }));
            cores.look(begun + MS * *at, || seen.collect())
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn processes_that_want_for_cores_are_told_from_those_that_wait_for_something_else() {
        assert_eq!(looks(&[(0, &[(1, 0, 0), (2, 0, 0)]), (20, &[(1, 19, 20), (2, 17, 18)])]), [true, true]);
        assert_eq!(looks(&[(0, &[(1, 0, 0), (2, 0, 0)]), (20, &[(1, 19, 2), (2, 19, 3)])]), [true, false]);
    }

    #[test]
    fn a_process_that_rests_between_calls_that_compute_does_not_wait_for_anything_else() {
        assert_eq!(looks(&[(0, &[(1, 0, 0), (2, 0, 0)]), (20, &[(1, 4, 5), (2, 2, 2)])]), [true, true]);
    }

    #[test]
    fn a_process_that_ended_no_call_has_one_that_takes_long() {
        assert_eq!(looks(&[(0, &[(1, 0, 0)]), (20, &[(1, 0, 1)])]), [true, false], "it waits");
        assert_eq!(looks(&[(0, &[(1, 0, 0)]), (20, &[(1, 0, 19)])]), [true, true], "it computes");
        assert_eq!(looks(&[(0, &[(1, 0, 0), (2, 0, 0)]), (20, &[(1, 4, 5), (2, 0, 0)])]), [true, false]);
    }

    #[test]
    fn an_idle_process_waits_for_nothing() {
        assert_eq!(looks(&[(0, &[(1, 0, 0), (101, 0, 0)]), (20, &[(1, 4, 5), (101, 0, 0)])]), [true, true]);
    }

    #[test]
    fn a_look_too_soon_repeats_the_last_and_one_too_late_begins_anew() {
        assert_eq!(
            looks(&[(0, &[(1, 0, 0)]), (20, &[(1, 0, 0)]), (25, &[(1, 5, 5)]), (40, &[(1, 20, 20)])]),
            [true, false, false, true]
        );
        assert_eq!(looks(&[(0, &[(1, 0, 0)]), (20, &[(1, 0, 0)]), (2_000, &[(1, 0, 0)])]), [true, false, true]);
    }

    #[test]
    fn only_processes_seen_twice_count() {
        assert_eq!(looks(&[(0, &[(1, 0, 0)]), (20, &[(1, 20, 20), (2, 0, 0), (3, 0, 0)])]), [true, true]);
        assert_eq!(looks(&[(0, &[(1, 0, 0)]), (20, &[(2, 500, 500)])]), [true, false]);
    }

    #[test]
    fn where_the_kernel_does_not_tell_nothing_is_known_to_compute() {
        assert_eq!(looks(&[(0, &[]), (20, &[])]), [false, false]);
    }
}
