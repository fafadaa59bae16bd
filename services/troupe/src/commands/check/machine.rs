//! Does the machine let Troupe do what the configuration asks for? What it is, what it should be, and the command that sets it.
//!
//! Nothing here fails the check: Troupe serves all the same, but less well than it could.

use std::fs;
use std::path::{Path, PathBuf};

use troupe_node::limits::{LISTEN_BACKLOG, RESERVED_DESCRIPTORS};

use super::Finding;
use crate::config::Config;
use crate::services::{Service, Services};

/// Connections whose handshake may be under way at once: what small machines have by default is less.
const HANDSHAKES: u32 = 1_024;
/// Ports that connections to workers, Redis and upstreams may need at once, those in TIME_WAIT included.
const PORTS: u32 = 20_000;
/// Memory of everything but PHP: threads, buffers, links.
const OWN_MEMORY: u64 = 256 << 20;
/// Processes and threads of everything but PHP's processes.
const OWN_TASKS: u64 = 128;
/// A limit of memory above this is none: cgroup v1 writes the largest number of pages there may be.
const NO_LIMIT: u64 = 1 << 60;

pub(super) fn check(config: &Config, services: Services) -> Vec<Finding> {
    look(Path::new("/"), config, services)
}

/// As [`check`], with the kernel's files below `root`.
fn look(root: &Path, config: &Config, services: Services) -> Vec<Finding> {
    let machine = Machine { root };
    let gateway = services.contains(Service::Gateway);
    let php = services.contains(Service::PhpPool);
    let mut findings = Vec::new();
    findings.extend(machine.backlog());
    findings.extend(machine.handshakes());
    findings.extend(machine.descriptors(gateway.then_some(u64::from(config.gateway.max_connections))));
    findings.extend(machine.ports());
    findings.extend(machine.huge_pages());
    if php {
        let most: u64 = config.php.values().map(|pool| u64::from(pool.processes.max)).sum();
        let each = config.php.values().map(|pool| pool.memory_limit.bytes() * u64::from(pool.processes.max));
        findings.extend(machine.memory(OWN_MEMORY + each.sum::<u64>()));
        findings.extend(machine.tasks(OWN_TASKS + most));
    }
    findings.extend(machine.cpu());
    findings
}

struct Machine<'a> {
    root: &'a Path,
}

