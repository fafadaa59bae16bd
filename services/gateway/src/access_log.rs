//! The access log: one line per request, written by a thread of its own.
//!
//! An HTTP thread collects entries and passes them on in batches; formatting and writing happen elsewhere. Where the
//! writer cannot keep up, batches are dropped and counted: a slow terminal never slows a request.

mod line;

use std::io::{self, IsTerminal as _, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use bytestring::ByteString;
use metrics::{Counter, counter};
use troupe_node::config::LogFormat;
use troupe_node::telemetry::Origin;
use troupe_wire::head::RequestHead;

use crate::request::{Incoming, Method, Refused, Request, Trace};

/// Entries that go to the writer together: one wake-up for so many requests.
const BATCH: usize = 64;
/// Batches that may wait for the writer: 16,384 entries, a tenth of a second at full speed.
const QUEUE: usize = 256;
/// Bytes that are written at once at most.
const WRITE: usize = 256 * 1024;

/// How long the end of the process waits for the last lines: less than a shutdown gives its last steps, so that what is lost
/// then is told.
const LAST_LINES: Duration = Duration::from_millis(900);
/// How often it looks whether they are written.
const LAST_LINES_POLL: Duration = Duration::from_millis(10);

const DROPPED: &str = "troupe_gateway_access_log_dropped_total";

/// Where entries go.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    queue: SyncSender<Vec<Entry>>,
    under_way: Arc<UnderWay>,
}

/// What is not written yet.
#[derive(Debug, Default)]
struct UnderWay {
    /// Entries that were handed over.
    entries: AtomicU64,
    /// Threads that may hand over more.
    spools: AtomicUsize,
}

/// What lines look like, and whose they are.
struct Style {
    json: bool,
    origin: Origin,
}

/// One thread's entries on their way.
pub(crate) struct Spool {
    batch: Vec<Entry>,
    log: AccessLog,
    dropped: Counter,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Entry {
    head: Option<RequestHead>,
    method: Method,
    id: Bytes,
    trace: Trace,
    remote: Option<IpAddr>,
    pub(crate) route: Option<ByteString>,
    status: u16,
    sent: u64,
    complete: bool,
    took: Duration,
    received: Instant,
}

impl AccessLog {
    /// Starts the writer. `Auto` is text on a terminal and JSON otherwise.
    ///
    /// # Errors
    /// When the kernel refuses the thread.
    pub(crate) fn start(format: LogFormat, origin: Origin, to: Option<Box<dyn Write + Send>>) -> io::Result<Self> {
        let json = match format {
            LogFormat::Json => true,
            LogFormat::Text => false,
            LogFormat::Auto => to.is_some() || !io::stderr().is_terminal(),
        };
        let (queue, batches) = sync_channel(QUEUE);
        let to = to.unwrap_or_else(|| Box::new(io::stderr()));
        let under_way = Arc::new(UnderWay::default());
        let log = Self { queue, under_way: Arc::clone(&under_way) };
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&batches, &under_way, &Style { json, origin }, to))?;
        Ok(log)
    }

    pub(crate) fn spool(&self) -> Spool {
        self.under_way.spools.fetch_add(1, Ordering::AcqRel);
        Spool { batch: Vec::new(), log: self.clone(), dropped: counter!(DROPPED) }
    }

    /// Waits for the lines of threads that end, for [`LAST_LINES`] at most. Those that are not written then are counted as
    /// dropped, and told.
    pub(crate) async fn written(&self) {
        let deadline = tokio::time::Instant::now() + LAST_LINES;
        while !self.under_way.is_over() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(LAST_LINES_POLL).await;
        }
        let lost = self.under_way.entries.load(Ordering::Acquire);
        if lost > 0 {
            counter!(DROPPED).increment(lost);
            tracing::warn!(lines = lost, "what the access log goes to takes no more; its last lines are missing");
        }
    }
}

impl UnderWay {
    fn is_over(&self) -> bool {
        // In this order: a thread hands over what it has before it ends.
        self.spools.load(Ordering::Acquire) == 0 && self.entries.load(Ordering::Acquire) == 0
    }
}

