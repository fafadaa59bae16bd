//! How much memory a process takes.

use std::fs;

/// What the process `pid` takes, in bytes: its resident pages while these are below `limit`, which is cheap to ask; its
/// [`share`] of them beyond, since pages shared with the zygote would be counted in every process.
pub(crate) fn of(pid: i32, limit: u64) -> Option<u64> {
    let resident = kibibytes(&status(pid)?, "VmRSS:")?;
    if resident <= limit { Some(resident) } else { share(pid) }
}

/// The share of memory that the process `pid` takes, in bytes: a page that several have counts in parts, and once in all. Where the
/// kernel does not tell that of another user's process (it takes CAP_SYS_PTRACE), the pages that are of no file; those it shares
/// with its zygote then count in each.
pub(crate) fn share(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    if let Some(share) = rollup.ok().and_then(|rollup| kibibytes(&rollup, "Pss:")) {
        return Some(share);
    }
    of_no_file(&status(pid)?)
}

fn of_no_file(status: &str) -> Option<u64> {
    Some(kibibytes(status, "RssAnon:")? + kibibytes(status, "RssShmem:").unwrap_or(0))
}

fn status(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
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
        assert_eq!(kibibytes(rollup, "Pss:"), Some(5 << 20));
        assert_eq!(kibibytes("Pss: many kB", "Pss:"), None);
    }

    #[test]
    fn where_the_roll_up_is_refused_pages_of_no_file_count() {
        let status = "VmRSS:\t  310000 kB\nRssAnon:\t  300000 kB\nRssFile:\t    9000 kB\nRssShmem:\t    1000 kB\n";
        assert_eq!(of_no_file(status), Some(301_000 << 10));
    }

    #[test]
    fn this_process_takes_something() {
        let pid = std::process::id() as i32;
        assert!(of(pid, u64::MAX).is_some_and(|bytes| bytes > 0));
        assert!(of(pid, 0).is_some_and(|bytes| bytes > 0));
        assert!(share(pid).is_some_and(|bytes| bytes > 0));
        assert_eq!(share(-1), None);
    }
}
