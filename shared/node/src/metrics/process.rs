//! What the kernel says about this process.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::describe::Kind;
use super::memory;

/// A reading of this process's use of memory, descriptors, threads, time and disk.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessFigures {
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// The limit on them.
    pub max_descriptors: u64,
    /// Processor time used since the start, by all threads, in seconds.
    pub cpu_seconds: f64,
    /// Bytes that were read from disks since the start; 0 where the kernel does not say.
    pub disk_read_bytes: u64,
    /// Bytes that were written to disks since the start; 0 where the kernel does not say.
    pub disk_written_bytes: u64,
    /// Memory that the process and all that share its bound (the cgroup's, else the machine's) may take, in bytes; 0 where
    /// the kernel does not say.
    pub memory_limit_bytes: u64,
    /// Memory that they take, in bytes.
    pub memory_used_bytes: u64,
}

/// One of the process's families.
#[derive(Debug, Clone, Copy)]
pub struct ProcessFamily {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What it tells.
    pub meaning: &'static str,
}

/// The families of the process's figures, sorted by name, in the order of [`ProcessFigures::families`].
pub const PROCESS_FAMILIES: [ProcessFamily; 9] = [
    ProcessFamily {
        name: "troupe_node_cpu_seconds_total",
        kind: Kind::Counter,
        meaning: "Processor time that the process has used, by all its threads; that of PHP is in `troupe_php_cpu_seconds_total`.",
    },
    ProcessFamily {
        name: "troupe_node_disk_read_bytes_total",
        kind: Kind::Counter,
        meaning: "Bytes that the process has read from disks.",
    },
    ProcessFamily {
        name: "troupe_node_disk_written_bytes_total",
        kind: Kind::Counter,
        meaning: "Bytes that the process has written to disks.",
    },
    ProcessFamily {
        name: "troupe_node_max_descriptors",
        kind: Kind::Gauge,
        meaning: "Descriptors that the process may have open.",
    },
    ProcessFamily {
        name: "troupe_node_memory_limit_bytes",
        kind: Kind::Gauge,
        meaning: "Memory that the process and all that share its bound may take: the cgroup's, else the machine's.",
    },
    ProcessFamily {
        name: "troupe_node_memory_used_bytes",
        kind: Kind::Gauge,
        meaning: "Memory that the process and all that share its bound take, PHP included; files that were read left out.",
    },
    ProcessFamily {
        name: "troupe_node_open_descriptors",
        kind: Kind::Gauge,
        meaning: "Descriptors that the process has open.",
    },
    ProcessFamily {
        name: "troupe_node_resident_bytes",
        kind: Kind::Gauge,
        meaning: "Memory of the process that is in RAM, what it shares with others included; that of PHP is in `troupe_php_resident_bytes`.",
    },
    ProcessFamily { name: "troupe_node_threads", kind: Kind::Gauge, meaning: "Threads of the process." },
];

impl ProcessFigures {
    /// Reads them now; `None` where `/proc` is not mounted.
    pub fn read() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        // Kernels without I/O accounting have no such file.
        let disk = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let memory = memory::read(Path::new("/")).unwrap_or_default();
        Some(Self {
            resident_bytes: field(&status, "VmRSS:")?.saturating_mul(1024),
            threads: field(&status, "Threads:")?,
            descriptors: open_descriptors()?,
            max_descriptors: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
            disk_read_bytes: field(&disk, "read_bytes:").unwrap_or(0),
            disk_written_bytes: field(&disk, "write_bytes:").unwrap_or(0),
            memory_limit_bytes: memory.limit,
            memory_used_bytes: memory.used,
        })
    }

    /// Each figure under its family's name.
    pub fn families(&self) -> [(&'static str, f64); 9] {
        let values = [
            self.cpu_seconds,
            self.disk_read_bytes as f64,
            self.disk_written_bytes as f64,
            self.max_descriptors as f64,
            self.memory_limit_bytes as f64,
            self.memory_used_bytes as f64,
            self.descriptors as f64,
            self.resident_bytes as f64,
            self.threads as f64,
        ];
        std::array::from_fn(|place| (PROCESS_FAMILIES[place].name, values[place]))
    }
}

/// The number behind `name` at the beginning of a line.
pub(super) fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_descriptors() -> Option<u64> {
    // Since Linux 6.2 the directory's size is the count; counting 100,000 entries takes tens of milliseconds.
    let size = fs::metadata("/proc/self/fd").ok()?.len();
    if size > 0 {
        return Some(size);
    }
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory that is being read holds one itself.
    u64::try_from(entries.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_follow_the_process() {
        let before = ProcessFigures::read().expect("linux");
        assert!(before.resident_bytes > 100_000 && before.threads >= 1, "{before:?}");
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").expect("opens")).collect();
        let after = ProcessFigures::read().expect("linux");
        assert!(after.descriptors >= 50, "{after:?}");
        assert!(after.cpu_seconds >= before.cpu_seconds);
        drop(files);
    }

    #[test]
    fn a_strange_status_is_no_figure() {
        assert_eq!(field("VmRSS:\t  12 kB\nThreads:\t3\n", "Threads:"), Some(3));
        assert_eq!(field("VmRSS:\tmany\n", "VmRSS:"), None);
        assert_eq!(field("", "VmRSS:"), None);
    }
}
