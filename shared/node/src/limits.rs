//! What the kernel lets this process hold: descriptors and waiting connections.

use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors a process needs beside its client connections: links, PHP pipes, files, event loops, logs.
pub const RESERVED_DESCRIPTORS: u64 = 512;

/// The `listen` backlog our listeners ask for; the kernel silently cuts it to `net.core.somaxconn`.
pub const LISTEN_BACKLOG: u32 = 4096;

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";

/// The limit on open descriptors, before and after it was raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// The soft limit the process was started with.
    pub before: u64,
    /// The soft limit now; `u64::MAX` means none.
    pub now: u64,
}

/// Raises the soft limit on open descriptors to the hard one. Shells and systemd start services with 1,024.
///
/// PHP processes inherit the raised limit.
///
/// # Errors
///
/// When the kernel refuses; the old limit stays in force.
pub fn raise_descriptors() -> io::Result<Descriptors> {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    let now = limit.maximum.unwrap_or(u64::MAX);
    if before >= now {
        return Ok(Descriptors { before, now: before });
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(Descriptors { before, now })
}

/// Something the kernel will not hold that the configuration asks for. Its text is the warning.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// `max_connections` does not fit the descriptor limit.
    #[error(
        "max_connections is {max_connections}, but this process may open {limit} descriptors: from about {held} \
         connections on, new ones wait unanswered; raise the hard limit (ulimit -Hn, LimitNOFILE=, ulimits: in compose) to \
         {needed} or lower max_connections"
    )]
    Descriptors {
        /// What the configuration asks for.
        max_connections: u64,
        /// The limit in force.
        limit: u64,
        /// Connections that fit.
        held: u64,
        /// The limit that would do.
        needed: u64,
    },
    /// The kernel cuts the listen backlog.
    #[error(
        "the kernel queues only {allowed} connections that wait to be accepted, {asked} are asked for: a burst beyond \
         that is dropped and retried by clients after a second; set net.core.somaxconn to {asked}"
    )]
    Backlog {
        /// `net.core.somaxconn`.
        allowed: u32,
        /// What our listeners ask for.
        asked: u32,
    },
}

/// Whether `max_connections` client connections fit under `limit` descriptors beside what else a process holds.
pub fn check_connections(max_connections: u64, limit: u64) -> Option<Shortage> {
    let needed = max_connections.saturating_add(RESERVED_DESCRIPTORS);
    (needed > limit).then(|| Shortage::Descriptors {
        max_connections,
        limit,
        held: limit.saturating_sub(RESERVED_DESCRIPTORS),
        needed,
    })
}

/// Whether the kernel's cap on a listen backlog lets `asked` connections wait. Says nothing when the cap cannot be read.
pub fn check_backlog(asked: u32) -> Option<Shortage> {
    check_backlog_at(Path::new(SOMAXCONN), asked)
}

fn check_backlog_at(path: &Path, asked: u32) -> Option<Shortage> {
    let allowed: u32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (allowed < asked).then_some(Shortage::Backlog { allowed, asked })
}

/// Raises the descriptor limit; logs and gives every shortage. `max_connections` is `None` for a service without HTTP
/// clients.
pub fn prepare(max_connections: Option<u64>) -> Vec<Shortage> {
    let limit = match raise_descriptors() {
        Ok(descriptors) => {
            tracing::debug!(before = descriptors.before, now = descriptors.now, "descriptor limit");
            descriptors.now
        }
        Err(error) => {
            tracing::warn!(%error, "cannot raise the soft limit on open descriptors to the hard one");
            getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
        }
    };
    let connections = max_connections.and_then(|wanted| check_connections(wanted, limit));
    let shortages: Vec<Shortage> = connections.into_iter().chain(check_backlog(LISTEN_BACKLOG)).collect();
    for shortage in &shortages {
        tracing::warn!("{shortage}");
    }
    shortages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_ends_at_the_hard_one() {
        let raised = raise_descriptors().expect("raising to the hard limit needs no right");
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(raised.now, limit.current.unwrap_or(u64::MAX));
    }

    #[test]
    fn connections_must_leave_room_for_the_rest() {
        assert_eq!(check_connections(100_000, 1_048_576), None);
        assert_eq!(check_connections(u64::MAX, u64::MAX), None);
        let shortage = check_connections(100_000, 1_024).expect("too few");
        assert!(shortage.to_string().contains("about 512"), "{shortage}");
        assert!(shortage.to_string().contains("100512"), "{shortage}");
    }

    #[test]
    fn a_short_backlog_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("somaxconn");
        std::fs::write(&path, "128\n").expect("written");
        assert_eq!(check_backlog_at(&path, 4096), Some(Shortage::Backlog { allowed: 128, asked: 4096 }));
        assert_eq!(check_backlog_at(&path, 128), None);
        assert_eq!(check_backlog_at(&dir.path().join("none"), 4096), None);
    }
}
