//! A real Redis: one server, three that are a cluster, or one with a replica and a Sentinel that watches them.

mod client;
mod slow;

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

pub use self::client::{Client, Reply};
pub use self::slow::SlowRoad;

use crate::{ports, processes, wait};

/// How long a server may take to answer on a loaded machine.
const START: Duration = Duration::from_secs(30);
/// The slots of a cluster.
const SLOTS: usize = 16384;

/// A `redis-server` of the test's own, without persistence. It ends with this.
#[derive(Debug)]
pub struct Redis {
    address: SocketAddr,
    arguments: Vec<String>,
    child: Child,
    home: TempDir,
}

impl Redis {
    /// Starts a server on a free port of loopback.
    ///
    /// # Panics
    /// When it does not come up: `redis-server` is Debian's package of that name.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further arguments: `["--requirepass", "secret"]`.
    ///
    /// # Panics
    /// As [`Redis::start`].
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut redis = Self::spawn(arguments);
        redis.await_answer();
        redis
    }

    /// Three servers that are a cluster.
    ///
    /// # Panics
    /// When they do not become one.
    pub fn cluster() -> Vec<Self> {
        // Else the port of the servers among themselves is 10,000 above the other: an outgoing connection may have that.
        let buses: Vec<String> = (0..3).map(|_| ports::free().port().to_string()).collect();
        let start = |bus: &String| Self::start_with(&["--cluster-enabled", "yes", "--cluster-port", bus]);
        let nodes: Vec<Self> = buses.iter().map(start).collect();
        for (index, node) in nodes.iter().enumerate() {
            let (from, to) = (index * SLOTS / nodes.len(), (index + 1) * SLOTS / nodes.len() - 1);
            node.command(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
            node.command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].address.port().to_string(), &buses[0]]);
        }
        wait::until("the servers to be a cluster", START, || {
            let whole = |node: &Self| {
                let info = node.command(&["CLUSTER", "INFO"]).text();
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            };
            nodes.iter().all(whole).then_some(())
        });
        nodes
    }

    /// A replica of this server.
    ///
    /// # Panics
    /// When it does not come up and in step.
    pub fn replica(&self) -> Self {
        let replica = Self::start_with(&["--replicaof", "127.0.0.1", &self.address.port().to_string()]);
        wait::until("the replica to be in step", START, || {
            replica.command(&["INFO", "replication"]).text().contains("master_link_status:up").then_some(())
        });
        replica
    }

    /// A Sentinel that watches this server under the name `mymaster` and by itself decides that it is down.
    ///
    /// # Panics
    /// When it does not come up and see the server's replicas.
    pub fn sentinel(&self, replicas: usize) -> Self {
        let port = self.address.port();
        let mut lines = vec![
            format!("sentinel monitor mymaster 127.0.0.1 {port} 1"),
            "sentinel down-after-milliseconds mymaster 500".to_owned(),
            "sentinel failover-timeout mymaster 3000".to_owned(),
        ];
        let password = self.arguments.iter().skip_while(|argument| *argument != "--requirepass").nth(1);
        lines.extend(password.map(|password| format!("sentinel auth-pass mymaster {password}")));
        let home = TempDir::new().expect("make a directory for the sentinel");
        let file = home.path().join("sentinel.conf");
        std::fs::write(&file, lines.join("\n")).expect("write the sentinel's configuration");
        let file = file.display().to_string();
        let address = ports::free();
        let arguments = vec![file, "--sentinel".to_owned(), "--port".to_owned(), address.port().to_string()];
        let child = spawn(&arguments, &home);
        let mut sentinel = Self { address, arguments, child, home };
        sentinel.await_answer();
        wait::until("the sentinel to know the replicas", START, || {
            let known = sentinel.command(&["SENTINEL", "MASTER", "mymaster"]).texts();
            let at = known.iter().position(|word| word == "num-slaves")?;
            (known.get(at + 1)?.parse() == Ok(replicas)).then_some(())
        });
        sentinel
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Sends a command on a connection of its own.
    ///
    /// # Panics
    /// When it does not answer, or with an error.
    pub fn command(&self, words: &[&str]) -> Reply {
        let reply = Client::connect(self.address).and_then(|mut client| client.command(words));
        reply.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Its clients that speak an older protocol than RESP3, as it lists them: not the one that asks, nor Sentinels, nor replicas.
    pub fn behind_resp3(&self) -> Vec<String> {
        let others =
            |client: &&str| !["cmd=client", "name=sentinel-", "flags=S"].iter().any(|part| client.contains(part));
        let list = self.command(&["CLIENT", "LIST"]).text();
        list.lines().filter(others).filter(|client| !client.contains("resp=3")).map(str::to_owned).collect()
    }

    /// Kills it; everything it held is lost.
    pub fn kill(&mut self) {
        processes::signal(self.child.id(), Signal::KILL);
        let _ = self.child.wait();
    }

    /// Starts it again, empty, where it was.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&mut self) {
        self.child = spawn(&self.arguments, &self.home);
        self.await_answer();
    }

    /// Stops it in its tracks: it takes connections and says nothing.
    pub fn pause(&self) {
        processes::signal(self.child.id(), Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        processes::signal(self.child.id(), Signal::CONT);
    }

    fn spawn(arguments: &[&str]) -> Self {
        let home = TempDir::new().expect("make a directory for redis");
        let address = ports::free();
        let mut all: Vec<String> = vec!["--port".to_owned(), address.port().to_string()];
        all.extend(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(str::to_owned));
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let child = spawn(&all, &home);
        Self { address, arguments: all, child, home }
    }

    fn await_answer(&mut self) {
        wait::until("redis to answer", START, || {
            let ended = self.child.try_wait().ok().flatten();
            assert!(ended.is_none(), "redis ended: {}", self.log());
            // One that wants a password answers as well.
            Client::connect(self.address)
                .ok()?
                .command(&["PING"])
                .map_or_else(|error| error.to_string().contains("NOAUTH").then_some(()), |_| Some(()))
        });
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("redis.log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(arguments: &[String], home: &TempDir) -> Child {
    let log = File::options().create(true).append(true).open(home.path().join("redis.log")).expect("open a log file");
    Command::new("redis-server")
        .args(arguments)
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect("run redis-server; `make test` installs it")
}