impl Machine<'_> {
    fn read(&self, path: &str) -> Option<String> {
        Some(fs::read_to_string(self.root.join(path)).ok()?.trim().to_owned())
    }

    fn backlog(&self) -> Option<Finding> {
        let is: u32 = self.read("proc/sys/net/core/somaxconn")?.parse().ok()?;
        Some(Finding::compared(
            "somaxconn",
            (is >= LISTEN_BACKLOG, is.to_string(), format!("{LISTEN_BACKLOG} or more")),
            "connections of a burst beyond it are dropped, and tried again by clients after a second",
            format!("sysctl -w net.core.somaxconn={LISTEN_BACKLOG}"),
        ))
    }

    fn handshakes(&self) -> Option<Finding> {
        let is: u32 = self.read("proc/sys/net/ipv4/tcp_max_syn_backlog")?.parse().ok()?;
        Some(Finding::compared(
            "syn backlog",
            (is >= HANDSHAKES, is.to_string(), format!("{HANDSHAKES} or more")),
            "handshakes of a burst beyond it are answered with cookies, or not at all",
            format!("sysctl -w net.ipv4.tcp_max_syn_backlog={HANDSHAKES}"),
        ))
    }

    fn descriptors(&self, connections: Option<u64>) -> Option<Finding> {
        let limits = self.read("proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
        let hard = line.split_whitespace().nth(1)?;
        let is = if hard == "unlimited" { u64::MAX } else { hard.parse().ok()? };
        let needed = connections.unwrap_or(0).saturating_add(RESERVED_DESCRIPTORS);
        let why = match connections {
            Some(_) => "gateway.max_connections does not fit: connections beyond the limit wait unanswered",
            None => "links, pipes and files do not fit",
        };
        Some(Finding::compared(
            "descriptors",
            (is >= needed, hard.to_owned(), format!("{needed} or more")),
            why,
            format!(
                "ulimit -Hn {needed} (LimitNOFILE={needed} for systemd, ulimits: in compose), or lower gateway.max_connections"
            ),
        ))
    }

    fn ports(&self) -> Option<Finding> {
        let range = self.read("proc/sys/net/ipv4/ip_local_port_range")?;
        let mut bounds = range.split_whitespace().map(str::parse::<u32>);
        let (first, last) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
        let is = last.saturating_sub(first) + 1;
        Some(Finding::compared(
            "port range",
            (is >= PORTS, format!("{first} to {last}, {is} ports"), format!("{PORTS} ports or more")),
            "connections to upstreams and links run out of ports under load",
            "sysctl -w net.ipv4.ip_local_port_range='20000 60999'".to_owned(),
        ))
    }

    fn huge_pages(&self) -> Option<Finding> {
        let modes = self.read("sys/kernel/mm/transparent_hugepage/enabled")?;
        let is = modes.split(['[', ']']).nth(1)?;
        Some(Finding::compared(
            "huge pages",
            (is != "always", is.to_owned(), "madvise or never".to_owned()),
            "a forked PHP process copies 2 MiB where it writes one byte, and processes at rest take several times the memory",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled".to_owned(),
        ))
    }

    /// `needed`: what all PHP processes may take together, and the rest.
    fn memory(&self, needed: u64) -> Option<Finding> {
        let limit = self.limit("memory", "memory.max", "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT);
        let total = self.read("proc/meminfo").and_then(|info| {
            let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.to_owned();
            Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
        });
        let (is, whose) = match (limit, total) {
            (Some(limit), Some(total)) if limit < total => (limit, "this cgroup may have"),
            (Some(limit), None) => (limit, "this cgroup may have"),
            (_, total) => (total?, "the machine has"),
        };
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        Some(Finding::compared(
            "memory",
            (is >= needed, format!("{} MiB, which {whose}", mib(is)), format!("{} MiB or more", mib(needed))),
            "if every PHP process took its memory_limit, the kernel would end some",
            format!(
                "more memory (--memory={0}m, MemoryMax={0}M), or lower php.<pool>.processes.max or memory_limit",
                mib(needed)
            ),
        ))
    }

    fn tasks(&self, needed: u64) -> Option<Finding> {
        let is = self.limit("pids", "pids.max", "pids.max")?;
        Some(Finding::compared(
            "tasks",
            (is >= needed, is.to_string(), format!("{needed} or more")),
            "PHP processes cannot be forked beyond it",
            format!("--pids-limit={needed} (TasksMax={needed} for systemd)"),
        ))
    }

    fn cpu(&self) -> Option<Finding> {
        let quota = match self.group_file("cpu", "cpu.max") {
            Some(max) => {
                let mut parts = max.split_whitespace().map(str::to_owned);
                (parts.next()?.parse::<f64>().ok()?, parts.next()?.parse::<f64>().ok()?)
            }
            None => {
                let part = |name| self.group_file("cpu", name)?.parse::<f64>().ok();
                (part("cpu.cfs_quota_us")?, part("cpu.cfs_period_us")?)
            }
        };
        let (quota, period) = quota;
        if quota <= 0.0 || period <= 0.0 {
            return None;
        }
        let is = quota / period;
        Some(Finding::compared(
            "cpu",
            (is >= 1.0, format!("{is:.2} cores, which this cgroup may have"), "1 core or more".to_owned()),
            "the kernel stops everything for the rest of each period once it is spent: a p99 of tens of milliseconds",
            "--cpus=1 or more (CPUQuota=100% or more for systemd)".to_owned(),
        ))
    }

    /// A number of this process's cgroup; none where there is no limit.
    fn limit(&self, controller: &str, v2: &str, v1: &str) -> Option<u64> {
        let text = self.group_file(controller, v2).or_else(|| self.group_file(controller, v1))?;
        text.parse().ok()
    }

    /// A file of this process's cgroup, in either version's hierarchy, at the nearest level that has it.
    fn group_file(&self, controller: &str, name: &str) -> Option<String> {
        let groups = self.read("proc/self/cgroup")?;
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/'));
            let mount = match controllers {
                "" => PathBuf::from("sys/fs/cgroup"),
                named if named.split(',').any(|one| one == controller) => Path::new("sys/fs/cgroup").join(named),
                _ => return None,
            };
            // Inside a container the group's own path may not be there: its root is.
            Path::new(group).ancestors().find_map(|level| self.read(mount.join(level).join(name).to_str()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn outcome(findings: &[Finding], name: &str) -> Option<(Outcome, String)> {
        let finding = findings.iter().find(|finding| finding.check == name)?;
        Some((finding.outcome, finding.said.clone()))
    }

    const GOOD: [(&str, &str); 8] = [
        ("proc/sys/net/core/somaxconn", "4096\n"),
        ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
        (
            "proc/self/limits",
            "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 1048576              files\n",
        ),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ("proc/meminfo", "MemTotal:       32768000 kB\nMemFree: 1 kB\n"),
        ("proc/self/cgroup", "0::/system.slice/troupe.service\n"),
        ("sys/fs/cgroup/system.slice/troupe.service/memory.max", "max\n"),
    ];

    #[test]
    fn a_machine_that_is_well_set_up_has_nothing_to_mend() {
        let root = machine(&GOOD);
        let findings = look(root.path(), &Config::default(), Services::ALL);
        assert!(findings.len() >= 5 && findings.iter().all(|finding| finding.outcome == Outcome::Ok), "{findings:?}");
        assert_eq!(
            look(machine(&[]).path(), &Config::default(), Services::ALL).len(),
            0,
            "what cannot be read is not judged"
        );
    }

    #[test]
    fn each_shortage_is_told_with_what_should_be_and_the_command() {
        let root = machine(&GOOD);
        for (path, text) in [
            ("proc/sys/net/core/somaxconn", "128"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "128"),
            ("proc/self/limits", "Max open files            1024                 4096              files"),
            ("proc/sys/net/ipv4/ip_local_port_range", "60000 60999"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never"),
            ("sys/fs/cgroup/system.slice/troupe.service/memory.max", "536870912"),
            ("sys/fs/cgroup/system.slice/troupe.service/pids.max", "64"),
            ("sys/fs/cgroup/system.slice/troupe.service/cpu.max", "50000 100000"),
        ] {
            fs::write(root.path().join(path), text).unwrap();
        }
        let findings = look(root.path(), &Config::default(), Services::ALL);
        for (name, is, command) in [
            ("somaxconn", "128", "sysctl -w net.core.somaxconn=4096"),
            ("syn backlog", "128", "sysctl -w net.ipv4.tcp_max_syn_backlog=1024"),
            ("descriptors", "4096", "ulimit -Hn 100512"),
            ("port range", "1000 ports", "sysctl -w net.ipv4.ip_local_port_range"),
            ("huge pages", "always", "echo madvise"),
            ("memory", "512 MiB, which this cgroup may have", "--memory=2304m"),
            ("tasks", "64", "--pids-limit=144"),
            ("cpu", "0.50 cores", "--cpus=1"),
        ] {
            let finding = findings.iter().find(|finding| finding.check == name).unwrap();
            assert_eq!(finding.outcome, Outcome::Warn, "{finding:?}");
            assert!(finding.is.as_ref().unwrap().contains(is), "{finding:?}");
            assert!(finding.command.as_ref().unwrap().contains(command), "{finding:?}");
            assert!(finding.code.is_none() && finding.should_be.is_some());
        }
    }

    #[test]
    fn the_first_version_of_cgroups_is_read_too_and_a_container_sees_its_own_root() {
        let root = machine(&[
            ("proc/meminfo", "MemTotal:       32768000 kB"),
            ("proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000"),
        ]);
        let findings = look(root.path(), &Config::default(), Services::ALL);
        assert!(outcome(&findings, "memory").unwrap().1.contains("1024 MiB"));
        assert_eq!(outcome(&findings, "cpu"), None, "there is no quota");
    }
}
