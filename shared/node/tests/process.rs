//! What only a whole process shows: the log on its stderr, its panics, its way out by signals.
//!
//! Each test runs this test binary again as a child that plays a small service.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use troupe_node::shutdown::{DrainOptions, Shutdown};
use troupe_node::telemetry::{self, LogFormat, LogOptions, Origin};

const CHILD: &str = "TROUPE_TEST_CHILD";

/// The child. Does nothing when it is run as a test.
#[test]
fn child() {
    let Ok(part) = std::env::var(CHILD) else { return };
    let options = LogOptions {
        level: "info".to_owned(),
        format: LogFormat::Auto,
        origin: Origin { service: "gateway".to_owned(), instance: "a1".to_owned(), apart: true },
    };
    let log = telemetry::install(&options).expect("the first of this process");
    let code = actix_rt::System::new().block_on(async {
        let mut shutdown = Shutdown::new(DrainOptions { delay: Duration::ZERO, timeout: Duration::from_secs(60) });
        shutdown.trigger().on_signals().expect("handlers");
        if part == "hangs" {
            shutdown.stage("requests", |_| async {
                println!("draining");
                std::future::pending().await
            });
        } else {
            shutdown.stage("requests", |_| async { true });
        }
        let caught = actix_rt::spawn(async { panic!("a bug in {}", "a task") }).await;
        assert!(caught.is_err());
        tracing::debug!("seen at debug only");
        println!("up");
        shutdown.run().await.exit_code()
    });
    drop(log);
    #[expect(clippy::exit, reason = "this is the child's main")]
    std::process::exit(code.into());
}

struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(part: &str, level: Option<&str>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("itself"));
        command.args(["--exact", "child", "--nocapture"]).env(CHILD, part).env_remove(telemetry::LEVEL_VARIABLE);
        if let Some(level) = level {
            command.env(telemetry::LEVEL_VARIABLE, level);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut process = Self { child, stdout };
        process.wait_for("up");
        process
    }

    fn wait_for(&mut self, said: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(said) {
            line.clear();
            assert!(self.stdout.read_line(&mut line).expect("reads") > 0, "it ended without saying {said}");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("not 0");
        kill_process(pid, signal).expect("it runs");
    }

    /// Its exit code and its log.
    fn end(mut self) -> (Option<i32>, Vec<Value>) {
        let mut text = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
        let code = self.child.wait().expect("ends").code();
        // The test harness's own lines begin otherwise.
        let lines = text.lines().filter(|line| line.starts_with('{'));
        (code, lines.map(|line| serde_json::from_str(line).expect("one object per line")).collect())
    }
}

fn messages(log: &[Value]) -> Vec<&str> {
    log.iter().filter_map(|line| line["msg"].as_str()).collect()
}

#[test]
fn sigterm_drains_and_the_log_is_json_to_its_last_line() {
    let process = Process::start("drains", None);
    process.signal(Signal::TERM);
    let (code, log) = process.end();
    assert_eq!(code, Some(0));
    let messages = messages(&log);
    assert_eq!(messages.last(), Some(&"drained"), "{log:?}");
    assert!(!messages.contains(&"seen at debug only"));
    let panic = log.iter().find(|line| line["msg"] == "panic: a bug in a task").expect("the panic is logged");
    assert_eq!(panic["level"], "error");
    assert!(panic["location"].as_str().is_some_and(|place| place.contains("process.rs:")), "{panic}");
    assert!(log.iter().all(|line| line["service"] == "gateway" && line["instance"] == "a1"));
}

#[test]
fn a_second_signal_ends_a_drain_that_hangs() {
    let mut process = Process::start("hangs", None);
    process.signal(Signal::INT);
    process.wait_for("draining");
    process.signal(Signal::TERM);
    let (code, log) = process.end();
    assert_eq!(code, Some(1));
    let last = log.last().expect("a line");
    assert_eq!(last["forced"], true, "{log:?}");
    assert_eq!(last["unfinished"], "requests");
}

#[test]
fn the_environment_sets_the_level() {
    let process = Process::start("drains", Some("debug"));
    process.signal(Signal::TERM);
    let (_, log) = process.end();
    assert!(messages(&log).contains(&"seen at debug only"), "{log:?}");
}
