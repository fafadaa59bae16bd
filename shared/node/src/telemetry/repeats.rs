//! Lines that repeat themselves: the first few of each are written, then they are counted, and the count is told.
//!
//! A line is the same when it comes from the same place in the code with the same texts, whatever its numbers and its
//! request. Debug lines are never left out: whoever asks for them wants them all.

use std::collections::HashMap;
use std::fmt::{self, Debug, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How often the same line is written in each [`WINDOW`]: enough to see that it repeats.
const WRITTEN: u32 = 5;
/// After so long it may be written again, and what was left out is told.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines that are kept in mind. Beyond, new ones are written without being counted: a flood of lines that differ is no
/// repetition, and the log's own bound holds.
const MAX_LINES: usize = 1_024;
/// What is shown of a line that was left out.
const MAX_TEXT: usize = 200;
/// How often it is looked whether a window has ended.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Fields that tell requests and processes apart, not lines.
const IDS: [&str; 5] = ["request_id", "trace_id", "process", "pid", "last_request"];

/// The layer. Clones share the table.
#[derive(Debug, Clone)]
pub(super) struct Repeats {
    table: Arc<Mutex<Table>>,
    teller: Thread,
}

/// Lines that were written lately, without clock or output.
#[derive(Debug, Default)]
struct Table {
    lines: HashMap<u64, Line>,
    /// Lines that have something to tell when their window ends.
    quiet: usize,
}

#[derive(Debug)]
struct Line {
    since: Instant,
    seen: u32,
    level: Level,
    text: String,
}

/// A line that was left out.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    level: Level,
    text: String,
    times: u32,
}

impl Repeats {
    /// Starts the thread that tells what was left out; it lives as long as the process.
    pub(super) fn start() -> std::io::Result<Self> {
        let table = Arc::new(Mutex::new(Table::default()));
        let looked_at = Arc::downgrade(&table);
        let thread = std::thread::Builder::new().name("log-repeats".to_owned()).spawn(move || {
            while let Some(table) = looked_at.upgrade() {
                let quiet = table.lock().quiet > 0;
                tell(&table, Instant::now());
                drop(table);
                // Nothing left out, nothing to wait for: the next line that is wakes this.
                if quiet { std::thread::park_timeout(LOOK_EVERY) } else { std::thread::park() }
            }
        })?;
        Ok(Self { table, teller: thread.thread().clone() })
    }

    /// Tells what was left out up to now: the process ends.
    pub(super) fn end(&self) {
        tell(&self.table, Instant::now() + WINDOW);
    }
}

