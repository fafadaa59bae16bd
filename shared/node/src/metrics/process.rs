//! What the kernel says about this process.

use std::fmt::Write;
use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// A reading of this process's use of memory, descriptors, threads and time.
#[derive(Debug, Clone, Copy, PartialEq)]
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
}

impl ProcessFigures {
    /// Reads them now; `None` where `/proc` is not mounted.
    pub fn read() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Some(Self {
            resident_bytes: field(&status, "VmRSS:")?.saturating_mul(1024),
            threads: field(&status, "Threads:")?,
            descriptors: open_descriptors()?,
            max_descriptors: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            cpu_seconds: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        })
    }

    /// Appends them in Prometheus text.
    pub fn write_prometheus(&self, text: &mut String) {
        let mut put = |name: &str, kind: &str, value: f64| {
            // Writing to a String does not fail.
            let _ = write!(text, "# TYPE {name} {kind}\n{name} {value}\n\n");
        };
        put("troupe_node_resident_bytes", "gauge", self.resident_bytes as f64);
        put("troupe_node_threads", "gauge", self.threads as f64);
        put("troupe_node_open_descriptors", "gauge", self.descriptors as f64);
        put("troupe_node_max_descriptors", "gauge", self.max_descriptors as f64);
        put("troupe_node_cpu_seconds_total", "counter", self.cpu_seconds);
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
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
