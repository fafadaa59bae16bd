//! What the PHP processes of a pool use: processor time, by those that have ended too, and memory.
//!
//! A process may live for a single call, so that looks at the live ones would miss most of the time. The kernel helps: once a
//! process is waited for, what it used is added to what its parent's children used. So a zygote's own time, its children's, and what
//! its live processes used so far are all of it, whoever ended between two looks, and nothing has to be remembered of a process.
//! Zygotes, and processes that none forked, are this process's own children: each is looked at a last time when it has ended, before
//! it is waited for. Two things are missed: what processes used after the last look when their zygote ended before them, and programs
//! that a function started and left behind. Those that it waited for are counted then.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::unix::pipe;
use tokio::process::Child;

use super::memory;
use crate::pool::Pool;

/// What the kernel counts in `/proc/PID/stat`: `USER_HZ` is 100 on every machine that Rust and PHP run on.
const TICKS_PER_SECOND: u64 = 100;
/// After a look at memory, this many times as long without one, so that it takes 2 % of a core at most: the kernel counts a share page
/// by page, 0.4 to 0.8 ms for a process of 30 MB, where what it knows of processor time costs 20 µs.
const REST: u32 = 50;

/// What the processes of one pool use.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    roots: Mutex<Roots>,
    /// From when on memory is looked at again. Locked for as long as a look takes, so that there is one at a time.
    memory_due: Mutex<Option<Instant>>,
    cpu_micros: AtomicU64,
    resident: AtomicU64,
}

/// The processes of the pool that are children of this one.
#[derive(Debug, Default)]
struct Roots {
    known: Vec<Root>,
    next: u64,
}

#[derive(Debug)]
struct Root {
    /// Unlike a process id, never given twice.
    number: u64,
    pid: i32,
    /// What it and its processes were seen to have used, in microseconds.
    micros: u64,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: i32,
    /// What it used, with what those it has waited for did, in microseconds.
    micros: u64,
}

impl Usage {
    /// Processor time so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.cpu_micros.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// Memory in the last look, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    /// Goes on where the usage of the pool whose place is taken is now.
    pub(crate) fn succeed(&self, old: &Self) {
        self.cpu_micros.fetch_add(old.cpu_micros.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Counts what `child` and the processes that it forks use, and waits for its end.
pub(crate) async fn wait(pool: &Pool, mut child: Child) -> io::Result<ExitStatus> {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let number = pool.usage.roots.lock().add(pid);
        match ended(pid).await {
            Ok(()) => last_look(pool, pid, number),
            // A kernel before 5.3, or no descriptor left: what it uses after the last look is missed.
            Err(_) => {
                let status = child.wait().await;
                last_look(pool, 0, number);
                return status;
            }
        }
    }
    child.wait().await
}

/// Ready when the child `pid` has ended; it is still to be waited for, and keeps its number until then.
async fn ended(pid: i32) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    // No pipe, but nothing is read from it: what tokio has for descriptors of any kind is unsafe.
    pipe::Receiver::from_owned_fd_unchecked(pidfd_open(pid, PidfdFlags::empty())?)?.readable().await
}

/// The parent of the process `pid`; `None`: there is no such process, or nobody may know.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|stat| stat.parent)
}

fn last_look(pool: &Pool, pid: i32, number: u64) {
    let micros = stat(pid).map_or(0, |stat| stat.micros);
    let mut roots = pool.usage.roots.lock();
    let more = roots.account(number, micros);
    roots.known.retain(|root| root.number != number);
    let was_last = roots.known.is_empty();
    drop(roots);
    count(pool, more);
    if was_last {
        show_resident(pool, 0);
    }
}

/// Looks at the processes of the pool; `pids` are those that were forked, at least. Reads some files of each: not for a thread
/// that has something else to do. Does nothing while another look goes on.
pub(crate) fn look(pool: &Pool, pids: Vec<i32>) {
    let usage = &pool.usage;
    let Some(mut memory_due) = usage.memory_due.try_lock() else { return };
    let roots: Vec<(u64, i32)> = usage.roots.lock().known.iter().map(|root| (root.number, root.pid)).collect();
    let (used, live) = survey(&roots, pids, stat);
    let more = {
        let mut roots = usage.roots.lock();
        used.into_iter().map(|(number, micros)| roots.account(number, micros)).sum()
    };
    count(pool, more);
    let begun = Instant::now();
    if memory_due.is_none_or(|due| begun >= due) {
        let resident = live.into_iter().filter_map(memory::share).sum();
        let now = Instant::now();
        *memory_due = now.checked_add(now.duration_since(begun).saturating_mul(REST));
        if !usage.roots.lock().known.is_empty() {
            show_resident(pool, resident);
        }
    }
}

fn count(pool: &Pool, micros: u64) {
    pool.usage.cpu_micros.fetch_add(micros, Ordering::Relaxed);
    pool.metrics.cpu.increment(micros);
}

fn show_resident(pool: &Pool, bytes: u64) {
    pool.usage.resident.store(bytes, Ordering::Relaxed);
    if !pool.is_silent() {
        pool.metrics.resident.set(bytes as f64);
    }
}

impl Roots {
    fn add(&mut self, pid: i32) -> u64 {
        self.next += 1;
        self.known.push(Root { number: self.next, pid, micros: 0 });
        self.next
    }

    /// It and its processes have used so much; says how much more that is than was known. A process that ended during the look may
    /// be missing in it: then nothing, until the sum has caught up.
    fn account(&mut self, number: u64, micros: u64) -> u64 {
        let Some(root) = self.known.iter_mut().find(|root| root.number == number) else { return 0 };
        let more = micros.saturating_sub(root.micros);
        root.micros += more;
        more
    }
}