/// Tells of the lines whose window has ended.
fn tell(table: &Mutex<Table>, now: Instant) {
    // Collected first: what is logged here comes by the table, too.
    let ended = table.lock().ended(now);
    for LeftOut { level, text, times } in ended {
        metrics::counter!("troupe_node_log_lines_left_out_total").increment(u64::from(times));
        const WHAT: &str = "a line was repeated, and left out";
        match level {
            Level::ERROR => tracing::error!(line = text, times, "{WHAT}"),
            Level::WARN => tracing::warn!(line = text, times, "{WHAT}"),
            _ => tracing::info!(line = text, times, "{WHAT}"),
        }
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let meta = event.metadata();
        if *meta.level() > Level::INFO || meta.target() == module_path!() {
            return true;
        }
        let mut same = Same(DefaultHasher::new());
        meta.callsite().hash(&mut same.0);
        event.record(&mut same);
        let admitted = self.table.lock().admit(same.0.finish(), Instant::now(), || {
            let mut text = Text(String::new());
            event.record(&mut text);
            (*meta.level(), text.0)
        });
        if admitted == Admitted::FirstLeftOut {
            self.teller.unpark();
        }
        admitted == Admitted::Written
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Admitted {
    Written,
    FirstLeftOut,
    LeftOut,
}

impl Table {
    fn admit(&mut self, key: u64, now: Instant, describe: impl FnOnce() -> (Level, String)) -> Admitted {
        if let Some(line) = self.lines.get_mut(&key) {
            // A window with something left out ends when that is told.
            if line.seen <= WRITTEN && now.duration_since(line.since) >= WINDOW {
                (line.since, line.seen) = (now, 0);
            }
            line.seen = line.seen.saturating_add(1);
            return match line.seen {
                seen if seen <= WRITTEN => Admitted::Written,
                seen if seen == WRITTEN + 1 => {
                    self.quiet += 1;
                    Admitted::FirstLeftOut
                }
                _ => Admitted::LeftOut,
            };
        }
        if self.lines.len() >= MAX_LINES {
            self.lines.retain(|_, line| line.seen > WRITTEN || now.duration_since(line.since) < WINDOW);
        }
        if self.lines.len() < MAX_LINES {
            let (level, text) = describe();
            self.lines.insert(key, Line { since: now, seen: 1, level, text });
        }
        Admitted::Written
    }

    fn ended(&mut self, now: Instant) -> Vec<LeftOut> {
        let mut ended = Vec::new();
        if self.quiet == 0 {
            return ended;
        }
        self.lines.retain(|_, line| {
            if line.seen <= WRITTEN || now.duration_since(line.since) < WINDOW {
                return true;
            }
            ended.push(LeftOut { level: line.level, text: std::mem::take(&mut line.text), times: line.seen - WRITTEN });
            false
        });
        self.quiet = self.quiet.saturating_sub(ended.len());
        ended
    }
}

/// Hashes what makes two lines the same.
struct Same(DefaultHasher);

impl Write for Same {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Visit for Same {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !IDS.contains(&field.name()) {
            // Hashing does not fail.
            let _ = write!(self, "{value:?}\0");
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if !IDS.contains(&field.name()) {
            let _ = write!(self, "{value}\0");
        }
    }
    fn record_f64(&mut self, _: &Field, _: f64) {}
    fn record_i64(&mut self, _: &Field, _: i64) {}
    fn record_u64(&mut self, _: &Field, _: u64) {}
    fn record_i128(&mut self, _: &Field, _: i128) {}
    fn record_u128(&mut self, _: &Field, _: u128) {}
}

/// A line's message.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let text = format!("{value:?}");
            let end = text.char_indices().nth(MAX_TEXT).map_or(text.len(), |(at, _)| at);
            self.0 = text.get(..end).unwrap_or_default().to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn line() -> (Level, String) {
        (Level::WARN, "away".to_owned())
    }

    #[test]
    fn the_first_few_are_written_the_rest_is_counted_and_then_it_begins_anew() {
        let (mut table, start) = (Table::default(), Instant::now());
        let written =
            |table: &mut Table, now| (0..100).filter(|_| table.admit(1, now, line) == Admitted::Written).count();
        assert_eq!(written(&mut table, start), WRITTEN as usize);
        assert_eq!(table.admit(2, start, line), Admitted::Written, "another line is another line");
        assert_eq!(table.ended(start + WINDOW / 2), []);
        let told = LeftOut { level: Level::WARN, text: "away".to_owned(), times: 95 };
        assert_eq!(table.ended(start + WINDOW), [told]);
        assert_eq!(table.ended(start + WINDOW * 2), []);
        assert_eq!(written(&mut table, start + WINDOW), WRITTEN as usize);
        // Now and then is no repetition.
        let mut rare = Table::default();
        assert!((0..50).all(|second| rare.admit(1, start + WINDOW / 4 * second, line) == Admitted::Written));
    }

    #[test]
    fn the_table_is_bounded_and_what_finds_no_room_is_written() {
        let (mut table, now) = (Table::default(), Instant::now());
        for key in 0..10 * MAX_LINES as u64 {
            assert_eq!(table.admit(key, now, line), Admitted::Written);
        }
        assert_eq!(table.lines.len(), MAX_LINES);
        table.admit(u64::MAX, now + WINDOW, line);
        assert_eq!(table.lines.len(), 1, "what is over makes room");
    }

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU32>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted(run: impl FnOnce()) -> u32 {
        let count = Count::default();
        let repeats = Repeats::start().expect("a thread");
        let subscriber = tracing_subscriber::registry().with(repeats).with(count.clone());
        tracing::subscriber::with_default(subscriber, run);
        count.0.load(Ordering::Relaxed)
    }

    #[test]
    fn lines_that_differ_in_numbers_and_ids_alone_are_the_same_and_texts_tell_them_apart() {
        let same = counted(|| {
            for number in 0..40_u32 {
                let id = number.to_string();
                tracing::warn!(request_id = id, number, reason = "gone", "a call failed");
            }
        });
        assert_eq!(same, WRITTEN);
        let other = counted(|| {
            for number in 0..40_u32 {
                tracing::warn!(reason = format!("gone {number}"), "a call failed");
            }
        });
        assert_eq!(other, 40);
        let debug = counted(|| (0..40).for_each(|_| tracing::debug!("looked")));
        assert_eq!(debug, 40, "debug lines are never left out");
    }

    #[test]
    fn what_was_left_out_is_told_when_the_process_ends() {
        let count = Count::default();
        let repeats = Repeats::start().expect("a thread");
        let subscriber = tracing_subscriber::registry().with(repeats.clone()).with(count.clone());
        tracing::subscriber::with_default(subscriber, || {
            (0..40).for_each(|_| tracing::info!("again"));
            repeats.end();
        });
        assert_eq!(count.0.load(Ordering::Relaxed), WRITTEN + 1);
    }
}
