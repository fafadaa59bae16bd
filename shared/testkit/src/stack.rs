//! Stacks of real processes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{http, ports, processes, wait};

/// How long a service may take to come up on a loaded machine.
const START: Duration = Duration::from_secs(60);
/// How long a service may take to go after SIGTERM.
const STOP: Duration = Duration::from_secs(40);

/// A process of the stack.
#[derive(Debug)]
pub struct Instance {
    /// `all`, or the service's name.
    pub service: String,
    child: Child,
    arguments: Vec<String>,
    log: PathBuf,
}

impl Instance {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
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
}

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    /// Its processes: one, or gateway, balancer and php-pool in this order.
    pub instances: Vec<Instance>,
    /// Where the gateway listens.
    pub address: SocketAddr,
    binary: PathBuf,
    root: PathBuf,
    home: TempDir,
}

impl Stack {
    /// Starts every service in one process, with the functions of `root`; `config` is TOML added to the file.
    ///
    /// # Panics
    /// When it does not come up; the message holds its log.
    pub fn one_process(binary: &Path, root: &Path, config: &str) -> Self {
        let mut stack = Self::prepare(binary, root, config);
        let admin = ports::free();
        stack.start("all", &[format!("admin.listen={admin}")]);
        stack.await_answer();
        stack
    }

    /// Starts gateway, balancer and php-pool as processes of their own, linked over TCP.
    ///
    /// # Panics
    /// When it does not come up; the message holds the logs.
    pub fn apart(binary: &Path, root: &Path, config: &str) -> Self {
        let mut stack = Self::prepare(binary, root, config);
        let (balancer, php_pool) = (ports::free(), ports::free());
        for service in ["php-pool", "balancer", "gateway"] {
            let admin = ports::free();
            let mut settings = vec![
                format!("admin.listen={admin}"),
                format!("mesh.peers.balancer=[\"{balancer}\"]"),
                format!("mesh.peers.php-pool=[\"{php_pool}\"]"),
            ];
            match service {
                "balancer" => settings.push(format!("mesh.listen={balancer}")),
                "php-pool" => settings.push(format!("mesh.listen={php_pool}")),
                _ => {}
            }
            stack.start(service, &settings);
        }
        stack.instances.reverse();
        stack.await_answer();
        stack
    }

    /// The process that runs `service`.
    ///
    /// # Panics
    /// When the stack has no such service.
    pub fn instance(&mut self, service: &str) -> &mut Instance {
        let found = self.instances.iter_mut().find(|instance| instance.service == service || instance.service == "all");
        found.expect("a service of the stack")
    }

    /// Starts the process of `service` again, after it has ended, with the same arguments.
    ///
    /// # Panics
    /// When the binary cannot be run.
    pub fn restart(&mut self, service: &str) {
        let binary = self.binary.clone();
        let home = self.home.path().to_owned();
        let instance = self.instance(service);
        instance.child = spawn(&binary, &home, &instance.arguments, &instance.log);
        read_ready(instance);
    }

    /// A connection to the gateway.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn connect(&self) -> http::Connection {
        http::Connection::open(self.address).expect("connect to the gateway")
    }

    /// One `GET` on a connection of its own.
    ///
    /// # Panics
    /// When there is no response at all.
    pub fn get(&self, target: &str) -> http::Response {
        http::get(self.address, target).expect("a response")
    }

    /// Everything all processes have logged.
    pub fn logs(&self) -> String {
        self.instances.iter().map(|instance| format!("--- {}\n{}", instance.service, instance.log())).collect()
    }

    /// The stack's own directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn prepare(binary: &Path, root: &Path, config: &str) -> Self {
        let home = TempDir::new().expect("make a directory for the stack");
        let address = ports::free();
        let key = home.path().join("mesh.key");
        fs::write(&key, "a key for tests that is long enough").expect("write the mesh key");
        let text = format!("gateway.listen = [\"{address}\"]\nmesh.key_file = \"{}\"\n{config}\n", key.display(),);
        fs::write(home.path().join("troupe.toml"), text).expect("write the configuration");
        Self { instances: Vec::new(), address, binary: binary.to_owned(), root: root.to_owned(), home }
    }

    fn start(&mut self, service: &str, settings: &[String]) {
        let mut arguments = vec!["run".to_owned(), "--config".to_owned(), "troupe.toml".to_owned()];
        if service != "all" {
            arguments.extend(["--service".to_owned(), service.to_owned()]);
        }
        let root = format!("php.default.root={:?}", self.root);
        for setting in settings.iter().chain([&root]) {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        let log = self.home.path().join(format!("{service}.log"));
        let child = spawn(&self.binary, self.home.path(), &arguments, &log);
        let mut instance = Instance { service: service.to_owned(), child, arguments, log };
        read_ready(&mut instance);
        self.instances.push(instance);
    }

    /// The services come up in any order: the stack stands when a call has gone all the way.
    fn await_answer(&self) {
        wait::until("the stack to answer", START, || {
            let response = http::get(self.address, "/api/hello").ok()?;
            (response.status != 503).then_some(())
        });
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln_logs(&self.logs());
        }
        for instance in &mut self.instances {
            let _ = instance.child.kill();
            let _ = instance.child.wait();
        }
    }
}

#[allow(clippy::print_stderr, reason = "a failing test shows what the stack said")]
fn eprintln_logs(logs: &str) {
    eprintln!("{logs}");
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

/// Blocks until the process has printed its ready line, so that its listeners are bound.
fn read_ready(instance: &mut Instance) {
    let stdout = instance.child.stdout.take().expect("stdout is piped");
    let mut line = String::new();
    let read = BufReader::new(stdout).read_line(&mut line);
    assert!(read.is_ok() && line.starts_with("ready"), "{} did not come up:\n{}", instance.service, instance.log());
}
