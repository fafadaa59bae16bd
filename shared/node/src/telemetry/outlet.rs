//! The way of log lines to their sink: a bounded queue and a thread, so that no request waits for a slow terminal, a full
//! pipe or a busy disk. What does not fit is dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use metrics::Counter;
use tracing_subscriber::fmt::MakeWriter;

use super::LogLevel;
use super::repeats::Repeats;

/// Lines that may wait: a burst of some tenths of a second at full load.
const MAX_LINES: usize = 16 * 1024;

/// Bytes that may wait, whatever the lines' lengths.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Lines are gathered into one write up to this size.
const WRITE_BYTES: usize = 64 * 1024;

/// Drops are told of in the log itself this often at most.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How long the end of the process waits for the last lines.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// A place to hand lines to. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Outlet {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes: AtomicUsize,
    dropped: AtomicU64,
    name: &'static str,
}

enum Item {
    Line(Vec<u8>),
    /// Answered when every line before it is written.
    Flush(SyncSender<()>),
}

impl Outlet {
    /// Starts the thread, named `name`, that writes to `sink`. It lives as long as a clone of the outlet does.
    ///
    /// Lines that are dropped count in `troupe_node_log_lines_dropped_total{log="<name>"}`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the thread.
    pub fn start(name: &'static str, sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, waiting) = sync_channel(MAX_LINES);
        let shared = Arc::new(Shared { bytes: AtomicUsize::new(0), dropped: AtomicU64::new(0), name });
        let told = Arc::clone(&shared);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || write_out(&waiting, sink, &told))?;
        Ok(Self { queue, shared })
    }

    /// Hands a line over, its newline included, or drops it when too much waits. Never blocks.
    pub fn line(&self, line: Vec<u8>) {
        let length = line.len();
        let before = self.shared.bytes.fetch_add(length, Ordering::AcqRel);
        if before + length <= MAX_BYTES && self.queue.try_send(Item::Line(line)).is_ok() {
            return;
        }
        self.shared.bytes.fetch_sub(length, Ordering::AcqRel);
        self.shared.dropped.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until every line handed over before is written, for `within` at most. Says whether they are.
    ///
    /// For the end of a process; it blocks the calling thread.
    pub fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let (done, written) = sync_channel(1);
        let mut item = Item::Flush(done);
        loop {
            match self.queue.try_send(item) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => item = back,
                Err(TrySendError::Full(_)) => return false,
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        written.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

fn write_out(waiting: &Receiver<Item>, mut sink: impl Write, shared: &Shared) {
    let mut batch = Vec::with_capacity(WRITE_BYTES);
    let mut drops = Drops::new(shared);
    while let Ok(first) = waiting.recv() {
        let mut next = Ok(first);
        let mut flush = None;
        loop {
            match next {
                Ok(Item::Line(line)) => {
                    shared.bytes.fetch_sub(line.len(), Ordering::AcqRel);
                    batch.extend_from_slice(&line);
                }
                Ok(Item::Flush(done)) => flush = Some(done),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
            if flush.is_some() || batch.len() >= WRITE_BYTES {
                break;
            }
            next = waiting.try_recv();
        }
        // A log that cannot be written has nowhere to say so; the next lines are tried all the same.
        let _ = sink.write_all(&batch).and_then(|()| sink.flush());
        batch.clear();
        batch.shrink_to(WRITE_BYTES);
        drops.tell();
        if let Some(done) = flush {
            let _ = done.try_send(());
        }
    }
}

/// Tells of dropped lines.
struct Drops<'shared> {
    shared: &'shared Shared,
    /// Made at the first drop: the outlet is older than the metrics recorder.
    counter: Option<Counter>,
    untold: u64,
    told: Option<Instant>,
}

impl<'shared> Drops<'shared> {
    fn new(shared: &'shared Shared) -> Self {
        Self { shared, counter: None, untold: 0, told: None }
    }

    fn tell(&mut self) {
        let dropped = self.shared.dropped.swap(0, Ordering::AcqRel);
        if dropped > 0 {
            let name = self.shared.name;
            let counter = || metrics::counter!("troupe_node_log_lines_dropped_total", "log" => name);
            self.counter.get_or_insert_with(counter).increment(dropped);
            self.untold += dropped;
        }
        if self.untold > 0 && self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            tracing::warn!(log = self.shared.name, dropped = self.untold, "the log cannot keep up; lines are missing");
            self.untold = 0;
            self.told = Some(Instant::now());
        }
    }
}

impl<'outlet> MakeWriter<'outlet> for Outlet {
    type Writer = LineWriter<'outlet>;

    fn make_writer(&'outlet self) -> Self::Writer {
        LineWriter { outlet: self, line: Vec::new() }
    }
}

/// Gathers what one event writes and hands it over as one line.
#[derive(Debug)]
pub struct LineWriter<'outlet> {
    outlet: &'outlet Outlet,
    line: Vec<u8>,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.outlet.line(std::mem::take(&mut self.line));
        }
    }
}

