//! What PHP prints beside its replies.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::*;

/// Log lines, in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn with(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.0.lock()).into_owned();
        text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    }
}

/// One test, since a log subscriber is the whole process's.
#[test]
fn output_and_deaths_are_logged_with_process_and_request() {
    let lines = Lines::default();
    // When all tests run in one process, another may have been first.
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return;
    }
    let functions = [
        (
            "prints",
            "function () { fwrite(STDOUT, \"to stdout\\n\"); fwrite(STDERR, \"to stderr\\n\"); passthru('echo from a child'); return 'clean'; }",
        ),
        ("dies", "function () { fwrite(STDERR, \"last words\\n\"); posix_kill(getmypid(), SIGSEGV); sleep(10); }"),
    ];
    on_runtime(async move {
        let stage = Stage::start(&functions, |_| {}).await;
        let pool = stage.handle();
        assert!(get_text(&pool, "prints").await.ends_with("clean"));
        eventually("both lines are logged", || {
            !lines.with("to stdout").is_empty() && !lines.with("to stderr").is_empty()
        })
        .await;
        for line in lines.with("to std") {
            assert!(line.contains("process=") && line.contains("pid=") && line.contains("request_id=\"r1\""), "{line}");
        }
        assert!(get(&pool, "dies").await.is_err());
        eventually("the death is logged", || !lines.with("a process died").is_empty()).await;
        let death = lines.with("a process died").join("");
        for part in ["signal 11", "GET /dies", "request_id=\"r1\"", "last words", "restarts=1"] {
            assert!(death.contains(part), "{part} in {death}");
        }
        stage.pools.stop().await;
    });
}
