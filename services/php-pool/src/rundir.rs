//! The run directory of one generation of a pool: the runtime's files, the boot configuration, the FIFOs.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags};

/// The PHP side, by file name.
const RUNTIME: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/runtime_files.rs"));

/// The ini settings every process starts with; the one place where they stand.
pub(crate) const DEFAULTS_INI: &str = include_str!("../runtime/defaults.ini");

const PREFIX: &str = "troupe-php-";
/// A pool's name is part of a path, and a Unix path is bounded; what tells directories apart is the pid and generation.
const MAX_NAME: usize = 32;

/// A directory that is removed with everything in it when its owner is dropped.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    owner: Option<(u32, u32)>,
    /// Locked as long as this process lives: how others know that it does, whose process ids may be other ones.
    _lock: OwnedFd,
}

impl RunDir {
    /// Makes the directory, mode 0700, for `owner` when PHP runs as another user.
    pub(crate) fn create(pool: &str, tag: &str, owner: Option<(u32, u32)>) -> io::Result<Self> {
        Self::create_below(&base(owner), pool, tag, owner)
    }

    /// As [`RunDir::create`], in a place of the caller's choice.
    pub(crate) fn create_below(base: &Path, pool: &str, tag: &str, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let pool: String = pool.chars().filter(char::is_ascii_alphanumeric).take(MAX_NAME).collect();
        let path = base.join(format!("{PREFIX}{}-{pool}-{tag}", std::process::id()));
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        let lock = lock(&path)?;
        let dir = Self { path, owner, _lock: lock };
        dir.give(&dir.path)?;
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the runtime's files below `runtime/`.
    pub(crate) fn write_runtime(&self) -> io::Result<()> {
        let runtime = self.path.join("runtime");
        fs::DirBuilder::new().mode(0o700).create(&runtime)?;
        self.give(&runtime)?;
        for (name, content) in RUNTIME {
            self.write(&format!("runtime/{name}"), content)?;
        }
        Ok(())
    }

    /// Writes one file for PHP to read.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.path.join(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        self.give(&path)
    }

    /// Makes a FIFO and opens it for both directions, which never blocks and keeps its ends in existence.
    pub(crate) fn fifo(&self, name: &str) -> io::Result<Fifo> {
        let path = self.path.join(name);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        self.give(&path)?;
        let guard = open(&path, OFlags::RDWR)?;
        Ok(Fifo { path, _guard: guard })
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.owner {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the run directory");
        }
    }
}

/// A FIFO whose both ends exist as long as this does. Its name goes with it; what is open stays open.
#[derive(Debug)]
pub(crate) struct Fifo {
    path: PathBuf,
    _guard: OwnedFd,
}

impl Fifo {
    /// A reading end for the event loop.
    pub(crate) fn reader(&self) -> io::Result<OwnedFd> {
        open(&self.path, OFlags::RDONLY)
    }

    /// A writing end for the event loop.
    pub(crate) fn writer(&self) -> io::Result<OwnedFd> {
        open(&self.path, OFlags::WRONLY)
    }

    /// A writing end for the event loop, whose every write of up to [`PACKET`](crate::protocol::PACKET) bytes is read by one read and by no other: frames
    /// stay apart, so that one which nobody has read yet can be taken back whole. Longer writes are so many packets.
    pub(crate) fn packet_writer(&self) -> io::Result<OwnedFd> {
        let writer = self.writer()?;
        rustix::fs::fcntl_setfl(&writer, rustix::fs::fcntl_getfl(&writer)? | OFlags::DIRECT)?;
        Ok(writer)
    }

    /// A writing end that blocks, for a program's standard output.
    pub(crate) fn blocking_writer(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.path, flags, Mode::empty())?)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        // A name that is gone already is what this is for.
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}

/// `$XDG_RUNTIME_DIR` is its user's alone, so another user's PHP could not enter it.
fn base(owner: Option<(u32, u32)>) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if owner.is_none() && Path::new(&dir).is_dir() => PathBuf::from(dir),
        _ => std::env::temp_dir(),
    }
}

/// Removes the directories of processes that are gone: after a kill -9 nobody else does.
pub(crate) fn remove_stale(others: &[PathBuf]) {
    let bases = [base(None), std::env::temp_dir()];
    for base in bases.iter().chain(others) {
        let Ok(entries) = fs::read_dir(base) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(owner_pid) else { continue };
            let alive = rustix::process::Pid::from_raw(pid)
                .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
            if alive || lock(&entry.path()).is_err() {
                continue;
            }
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => tracing::info!(path = %entry.path().display(), "removed what a dead process left"),
                // Another user's: theirs to remove.
                Err(error) => tracing::debug!(path = %entry.path().display(), %error, "left a stale directory"),
            }
        }
    }
}

fn lock(dir: &Path) -> io::Result<OwnedFd> {
    let lock = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

fn owner_pid(name: &str) -> Option<i32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_dead_processes_are_told_by_their_name() {
        assert_eq!(owner_pid("troupe-php-123-default-1"), Some(123));
        assert_eq!(owner_pid("troupe-php-x-default-1"), None);
        assert_eq!(owner_pid("other-123"), None);
    }

    #[test]
    fn the_directory_is_private_and_goes_with_its_owner() {
        let dir = RunDir::create("a/../b", "test", None).unwrap();
        let path = dir.path().to_owned();
        dir.write_runtime().unwrap();
        let fifo = dir.fifo("1.in").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(path.join("runtime/start.php").exists() && path.join("1.in").exists());
        drop(fifo);
        assert!(!path.join("1.in").exists());
        assert!(lock(&path).is_err(), "it is in use");
        drop(dir);
        assert!(!path.exists());
    }
}
