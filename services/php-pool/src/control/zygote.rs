//! The zygote: the PHP process that loads a pool's code once and forks the others.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tokio::net::unix::pipe;

use super::capture::MAX_LINE;
use super::launch::Launch;
use super::{Note, capture, usage};
use crate::pool::Pool;
use crate::rundir::{Fifo, RunDir};

/// What is kept of what a zygote wrote last, for the report when it fails.
const TAIL_LINES: usize = 20;
/// Programs that may stand between what was started and PHP, as a script that does not `exec` it does.
const MAX_WRAPPERS: usize = 3;
/// The longest event: what a hundred thousand functions are called.
pub(crate) const LONGEST_EVENT: usize = 16 << 20;

/// A zygote that was started.
#[derive(Debug)]
pub(crate) struct Zygote {
    pid: Option<Pid>,
    commands: File,
    /// Keeps the ends of the control FIFOs in existence until PHP has opened its own.
    opening: Option<[Fifo; 2]>,
}

/// What a zygote says.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    /// The code is loaded.
    Ready(Loaded),
    /// It cannot be.
    Fatal { message: String, file: String, line: u32 },
    /// A process was forked.
    Forked { id: u32, pid: i32 },
    /// A process is gone.
    Exited { id: u32, code: Option<i32>, signal: Option<i32>, message: Option<String> },
}

/// What was found while the code was loaded.
#[derive(Debug, Deserialize)]
pub(crate) struct Loaded {
    pub(crate) php: String,
    pub(crate) functions: Vec<LoadedFunction>,
    pub(crate) errors: Vec<LoadError>,
}

/// A function.
#[derive(Debug, Deserialize)]
pub(crate) struct LoadedFunction {
    pub(crate) name: String,
    pub(crate) index: u16,
}

/// A function that cannot be loaded.
#[derive(Debug, Deserialize)]
pub(crate) struct LoadError {
    /// The function's name.
    pub(crate) function: String,
    /// Where the error lies: in the function's file, or in one that it loads.
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) message: String,
}

/// The last lines of a program's standard error.
pub(crate) type Tail = Arc<Mutex<Vec<String>>>;

impl Zygote {
    /// Starts it. What it says and its end come to the pool's actor as notes of this `generation`.
    pub(crate) fn start(launch: &Launch, run: &RunDir, generation: u64, pool: &Arc<Pool>) -> io::Result<Self> {
        let (input, output) = (run.fifo("ctl.in")?, run.fifo("ctl.out")?);
        let commands = File::from(input.writer()?);
        let events: OwnedFd = output.reader()?;
        let mut command = launch.command(run, "zygote.php")?;
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = launch.spawn(command)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32));

        let events = pipe::Receiver::from_owned_fd_unchecked(events)?;
        let listener = Arc::clone(pool);
        actix_rt::spawn(capture::lines(events, LONGEST_EVENT, move |line| match serde_json::from_str::<Event>(line) {
            Ok(event) => listener.tell(Note::Event { generation, event }),
            Err(error) => tracing::warn!(%error, line, "the zygote said something else than an event"),
        }));
        let tail = Tail::default();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (name, kept) = (launch.pool.clone(), Arc::clone(&tail));
        let errors = actix_rt::spawn(async move {
            if let Some(stderr) = stderr {
                capture::lines(stderr, MAX_LINE, |line| {
                    keep(&kept, line);
                    tracing::warn!(target: "php", pool = name, process = "zygote", "{line}");
                })
                .await;
            }
        });
        let name = launch.pool.clone();
        actix_rt::spawn(async move {
            if let Some(stdout) = stdout {
                let log = |line: &str| tracing::info!(target: "php", pool = name, process = "zygote", "{line}");
                capture::lines(stdout, MAX_LINE, log).await;
            }
        });
        let pool = Arc::clone(pool);
        actix_rt::spawn(async move {
            let status = usage::wait(&pool, child).await;
            // A process that it forked may hold the pipe open a moment longer.
            let _ = tokio::time::timeout(super::OUTPUT_GRACE, errors).await;
            let tail = tail.lock().join("\n");
            pool.tell(Note::ZygoteExited { generation, status: describe(status), tail });
        });
        Ok(Self { pid, commands, opening: Some([input, output]) })
    }

    /// Both sides have opened their ends: from here on an end that closes is seen.
    pub(crate) fn opened(&mut self) {
        self.opening = None;
    }

    /// Sends a command; false when the zygote does not take it.
    pub(crate) fn command(&mut self, command: &str) -> bool {
        match self.commands.write_all(format!("{command}\n").as_bytes()) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(command, %error, "the zygote takes no commands");
                false
            }
        }
    }

    /// Whether it has forked the process `pid`. PHP's word is not taken for it: with another's number it would have that one
    /// and its whole group killed, and with 1 every process there is.
    pub(crate) fn has_forked(&self, pid: i32) -> bool {
        let Some(own) = self.pid.map(|own| own.as_raw_nonzero().get()) else { return false };
        let mut ancestors = std::iter::successors(Some(pid), |pid| usage::parent(*pid)).skip(1).take(MAX_WRAPPERS + 1);
        pid > 1 && ancestors.any(|ancestor| ancestor == own)
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) {
        if let Some(pid) = self.pid {
            // Gone already: as it should be.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

pub(crate) fn keep(tail: &Tail, line: &str) {
    let mut tail = tail.lock();
    if tail.len() >= TAIL_LINES {
        tail.remove(0);
    }
    tail.push(line.chars().take(1_000).collect());
}

pub(crate) fn exit_status(code: i32) -> String {
    format!("exit status {code}")
}

pub(crate) fn describe(status: io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => exit_status(code),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => status.to_string(),
        },
        Err(error) => error.to_string(),
    }
}
