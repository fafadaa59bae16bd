//! Looking at processes through `/proc`, and sending them signals.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

/// The pids of all living processes whose ancestor is `pid`, nearest first.
pub fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all().filter_map(|child| Some((child, parent(child)?))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&ancestor) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == ancestor).map(|(child, _)| *child));
        next += 1;
    }
    found.remove(0);
    found
}

/// Whether the process exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// The command line of a process, its words joined by spaces; empty for one that is gone.
pub fn command_line(pid: u32) -> String {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    raw.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

/// Resident memory in bytes; 0 for a process that is gone.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// How many file descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Lets a process have `most` descriptors; gives back how many it might have had before.
///
/// # Panics
/// When the process is gone or the limit is above the hard one.
pub fn limit_descriptors(pid: u32, most: u64) -> u64 {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    // The hard limit is inherited, so it is this process's too.
    let limit = Rlimit { current: Some(most), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(Some(pid), Resource::Nofile, limit).expect("limit the descriptors of a process");
    before.current.unwrap_or(u64::MAX)
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    after_name(pid)?.split_whitespace().nth(1)?.parse().ok()
}

fn state(pid: u32) -> Option<char> {
    after_name(pid)?.trim_start().chars().next()
}

/// The part of `/proc/<pid>/stat` behind the name, which may itself hold spaces and parentheses.
fn after_name(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.to_owned())
}
