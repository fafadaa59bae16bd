//! The thread that writes behind the store. Changes are gathered for a moment and written together; who waits for one ends the
//! moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout_at;

use super::super::meters::evicted;
use super::file::File;
use super::{Change, Place};
use crate::time::Moment;

/// How long changes are gathered that nobody waits for.
const GATHERING: Duration = Duration::from_millis(200);
/// Changes that are written together.
const BATCH: usize = 1024;
/// How often it is tried again to make a file, after that has failed.
const AGAIN: Duration = Duration::from_secs(10);

/// What writes.
pub(super) struct Writer {
    place: Place,
    /// None while there is none: it could not be written, and is gone.
    file: Option<File>,
    /// When it was last tried to make one, and whether nothing of the one before is left.
    tried: (Instant, bool),
    /// Bytes of the answers that wait.
    queued: Arc<AtomicUsize>,
    meters: Meters,
}

struct Meters {
    written: Counter,
    failed: Counter,
    evicted: Counter,
    bytes: Gauge,
}

impl Change {
    fn is_waited_for(&self) -> bool {
        matches!(self, Self::Purge(..) | Self::Settle(_))
    }

    fn bytes(&self) -> usize {
        if let Self::Put(put) = self { put.bytes() } else { 0 }
    }
}

impl Writer {
    pub(super) fn new(place: Place, file: File, queued: Arc<AtomicUsize>) -> Self {
        let writes = |result| counter!("troupe_cache_disk_writes_total", "result" => result);
        let bytes = gauge!("troupe_cache_disk_bytes");
        let meters = Meters { written: writes("written"), failed: writes("error"), evicted: evicted("disk"), bytes };
        meters.bytes.set(file.bytes() as f64);
        Self { place, file: Some(file), tried: (Instant::now(), true), queued, meters }
    }

    /// Begins; it ends when nobody can send changes any more.
    pub(super) fn spawn(self, changes: Receiver<Change>) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let run = move || runtime.block_on(self.run(changes));
        std::thread::Builder::new().name("cache-disk".to_owned()).spawn(run)?;
        Ok(())
    }

    async fn run(mut self, mut changes: Receiver<Change>) {
        while let Some(first) = changes.recv().await {
            let until = tokio::time::Instant::now() + GATHERING;
            let mut batch = vec![first];
            while batch.len() < BATCH && !batch.last().is_some_and(Change::is_waited_for) {
                match timeout_at(until, changes.recv()).await {
                    Ok(Some(change)) => batch.push(change),
                    Ok(None) | Err(_) => break,
                }
            }
            // What came meanwhile is written along: a thousand purges a second need no thousand writes.
            while batch.len() < BATCH
                && let Ok(change) = changes.try_recv()
            {
                batch.push(change);
            }
            let written = self.write(&batch);
            self.queued.fetch_sub(batch.iter().map(Change::bytes).sum(), Ordering::Relaxed);
            for change in batch {
                if let Change::Purge(_, _, done) | Change::Settle(done) = change {
                    let _ = done.send(written);
                }
            }
        }
    }

    /// Whether what the changes say is true of the disk from now on: they are written, or nothing is there.
    fn write(&mut self, batch: &[Change]) -> bool {
        if self.file.is_none() {
            self.begin_anew();
        }
        let Some(file) = &mut self.file else { return self.tried.1 };
        let puts = batch.iter().filter(|change| matches!(change, Change::Put(_))).count() as u64;
        match file.write(batch, now()) {
            Ok(gone) => {
                self.meters.evicted.increment(gone);
                self.meters.written.increment(puts);
                self.meters.bytes.set(file.bytes() as f64);
                if file.is_swollen() {
                    tracing::warn!(file = %self.place.path.display(), "the cache's file has become far too long; it is begun anew");
                    return self.give_up();
                }
                true
            }
            Err(error) => {
                tracing::error!(
                    file = %self.place.path.display(), %error,
                    "the cache's file cannot be written; it is removed, so that nothing comes back that was purged"
                );
                self.meters.failed.increment(puts);
                self.give_up()
            }
        }
    }

    /// Removes the file, and makes another. Whether nothing of it is left.
    fn give_up(&mut self) -> bool {
        self.file = None;
        self.tried = (Instant::now().checked_sub(AGAIN).unwrap_or_else(Instant::now), false);
        self.meters.bytes.set(0.0);
        self.begin_anew();
        self.tried.1
    }

    fn begin_anew(&mut self) {
        let (last, gone) = self.tried;
        if last.elapsed() < AGAIN {
            return;
        }
        let gone = gone
            || match std::fs::remove_file(&self.place.path) {
                Ok(()) => true,
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            };
        self.tried = (Instant::now(), gone);
        if !gone {
            tracing::error!(file = %self.place.path.display(), "the cache's file cannot be removed; no purge is confirmed until it can");
            return;
        }
        match File::open_or_replace(&self.place, now(), |_, _| {}) {
            Ok(file) => self.file = Some(file),
            Err(error) => tracing::error!(%error, "nothing that is stored from now on survives a restart"),
        }
    }
}

fn now() -> Moment {
    Moment::from(SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{of, place, purge, put, targets};
    use super::*;
    use troupe_contracts::cache::purge::Target;

    fn writer(place: &Place) -> Writer {
        let file = File::open_or_replace(place, now(), |_, _| {}).unwrap();
        Writer::new(place.clone(), file, Arc::default())
    }

    /// What a disk that fails leaves is not known, so nothing of it is left.
    #[test]
    fn a_file_that_cannot_be_written_is_removed_and_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder, 1 << 20);
        let mut writer = writer(&place);
        let stored = || super::super::Put { stored: now(), ..put("/a", 0, b"a") };
        assert!(writer.write(&[of(stored())]));
        assert!(writer.give_up());
        assert!(writer.write(&[of(super::super::Put { name: [9; 16], ..stored() })]), "the new one is written");
        drop(writer);
        assert_eq!(targets(&place, now()), ["/a"], "once");
    }

    #[test]
    fn while_it_cannot_be_removed_no_purge_is_confirmed() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder, 1 << 20);
        let mut writer = writer(&place);
        // A folder is no file that can be removed.
        fs::remove_file(&place.path).unwrap();
        fs::create_dir(&place.path).unwrap();
        assert!(!writer.give_up());
        assert!(!writer.write(&[purge(Target::All, 1)]));
        fs::remove_dir(&place.path).unwrap();
        assert!(!writer.write(&[purge(Target::All, 1)]), "it is not tried again at once");
        writer.tried.0 = Instant::now().checked_sub(AGAIN).unwrap();
        assert!(writer.write(&[purge(Target::All, 1)]));
    }
}