impl Spool {
    pub(crate) fn push(&mut self, entry: Entry) {
        self.batch.push(entry);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    pub(crate) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        let entries = batch.len() as u64;
        // Before they are: the writer may be through with them at once.
        self.log.under_way.entries.fetch_add(entries, Ordering::AcqRel);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.log.queue.try_send(batch) {
            self.log.under_way.entries.fetch_sub(entries, Ordering::AcqRel);
            self.dropped.increment(entries);
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.flush();
        self.log.under_way.spools.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Entry {
    pub(crate) fn new(incoming: &Incoming) -> Self {
        let (head, method, id, trace, remote, received) = match incoming {
            Incoming::Request(request) => {
                let Request { head, method, id, trace, received, .. } = request;
                (Some(head.clone()), *method, id, *trace, None, *received)
            }
            Incoming::Refused(refused) => {
                let Refused { id, trace, remote, received, .. } = refused;
                (None, Method::Other, id, *trace, Some(*remote), *received)
            }
        };
        Self {
            head,
            method,
            id: id.clone(),
            trace,
            remote,
            route: None,
            status: 0,
            sent: 0,
            complete: false,
            took: Duration::ZERO,
            received,
        }
    }

    pub(crate) fn finish(&mut self, status: u16, sent: u64, complete: bool, took: Duration) {
        self.status = status;
        self.sent = sent;
        self.complete = complete;
        self.took = took;
    }
}

fn write_all(batches: &Receiver<Vec<Entry>>, under_way: &UnderWay, style: &Style, mut to: Box<dyn Write + Send>) {
    let mut out = Vec::with_capacity(WRITE);
    while let Ok(mut batch) = batches.recv() {
        let mut entries = 0;
        loop {
            entries += batch.len() as u64;
            // Both clocks at one moment, so that requests need to read one of them only.
            let now = (Instant::now(), SystemTime::now());
            for entry in &batch {
                line::put(entry, now, style, &mut out);
            }
            if out.len() >= WRITE {
                break;
            }
            match batches.try_recv() {
                Ok(next) => batch = next,
                Err(_) => break,
            }
        }
        // A log that cannot be written has nowhere to say so.
        let _ = to.write_all(&out).and_then(|()| to.flush());
        out.clear();
        under_way.entries.fetch_sub(entries, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, channel};

    use metrics::{Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
    use troupe_testkit::wait;

    use super::*;
    use crate::request::Sampling;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Counts what is dropped.
    struct Dropped(Arc<AtomicU64>);

    impl Recorder for Dropped {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            assert_eq!(key.name(), DROPPED);
            Counter::from_arc(Arc::clone(&self.0))
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    /// A terminal that is stopped until the other end of its channel is gone.
    struct Stopped {
        go_on: mpsc::Receiver<()>,
        lines: Arc<AtomicU64>,
    }

    impl Write for Stopped {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go_on.recv();
            self.lines.fetch_add(bytes.iter().filter(|byte| **byte == b'\n').count() as u64, Ordering::SeqCst);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn entry() -> Entry {
        Entry {
            head: None,
            method: Method::Other,
            id: Bytes::from_static(b"id"),
            trace: Trace::new(None, 7, Sampling::default()),
            remote: None,
            route: None,
            status: 200,
            sent: 0,
            complete: true,
            took: Duration::ZERO,
            received: Instant::now(),
        }
    }

    #[test]
    fn what_a_stopped_terminal_does_not_take_is_dropped_and_counted_and_holds_nobody_up() {
        let (stop, go_on) = channel();
        let (lines, dropped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let terminal = Stopped { go_on, lines: Arc::clone(&lines) };
        let log = AccessLog::start(LogFormat::Json, Origin::default(), Some(Box::new(terminal))).unwrap();
        let mut spool = metrics::with_local_recorder(&Dropped(Arc::clone(&dropped)), || log.spool());
        let pushed = (BATCH * (QUEUE + 1_000)) as u64;
        // Would wait for ever if the terminal could hold it up.
        for _ in 0..pushed {
            spool.push(entry());
        }
        let lost = dropped.load(Ordering::SeqCst);
        // Beside the queue, the writer holds what it had taken when it was stopped.
        assert!(lost > 800 * BATCH as u64 && lost <= 1_000 * BATCH as u64, "{lost} of {pushed}");
        drop(stop);
        let written = |count| {
            wait::until("the lines", PATIENCE, || (lines.load(Ordering::SeqCst) == count).then_some(()));
        };
        written(pushed - lost);
        // Then it goes on, and loses nothing.
        for _ in 0..BATCH {
            spool.push(entry());
        }
        written(pushed - lost + BATCH as u64);
        assert_eq!(dropped.load(Ordering::SeqCst), lost);
    }

    /// A log to a terminal that is stopped, with so many entries on their way; what lets it go on, and how many lines it has taken.
    fn stopped(entries: usize) -> (AccessLog, mpsc::Sender<()>, Arc<AtomicU64>) {
        let ((stop, go_on), lines) = (channel(), Arc::new(AtomicU64::new(0)));
        let terminal = Stopped { go_on, lines: Arc::clone(&lines) };
        let log = AccessLog::start(LogFormat::Json, Origin::default(), Some(Box::new(terminal))).unwrap();
        let mut spool = log.spool();
        (0..entries).for_each(|_| spool.push(entry()));
        (log, stop, lines)
    }

    #[test]
    fn the_end_waits_for_what_threads_had_spooled_and_a_terminal_takes_late() {
        let entries = 3 * BATCH + BATCH / 2;
        let (log, stop, lines) = stopped(entries);
        actix_rt::System::new().block_on(async {
            let mut written = std::pin::pin!(log.written());
            assert!(futures_util::poll!(written.as_mut()).is_pending(), "nothing is written yet");
            drop(stop);
            written.await;
        });
        assert_eq!(lines.load(Ordering::SeqCst), entries as u64);
    }

    #[test]
    fn the_end_does_not_wait_for_ever_and_counts_what_is_lost() {
        let dropped = Arc::new(AtomicU64::new(0));
        let (log, stop, lines) = stopped(BATCH + 1);
        metrics::with_local_recorder(&Dropped(Arc::clone(&dropped)), || {
            actix_rt::System::new().block_on(log.written());
        });
        assert_eq!((lines.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (0, BATCH as u64 + 1));
        drop(stop);
    }
}
