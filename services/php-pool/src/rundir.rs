//! The directories of one generation of a pool: its run directory, with the runtime's files, the boot configuration and the
//! FIFOs, and its spool.
//!
//! PHP may run as another user than this process, which may be root; and PHP's code is not trusted with more than that user
//! may do. So whatever is done here is done through the directory's descriptor, never by a path that the other could have
//! turned elsewhere meanwhile: files are made anew or not at all, and no link is followed.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Uid};

use crate::owner::Owner;

/// The PHP side, by file name.
const RUNTIME: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/runtime_files.rs"));

/// The ini settings every process starts with; the one place where they stand.
pub(crate) const DEFAULTS_INI: &str = include_str!("../runtime/defaults.ini");

const PREFIX: &str = "troupe-php-";
/// A pool's name is part of a path, and a Unix path is bounded.
const MAX_NAME: usize = 32;
/// Names that are tried for a directory: one could be taken, or be cleared away as a dead process's before it is locked.
const NAMES: usize = 8;

/// A directory that is removed with everything in it when its owner is dropped.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
    /// The user that PHP runs as, if that is another one.
    owner: Option<Owner>,
    /// Locked as long as this process lives: how others know that it does. A process id would not tell them: in containers
    /// all have the same.
    dir: Arc<OwnedFd>,
}

impl RunDir {
    /// Makes the run directory of a pool. PHP reads in it, as `owner` if that is another user; it can change nothing there.
    pub(crate) fn create(pool: &str, tag: &str, owner: Option<Owner>) -> io::Result<Self> {
        let dir = Self::make(&base(owner), pool, tag, owner)?;
        dir.show(dir.dir.as_fd(), Mode::RWXU | Mode::XGRP)?;
        Ok(dir)
    }

    /// Makes a directory below `base` that is PHP's own: it moves files out of it.
    pub(crate) fn create_spool(base: &Path, pool: &str, tag: &str, owner: Option<Owner>) -> io::Result<Self> {
        let dir = Self::make(base, pool, tag, owner)?;
        dir.give(&dir.dir)?;
        Ok(dir)
    }

