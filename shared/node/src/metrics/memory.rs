//! The memory that this process and all that share its bound may take: the cgroup's, else the machine's.

use std::fs;
use std::path::Path;

use super::process::field;

/// A bound above this is none: cgroup v1 writes the largest number of pages there may be.
const NO_LIMIT: u64 = 1 << 60;

/// Memory under a bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// What may be taken, in bytes.
    pub(super) limit: u64,
    /// What is taken, in bytes; what the kernel would give up at once (files that were read) left out.
    pub(super) used: u64,
}

/// What there is now, with the kernel's files below `root`; `None` where they are not mounted.
pub(super) fn read(root: &Path) -> Option<Bound> {
    let v2 = |name| format!("sys/fs/cgroup/{name}");
    let v1 = |name| format!("sys/fs/cgroup/memory/{name}");
    of_cgroup(root, &v2("memory.max"), &v2("memory.current"), (&v2("memory.stat"), "inactive_file "))
        .or_else(|| {
            let (limit, used) = (v1("memory.limit_in_bytes"), v1("memory.usage_in_bytes"));
            of_cgroup(root, &limit, &used, (&v1("memory.stat"), "total_inactive_file "))
        })
        .or_else(|| of_machine(root))
}

fn of_cgroup(root: &Path, limit: &str, used: &str, (stat, reclaimable): (&str, &str)) -> Option<Bound> {
    let number = |path: &str| fs::read_to_string(root.join(path)).ok()?.trim().parse::<u64>().ok();
    let limit = number(limit).filter(|limit| *limit < NO_LIMIT)?;
    let reclaimable = field(&fs::read_to_string(root.join(stat)).unwrap_or_default(), reclaimable).unwrap_or(0);
    Some(Bound { limit, used: number(used)?.saturating_sub(reclaimable) })
}

fn of_machine(root: &Path) -> Option<Bound> {
    let told = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let (all, free) = (field(&told, "MemTotal:")?, field(&told, "MemAvailable:")?);
    Some(Bound { limit: all.saturating_mul(1024), used: all.saturating_sub(free).saturating_mul(1024) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> Option<Bound> {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        read(root.path())
    }

    #[test]
    fn the_cgroups_bound_comes_before_the_machines() {
        let machine = ("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n");
        assert_eq!(with(&[machine]), Some(Bound { limit: 1_024_000, used: 614_400 }));
        let none = [("sys/fs/cgroup/memory.max", "max\n"), ("sys/fs/cgroup/memory.current", "5\n"), machine];
        assert_eq!(with(&none), Some(Bound { limit: 1_024_000, used: 614_400 }));
        let v2 = [
            ("sys/fs/cgroup/memory.max", "9000\n"),
            ("sys/fs/cgroup/memory.current", "5000\n"),
            ("sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 1000\n"),
            machine,
        ];
        assert_eq!(with(&v2), Some(Bound { limit: 9_000, used: 4_000 }));
        let v1 = [
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "7\n"),
            machine,
        ];
        assert_eq!(with(&v1), Some(Bound { limit: 1_024_000, used: 614_400 }));
        assert_eq!(with(&[]), None);
    }
}
