//! Stacks of real processes.

mod instance;
mod plan;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

pub use self::instance::Instance;
pub use self::plan::Plan;

use crate::{http, ports, wait};

/// How long a stack may take to answer on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// A running stack.
#[derive(Debug)]
pub struct Stack {
    /// Its processes: one, or the gateways, balancers and php-pools in this order.
    pub instances: Vec<Instance>,
    /// Where the first gateway listens.
    pub address: SocketAddr,
    /// Where all gateways listen.
    pub addresses: Vec<SocketAddr>,
    /// What every process is told.
    shared: Vec<String>,
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
        stack.start("all", &[]);
        stack.await_answer();
        stack
    }

    /// Starts gateway, balancer and php-pool as processes of their own, linked over TCP.
    ///
    /// # Panics
    /// When it does not come up; the message holds the logs.
    pub fn apart(binary: &Path, root: &Path, config: &str) -> Self {
        Plan::apart().start(binary, root, config)
    }

    /// The first process that runs `service`.
    ///
    /// # Panics
    /// When the stack has no such service.
    pub fn instance(&mut self, service: &str) -> &mut Instance {
        self.instance_at(service, 0)
    }

    /// The process that runs the instance of `service` with this index.
    ///
    /// # Panics
    /// When the stack has no such instance.
    pub fn instance_at(&mut self, service: &str, index: usize) -> &mut Instance {
        let runs = |instance: &&mut Instance| instance.service == service || instance.service == "all";
        self.instances.iter_mut().filter(runs).nth(index).expect("an instance of the stack")
    }

    /// Starts the first process of `service` again, after it has ended, with the same arguments.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self, service: &str) {
        self.instance(service).restart();
    }

    /// Starts one more php-pool or balancer, which the others find by themselves.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn add(&mut self, service: &str) -> &mut Instance {
        self.start(service, &[format!("mesh.listen=\"{}\"", ports::free())]);
        self.instances.last_mut().expect("the one that was started")
    }

    /// A connection to the first gateway.
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

    /// Waits until the first gateway answers a call with 200.
    ///
    /// # Panics
    /// When it does not within `bound`.
    pub fn await_serving(&self, bound: Duration) {
        wait::until("an answer", bound, || (self.get("/api/hello").status == 200).then_some(()));
    }

    /// Where the first gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.address
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
        // Machines for tests have few descriptors; what does not fit is a problem that `troupe status` tells.
        let text = format!(
            "gateway.listen = [\"{address}\"]\ngateway.max_connections = 10_000\nmesh.key_file = \"{}\"\n{config}\n",
            key.display(),
        );
        fs::write(home.path().join("troupe.toml"), text).expect("write the configuration");
        let (binary, root) = (binary.to_owned(), root.to_owned());
        Self { instances: Vec::new(), address, addresses: vec![address], shared: Vec::new(), binary, root, home }
    }

    /// Where the gateway with this index listens.
    fn gateway_address(&mut self, index: usize) -> SocketAddr {
        while self.addresses.len() <= index {
            self.addresses.push(ports::free());
        }
        self.addresses[index]
    }

    fn start(&mut self, service: &str, settings: &[String]) {
        let mut arguments = vec!["run".to_owned(), "--config".to_owned(), "troupe.toml".to_owned()];
        if service != "all" {
            arguments.extend(["--service".to_owned(), service.to_owned()]);
        }
        let admin = ports::free();
        let own = [format!("php.default.root={:?}", self.root), format!("admin.listen={admin}")];
        for setting in own.iter().chain(&self.shared).chain(settings) {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        let name = format!("{service}-{}", self.instances.len());
        let instance = Instance::start(&self.binary, self.home.path(), service, &name, admin, arguments);
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
    }
}

#[allow(clippy::print_stderr, reason = "a failing test shows what the stack said")]
fn eprintln_logs(logs: &str) {
    eprintln!("{logs}");
}
