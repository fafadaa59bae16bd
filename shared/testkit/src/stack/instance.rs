//! One process of a stack.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::{http, processes, wait};

/// How long a service may take to go after SIGTERM.
const STOP: Duration = Duration::from_secs(40);
/// How long a service may take to be ready on a loaded machine.
const READY: Duration = Duration::from_secs(60);

/// A process of the stack.
#[derive(Debug)]
pub struct Instance {
    /// `all`, or the service's name.
    pub service: String,
    /// Where its admin listener is.
    pub admin: SocketAddr,
    child: Child,
    binary: PathBuf,
    arguments: Vec<String>,
    home: PathBuf,
    log: PathBuf,
}

impl Instance {
    /// Runs the binary in `home`; what it logs goes to the file `name`.log there.
    ///
    /// # Panics
    /// When it does not come up; the message holds its log.
    pub(super) fn start(
        binary: &Path,
        home: &Path,
        service: &str,
        name: &str,
        admin: SocketAddr,
        arguments: Vec<String>,
    ) -> Self {
        let log = home.join(format!("{name}.log"));
        let child = spawn(binary, home, &arguments, &log);
        let service = service.to_owned();
        let mut instance =
            Self { service, admin, child, binary: binary.to_owned(), arguments, home: home.to_owned(), log };
        instance.read_ready();
        instance
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens for links over TCP; `None` when it does not.
    pub fn mesh(&self) -> Option<SocketAddr> {
        let listen = self.arguments.iter().find_map(|argument| argument.strip_prefix("mesh.listen="));
        listen?.trim_matches('"').parse().ok()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        processes::signal(self.pid(), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within 40 s.
    pub fn wait(&mut self) -> ExitStatus {
        wait::until("the process to end", STOP, || self.child.try_wait().ok().flatten())
    }

    /// Kills it, waits until it is gone with all its sockets.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// Starts it again after it has ended, with the same arguments and so on the same addresses; returns once its
    /// listeners are bound.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        self.child = spawn(&self.binary, &self.home, &self.arguments, &self.log);
        self.read_ready();
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not within a minute.
    pub fn await_ready(&self) {
        wait::until("the instance to be ready", READY, || (self.admin("/readyz")?.status == 200).then_some(()));
    }

    /// One `GET` at its admin listener; `None` when nobody answers.
    pub fn admin(&self, target: &str) -> Option<http::Response> {
        let mut connection = http::Connection::open(self.admin).ok()?;
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        connection.send(request.as_bytes()).ok()?;
        connection.response(false).ok()
    }

    /// Blocks until the process has printed its ready line, so that its listeners are bound.
    fn read_ready(&mut self) {
        let stdout = self.child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        assert!(read.is_ok() && line.starts_with("ready"), "{} did not come up:\n{}", self.service, self.log());
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(binary: &Path, home: &Path, arguments: &[String], log: &Path) -> Child {
    let log = File::options().create(true).append(true).open(log).expect("open a log file");
    Command::new(binary)
        .args(arguments)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("run the binary")
}