/// What each of the `roots` and its processes have used, by number, and the process ids of all that are there.
fn survey(roots: &[(u64, i32)], mut pids: Vec<i32>, stat: impl Fn(i32) -> Option<Stat>) -> (Vec<(u64, u64)>, Vec<i32>) {
    // Roots first: what ends between the two is missing for once, and not counted twice.
    let mut used: HashMap<i32, (u64, u64)> =
        roots.iter().filter_map(|(number, pid)| Some((*pid, (*number, stat(*pid)?.micros)))).collect();
    let mut live: Vec<i32> = used.keys().copied().collect();
    pids.sort_unstable();
    pids.dedup();
    pids.retain(|pid| !used.contains_key(pid));
    for pid in pids {
        // One that was given the number of a process that is gone has another parent.
        if let Some(stat) = stat(pid)
            && let Some((_, micros)) = used.get_mut(&stat.parent)
        {
            *micros += stat.micros;
            live.push(pid);
        }
    }
    (used.into_values().collect(), live)
}

fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, whatever stands in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    // utime, stime, cutime, cstime.
    let ticks = fields.skip(9).take(4).map(|field| field.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?;
    if ticks.len() < 4 {
        return None;
    }
    let ticks = ticks.into_iter().fold(0, u64::saturating_add);
    Some(Stat { parent, micros: ticks.saturating_mul(1_000_000 / TICKS_PER_SECOND) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000;
    /// The process id of the zygote in these tests.
    const ZYGOTE: i32 = 100;

    /// Looks at what the processes with these ids, parents and used seconds have used; the first has forked the rest.
    fn looks(looks: &[&[(i32, i32, u64)]], pids: &[i32]) -> Vec<u64> {
        let mut roots = Roots::default();
        let number = roots.add(ZYGOTE);
        let look = |there: &&[(i32, i32, u64)]| {
            let stat = |pid| {
                let (_, parent, seconds) = there.iter().find(|(there, ..)| *there == pid)?;
                Some(Stat { parent: *parent, micros: seconds * SECOND })
            };
            let (used, _) = survey(&[(number, ZYGOTE)], pids.to_vec(), stat);
            used.into_iter().map(|(number, micros)| roots.account(number, micros)).sum::<u64>() / SECOND
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn what_live_processes_use_is_counted_as_they_use_it() {
        let first = &[(ZYGOTE, 1, 1), (101, ZYGOTE, 5), (102, ZYGOTE, 0)];
        let second = &[(ZYGOTE, 1, 1), (101, ZYGOTE, 7), (102, ZYGOTE, 1)];
        assert_eq!(looks(&[first, second], &[101, 102]), [6, 3]);
    }

    #[test]
    fn a_process_that_ends_between_two_looks_leaves_nothing_uncounted() {
        // It used 5 seconds in one look, 8 in all; another one came and went with 4, and was never seen.
        let (first, second) = (&[(ZYGOTE, 1, 1), (101, ZYGOTE, 5)], &[(ZYGOTE, 1, 1 + 8 + 4)]);
        assert_eq!(looks(&[first, second], &[101]), [6, 7]);
    }

    #[test]
    fn a_process_that_is_missing_for_once_is_not_counted_twice() {
        // It ended after its zygote was looked at.
        let (first, gone) = (&[(ZYGOTE, 1, 1), (101, ZYGOTE, 5)], &[(ZYGOTE, 1, 1)]);
        assert_eq!(looks(&[first, gone, &[(ZYGOTE, 1, 7)]], &[101]), [6, 0, 1]);
    }

    #[test]
    fn what_got_the_number_of_a_process_that_is_gone_is_not_of_the_pool() {
        let (first, reused) = (&[(ZYGOTE, 1, 1), (101, ZYGOTE, 5)], &[(ZYGOTE, 1, 6), (101, 1, 900)]);
        assert_eq!(looks(&[first, reused], &[101]), [6, 0]);
        // One of the zygote's own, which is known twice until the first one is buried.
        assert_eq!(looks(&[first, &[(ZYGOTE, 1, 6), (101, ZYGOTE, 2)]], &[101, 101]), [6, 2]);
    }

    #[test]
    fn a_look_that_is_late_tells_nothing_of_a_child_that_is_gone() {
        let mut roots = Roots::default();
        let number = roots.add(7);
        roots.known.clear();
        assert_ne!(roots.add(7), number);
        assert_eq!(roots.account(number, 5), 0);
    }

    #[test]
    fn the_kernel_tells() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 4194560 100 0 0 0 150 25 1000 2 20 0 1 0 5000";
        assert_eq!(parse(text), Some(Stat { parent: 3, micros: 11_770_000 }));
        for broken in ["", "7 (a", "7 (a) S", "7 (a) S 3 7 7 0 -1 0 0 0 0 0 150 25 1000", "7 (a) S x 7"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
        assert_eq!(stat(-1), None);
    }

    #[tokio::test]
    async fn a_child_that_has_ended_can_still_be_looked_at() {
        let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        let mut child = tokio::process::Command::new("sh").args(["-c", burn]).spawn().unwrap();
        let pid = child.id().unwrap() as i32;
        tokio::time::timeout(Duration::from_secs(60), ended(pid)).await.expect("it ends").unwrap();
        let last = stat(pid).expect("it was not waited for");
        assert_eq!(last.parent, std::process::id() as i32);
        assert!(last.micros > 0, "{last:?}");
        assert!(child.wait().await.unwrap().success());
        assert_eq!(stat(pid), None);
    }
}
