//! How much memory a process takes.

use std::fs;

/// Bytes per page. Linux on x86-64 and most arm64 systems; a larger page would only make the cheap check too low, and the
/// exact one decides.
const PAGE: u64 = 4096;

/// What the process `pid` takes, in bytes: its resident pages while these are below `limit`, which is cheap to ask; its
/// proportional share of them beyond, since pages shared with the zygote would be counted in every process.
pub(crate) fn of(pid: i32, limit: u64) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let resident = pages * PAGE;
    if resident <= limit {
        return Some(resident);
    }
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    proportional(&rollup)
}

fn proportional(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_read_from_the_roll_up() {
        let rollup =
            "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  8 kB\nPss:                5120 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(proportional(rollup), Some(5 << 20));
        assert_eq!(proportional("Pss: many kB"), None);
    }

    #[test]
    fn this_process_takes_something() {
        let pid = std::process::id() as i32;
        assert!(of(pid, u64::MAX).is_some_and(|bytes| bytes > 0));
        assert!(of(pid, 0).is_some_and(|bytes| bytes > 0));
    }
}