    fn make(base: &Path, pool: &str, tag: &str, owner: Option<Owner>) -> io::Result<Self> {
        let pool: String = pool.chars().filter(char::is_ascii_alphanumeric).take(MAX_NAME).collect();
        let mut tried = 0;
        loop {
            tried += 1;
            // The process id is for people.
            let (pid, random) = (std::process::id(), fastrand::u64(..));
            let path = base.join(format!("{PREFIX}{pid}-{pool}-{tag}-{random:016x}"));
            match fs::DirBuilder::new().mode(0o700).create(&path).and_then(|()| lock_own(&path)) {
                Ok(dir) => return Ok(Self { path, owner, dir: Arc::new(dir) }),
                Err(error) if tried == NAMES => return Err(error),
                Err(_) => {}
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the runtime's files below `runtime/`.
    pub(crate) fn write_runtime(&self) -> io::Result<()> {
        rustix::fs::mkdirat(&self.dir, "runtime", Mode::RWXU)?;
        self.show(open(&self.dir, "runtime", OFlags::RDONLY | OFlags::DIRECTORY)?.as_fd(), Mode::RWXU | Mode::XGRP)?;
        for (name, content) in RUNTIME {
            self.write(&format!("runtime/{name}"), content)?;
        }
        Ok(())
    }

    /// Writes one file for PHP to read.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = self.new_file(name)?;
        file.write_all(content)?;
        self.show(file.as_fd(), Mode::RUSR | Mode::WUSR | Mode::RGRP)
    }

    /// Makes a file that is PHP's own, for this process to write.
    pub(crate) fn file(&self, name: &str) -> io::Result<fs::File> {
        let file = self.new_file(name)?;
        self.give(&file)?;
        Ok(file)
    }

    fn new_file(&self, name: &str) -> io::Result<fs::File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Removes a file; one that is gone already is no error.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        unlink(&self.dir, name)
    }

    /// Makes a FIFO and opens it for both directions, which never blocks and keeps its ends in existence.
    pub(crate) fn fifo(&self, name: &str) -> io::Result<Fifo> {
        rustix::fs::mknodat(&self.dir, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        if let Some((uid, gid)) = self.owner {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(&self.dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let guard = open(&self.dir, name, OFlags::RDWR)?;
        Ok(Fifo { dir: Arc::clone(&self.dir), name: name.to_owned(), _guard: guard })
    }

    /// Lets PHP's group do with `what` as `mode` says; it stays this process's.
    fn show(&self, what: impl std::os::fd::AsFd, mode: Mode) -> io::Result<()> {
        let Some((_, gid)) = self.owner else { return Ok(()) };
        fchown(&what, None, Some(gid))?;
        Ok(rustix::fs::fchmod(what, mode)?)
    }

    fn give(&self, what: impl std::os::fd::AsFd) -> io::Result<()> {
        match self.owner {
            Some((uid, gid)) => fchown(what, Some(uid), Some(gid)),
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
    dir: Arc<OwnedFd>,
    name: String,
    _guard: OwnedFd,
}

impl Fifo {
    /// A reading end for the event loop.
    pub(crate) fn reader(&self) -> io::Result<OwnedFd> {
        open(&self.dir, &self.name, OFlags::RDONLY)
    }

    /// A writing end for the event loop.
    pub(crate) fn writer(&self) -> io::Result<OwnedFd> {
        open(&self.dir, &self.name, OFlags::WRONLY)
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
        let writer = self.writer()?;
        rustix::fs::fcntl_setfl(&writer, rustix::fs::fcntl_getfl(&writer)? - OFlags::NONBLOCK)?;
        Ok(writer)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        if let Err(error) = unlink(&self.dir, &self.name) {
            tracing::debug!(name = self.name, %error, "cannot remove a FIFO");
        }
    }
}

fn open(dir: &OwnedFd, name: &str, access: OFlags) -> io::Result<OwnedFd> {
    let flags = access | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

/// A name that is gone already is what this is for.
fn unlink(dir: &OwnedFd, name: &str) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// `$XDG_RUNTIME_DIR` is its user's alone, so another user's PHP could not enter it.
fn base(owner: Option<Owner>) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if owner.is_none() && Path::new(&dir).is_dir() => PathBuf::from(dir),
        _ => std::env::temp_dir(),
    }
}

/// Removes the directories that nobody holds any more: after a kill -9 nobody else does.
pub(crate) fn remove_stale(others: &[PathBuf]) {
    let bases = [base(None), std::env::temp_dir()];
    for base in bases.iter().chain(others) {
        let Ok(entries) = fs::read_dir(base) else { continue };
        for entry in entries.flatten() {
            let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
            // Held until it is gone: whoever has just made it and not locked it yet sees that, and makes another.
            let Some(_lock) = ours.then(|| lock(&entry.path()).ok()).flatten() else { continue };
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => tracing::info!(path = %entry.path().display(), "removed what a dead process left"),
                // Another user's: theirs to remove.
                Err(error) => tracing::debug!(path = %entry.path().display(), %error, "left a stale directory"),
            }
        }
    }
}

fn lock(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::open(dir, flags, Mode::empty())?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

/// Locks a directory that was made a moment ago, if it still is what the path names, and this process's.
fn lock_own(path: &Path) -> io::Result<OwnedFd> {
    let dir = lock(path)?;
    let (named, own) = (fs::symlink_metadata(path)?, rustix::fs::fstat(&dir)?);
    if (named.dev(), named.ino()) != (own.st_dev, own.st_ino) || own.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "somebody else has put another directory there"));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_directory_is_private_and_goes_with_its_owner() {
        let dir = RunDir::create("a/../b", "test", None).unwrap();
        let path = dir.path().to_owned();
        dir.write_runtime().unwrap();
        let fifo = dir.fifo("1.in").unwrap();
        assert_eq!(mode(&path), 0o700);
        assert!(path.join("runtime/start.php").exists() && path.join("1.in").exists());
        drop(fifo);
        assert!(!path.join("1.in").exists());
        assert!(lock(&path).is_err(), "it is in use");
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn php_of_another_user_can_change_nothing_in_its_run_directory() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let owner = Some((65_534, 65_534));
        let dir = RunDir::create("pool", "test", owner).unwrap();
        dir.write_runtime().unwrap();
        dir.write("boot.json", b"{}").unwrap();
        let _fifo = dir.fifo("1.in").unwrap();
        let of = |name: &str| {
            let path = dir.path().join(name);
            let found = fs::metadata(&path).unwrap();
            (found.uid(), found.gid(), mode(&path))
        };
        assert_eq!((of(""), of("runtime")), ((0, 65_534, 0o710), (0, 65_534, 0o710)));
        assert_eq!((of("boot.json"), of("runtime/start.php")), ((0, 65_534, 0o640), (0, 65_534, 0o640)));
        assert_eq!(of("1.in"), (65_534, 65_534, 0o600));
    }

    #[test]
    fn no_link_is_followed_and_nothing_written_that_is_there_already() {
        let base = tempfile::tempdir().unwrap();
        let victim = base.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        let dir = RunDir::create_spool(base.path(), "pool", "test", None).unwrap();
        for name in ["boot.json", "1.in"] {
            std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
        }
        assert!(dir.write("boot.json", b"{}").is_err() && dir.file("boot.json").is_err() && dir.fifo("1.in").is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    }

    #[test]
    fn what_somebody_puts_in_the_directorys_place_gets_nothing() {
        let base = tempfile::tempdir().unwrap();
        let dir = RunDir::create_spool(base.path(), "pool", "test", None).unwrap();
        let (aside, elsewhere) = (base.path().join("aside"), base.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        fs::rename(dir.path(), &aside).unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path()).unwrap();
        dir.file("1").unwrap();
        fs::write(elsewhere.join("2"), "").unwrap();
        dir.remove("2").unwrap();
        assert!(aside.join("1").exists() && !elsewhere.join("1").exists() && elsewhere.join("2").exists());
    }

    /// In containers every php-pool has the same process id.
    #[test]
    fn two_of_one_pool_and_process_id_have_directories_of_their_own() {
        let base = tempfile::tempdir().unwrap();
        let one = RunDir::create_spool(base.path(), "pool", "1-spool", None).unwrap();
        one.file("0").unwrap();
        let other = RunDir::create_spool(base.path(), "pool", "1-spool", None).unwrap();
        assert!(other.file("0").is_ok() && one.path().join("0").exists());
        assert_ne!(one.path(), other.path());
    }

    #[test]
    fn only_what_nobody_holds_is_cleared_away_whoever_is_alive() {
        let base = tempfile::tempdir().unwrap();
        let held = RunDir::create_spool(base.path(), "pool", "1", None).unwrap();
        let left = base.path().join(format!("{PREFIX}{}-pool-1", std::process::id()));
        fs::create_dir(&left).unwrap();
        let other = base.path().join("other");
        fs::create_dir(&other).unwrap();
        remove_stale(&[base.path().to_owned()]);
        assert!(held.path().exists() && other.exists() && !left.exists());
    }
}
