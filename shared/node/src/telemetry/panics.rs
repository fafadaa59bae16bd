//! Panics reach the log and a counter, whoever catches them.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::Cell;
use std::panic::PanicHookInfo;

thread_local! {
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

/// Replaces the standard hook, which writes bare lines to stderr that no log store understands.
pub(super) fn install() {
    std::panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    // A panic inside the log itself would come back here for ever.
    if REPORTING.replace(true) {
        return;
    }
    // Panics are rare, and the recorder may be set up after this hook: the handle is looked up each time.
    metrics::counter!("troupe_node_panics_total").increment(1);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    tracing::error!(
        location = panic.location().map(tracing::field::display),
        thread = std::thread::current().name().unwrap_or("unnamed"),
        backtrace = backtrace.as_ref().map(tracing::field::display),
        "panic: {}",
        message(panic)
    );
    REPORTING.set(false);
}

fn message<'panic>(panic: &'panic PanicHookInfo<'_>) -> &'panic str {
    panic.payload_as_str().unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::{JsonLines, Origin};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_caught_panic_is_logged_with_its_place() {
        let sink = Sink::default();
        let out = sink.clone();
        let subscriber = tracing_subscriber::registry().with(JsonLines::new(&Origin::default(), move || out.clone()));
        install();
        let caught =
            tracing::subscriber::with_default(subscriber, || std::panic::catch_unwind(|| panic!("slot {} is gone", 3)));
        let _ = std::panic::take_hook();
        assert!(caught.is_err());
        let text = String::from_utf8(sink.0.lock().clone()).expect("text");
        assert!(text.contains("panic: slot 3 is gone"), "{text}");
        assert!(text.contains("panics.rs:"), "{text}");
        assert!(text.contains(r#""level":"error""#), "{text}");
    }
}