/// Writes the last lines out when it is dropped. Held by `main` to its end.
#[derive(Debug)]
#[must_use = "the last log lines are lost when this is not held to the end of the process"]
pub struct LogGuard {
    outlet: Outlet,
    repeats: Repeats,
    level: LogLevel,
}

impl LogGuard {
    pub(super) fn new(outlet: Outlet, repeats: Repeats, level: LogLevel) -> Self {
        Self { outlet, repeats, level }
    }

    /// The level of the log.
    pub fn level(&self) -> LogLevel {
        self.level.clone()
    }

    /// The outlet of the process's log, for lines that do not come from `tracing`.
    pub fn outlet(&self) -> &Outlet {
        &self.outlet
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.repeats.end();
        self.outlet.flush(LAST_FLUSH);
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// A sink that takes nothing until it is told to.
    struct Gate {
        open: Receiver<()>,
        is_open: bool,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.is_open {
                let _ = self.open.recv();
                self.is_open = true;
            }
            self.written.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Gate, SyncSender<()>, Arc<Mutex<Vec<u8>>>) {
        let (key, open) = sync_channel(1);
        let written = Arc::new(Mutex::new(Vec::new()));
        (Gate { open, is_open: false, written: Arc::clone(&written) }, key, written)
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (gate, key, written) = gate();
        let outlet = Outlet::start("test-log", gate).expect("a thread");
        key.send(()).expect("waits");
        let mut expected = String::new();
        for line in 0..5000 {
            let mut writer = outlet.make_writer();
            write!(writer, "line ").expect("gathers");
            writeln!(writer, "{line}").expect("gathers");
            expected.push_str(&format!("line {line}\n"));
        }
        assert!(outlet.flush(Duration::from_secs(20)));
        assert!(*written.lock() == expected.as_bytes());
    }

    #[test]
    fn a_sink_that_is_stuck_stops_nobody_and_memory_is_bounded() {
        let (gate, key, written) = gate();
        let outlet = Outlet::start("test-log", gate).expect("a thread");
        let line = vec![b'x'; 1024];
        for _ in 0..3 * MAX_BYTES / line.len() {
            outlet.line(line.clone());
        }
        assert!(outlet.shared.bytes.load(Ordering::Acquire) <= MAX_BYTES);
        let dropped = outlet.shared.dropped.load(Ordering::Acquire);
        assert!(dropped > 0);
        assert!(!outlet.flush(Duration::from_millis(10)), "it is stuck");
        key.send(()).expect("waits");
        assert!(outlet.flush(Duration::from_secs(20)));
        let kept = written.lock().len() / line.len();
        let handed_over = 3 * MAX_BYTES / line.len();
        assert_eq!(kept as u64 + dropped, handed_over as u64);
        assert_eq!(outlet.shared.bytes.load(Ordering::Acquire), 0);
    }
}
