//! How much memory this process may use.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the control groups are, since version 2.
const CGROUPS: &str = "/sys/fs/cgroup";
/// What is assumed where nothing says: small enough to be there.
const UNKNOWN: u64 = 512 << 20;

/// Bytes that this process may use: the machine's memory, or what the nearest limit of its control groups leaves of it.
pub(super) fn usable() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text)).unwrap_or(UNKNOWN);
    let group = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| own_group(&text)).unwrap_or_default();
    limit(Path::new(CGROUPS), &group).unwrap_or(u64::MAX).min(machine)
}

/// `MemTotal` in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The path of version 2's group, of which there is one.
fn own_group(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

/// The lowest limit of the group and those that it is in.
fn limit(root: &Path, group: &Path) -> Option<u64> {
    // Inside a container the group's path may be that of the host, and only the root be there.
    group
        .ancestors()
        .filter_map(|group| fs::read_to_string(root.join(group).join("memory.max")).ok()?.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        assert_eq!(limit(root.path(), Path::new("a/b")), None);
        fs::write(inner.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        fs::write(root.path().join("memory.max"), "5000\n").unwrap();
        assert_eq!(limit(root.path(), Path::new("a/b")), Some(1000));
        assert_eq!(limit(root.path(), Path::new("elsewhere")), Some(5000));
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(total("MemTotal:        8000 kB\nMemFree: 1 kB\n"), Some(8_192_000));
        assert_eq!(total("nonsense"), None);
        assert_eq!(own_group("1:cpu:/x\n0::/a/b\n"), Some(PathBuf::from("a/b")));
        assert!(usable() > 0);
    }
}
