//! The embedded store's copy on disk: what it holds, and what was purged from it, survives the process.
//!
//! Look-ups are answered from memory alone. A thread of its own writes behind them, several at a time, and the file is read once, at
//! the start. A purge is confirmed when its mark is on the disk; what was stored shortly before a crash may be missing then, and
//! an answer that was replaced may be there in the version before. What was purged never is.
//!
//! | module | subject |
//! |---|---|
//! | `file` | the file: what stands in it, and how it is read and written |
//! | `marks` | what purges leave in it |
//! | `writer` | the thread |

mod file;
mod marks;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics::{Counter, counter};
use tokio::sync::{mpsc, oneshot};
use troupe_contracts::cache::purge::Target;
use troupe_contracts::cache::{LeaseName, Url};

use crate::entry::Entry;
use crate::key::Key;
use crate::time::Moment;
use file::File;
pub use file::OpenError;
use writer::Writer;

/// Changes that wait for the disk at once. Answers beyond them are not written; purges wait for room.
const QUEUE: usize = 1024;
/// Bytes of answers that wait for the disk at once.
const QUEUED_BYTES: usize = 64 << 20;
/// How long the end of the process waits for what is queued.
const SETTLING: Duration = Duration::from_secs(5);

/// Where the copy is, and how much of it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Bytes of answers.
    pub(super) limit: u64,
    /// For how long an answer is kept.
    pub(super) max_ttl: Duration,
}

/// A way to the copy.
#[derive(Debug)]
pub(super) struct Disk {
    changes: mpsc::Sender<Change>,
    queued: Arc<AtomicUsize>,
    limit: u64,
    skipped: Counter,
}

/// A change of what is stored.
#[derive(Debug)]
enum Change {
    Put(Box<Put>),
    /// The answer of this name is not what was stored last.
    Forget(LeaseName),
    /// What was fetched before the memory's purge of this number, and is about this, is gone.
    Purge(Target, u64, Done),
    /// Nothing; whoever asks wants to know that all before it is written.
    Settle(Done),
}

/// Told whether what was waited for is on the disk.
type Done = oneshot::Sender<bool>;

/// An answer to write.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) name: LeaseName,
    pub(super) url: Url,
    /// The number of the memory's last purge before it was fetched.
    pub(super) born: u64,
    /// When it came, and how old it was then, in milliseconds.
    pub(super) stored: Moment,
    pub(super) age_ms: u64,
    /// For how long from then on it is of use, in milliseconds.
    pub(super) keep_ms: u64,
    pub(super) record: Bytes,
    pub(super) body: Bytes,
}

impl Put {
    fn bytes(&self) -> usize {
        self.record.len() + self.body.len()
    }
}

impl Disk {
    /// Opens the copy at `place` or makes it, gives what it holds to `restore`, the oldest first, and begins to write. What is no copy of
    /// a store, or is damaged, is moved aside. Reads all of it, and returns when that is done.
    ///
    /// # Errors
    /// When another process has it open, or it cannot be read or made.
    pub(super) fn open(place: Place, now: Moment, restore: impl FnMut(&Key, Entry) + Send) -> Result<Self, OpenError> {
        let file = File::open_or_replace(&place, now, restore)?;
        let (changes, queue) = mpsc::channel(QUEUE);
        let (queued, limit) = (Arc::<AtomicUsize>::default(), place.limit);
        let path = place.path.clone();
        let writer = Writer::new(place, file, Arc::clone(&queued));
        writer.spawn(queue).map_err(|error| OpenError::io(&path, &error))?;
        Ok(Self { changes, queued, limit, skipped: counter!("troupe_cache_disk_writes_total", "result" => "skipped") })
    }

    /// Has an answer written, behind whatever else goes on. False where it is not, because too much is waiting already.
    pub(super) fn put(&self, put: Put) -> bool {
        let bytes = put.bytes();
        let queues = bytes as u64 <= self.limit && {
            let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
            let fits = before.saturating_add(bytes) <= QUEUED_BYTES
                && self.changes.try_send(Change::Put(Box::new(put))).is_ok();
            if !fits {
                self.queued.fetch_sub(bytes, Ordering::Relaxed);
            }
            fits
        };
        if !queues {
            self.skipped.increment(1);
        }
        queues
    }

    /// Takes an answer out that was replaced by one that is not written.
    pub(super) async fn forget(&self, name: LeaseName) {
        let _ = self.changes.send(Change::Forget(name)).await;
    }

    /// Marks what `target` is about and was fetched before purge `number` of the memory as gone. Whether that is on the disk.
    pub(super) async fn purge(&self, target: &Target, number: u64) -> bool {
        let (done, is_done) = oneshot::channel();
        let sent = self.changes.send(Change::Purge(target.clone(), number, done)).await;
        sent.is_ok() && is_done.await.unwrap_or(false)
    }

    /// Waits until what was stored so far is written, for a while.
    pub(super) async fn settle(&self) {
        let (done, is_done) = oneshot::channel();
        let settled = async { self.changes.send(Change::Settle(done)).await.is_ok() && is_done.await.unwrap_or(false) };
        if !tokio::time::timeout(SETTLING, settled).await.unwrap_or(false) {
            tracing::warn!("what was stored last is not on the disk");
        }
    }
}

/// Where a file goes that is no copy of a store. Only the last one is kept.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".aside");
    name.into()
}

#[cfg(test)]
mod tests;
