//! Pools of real PHP processes in a test, with functions written for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;
use troupe_contracts::invoke::{Invoke, InvokeFlags, Reply};
use troupe_contracts::report::Load;
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::Failure;
use troupe_mesh::port::Service as _;
use troupe_php_pool::config::PhpPoolConfig;
use troupe_php_pool::{Options, PhpPool, PhpPools};
use troupe_wire::head::{RequestHeadBuilder, RequestParts, Scheme, Version};

/// Longer than anything here takes, shorter than a test run that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const HELLO: (&str, &str) = ("hello", "fn() => ['message' => 'hello', 'name' => $_GET['name'] ?? 'world']");
pub(crate) const PID: (&str, &str) = ("pid", "fn() => (string) getmypid()");

/// One pool, `default`, over a directory of its own.
pub(crate) struct Stage {
    pub(crate) pools: Arc<PhpPools>,
    pub(crate) root: TempDir,
}

impl Stage {
    /// Starts the pool with these functions; it is loaded when this returns.
    pub(crate) async fn start(functions: &[(&str, &str)], configure: impl FnOnce(&mut PhpPoolConfig)) -> Self {
        let stage = Self::start_unready(functions, configure);
        let failed = stage.pools.booted().await;
        assert!(failed.is_empty(), "{failed:?}");
        stage
    }

    /// As [`Stage::start`], without a look at whether the code loads.
    pub(crate) fn start_unready(functions: &[(&str, &str)], configure: impl FnOnce(&mut PhpPoolConfig)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let stage_root = root.path().to_owned();
        write(&stage_root, functions);
        let mut config = PhpPoolConfig { root: stage_root, ..PhpPoolConfig::default() };
        configure(&mut config);
        let configs = BTreeMap::from([("default".to_owned(), config)]);
        let pools = PhpPools::start(&configs, Options { threads: 2, development: false }).unwrap();
        Self { pools, root }
    }

    pub(crate) fn handle(&self) -> Rc<PhpPool> {
        self.pools.on_thread(0)
    }

    pub(crate) fn load(&self) -> Load {
        self.pools.report().pools[0].load
    }

    /// Calls `function` until it counts as fast. On a busy machine some calls take long because others run.
    pub(crate) async fn warm(&self, pool: &Rc<PhpPool>, function: &str) {
        let end = Instant::now() + PATIENCE;
        while self.load().prefetch == 0 {
            get(pool, function).await.unwrap();
            assert!(Instant::now() < end, "it does not become fast");
        }
    }

    /// Waits until the load is as it should be.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Load) -> bool) -> Load {
        let end = Instant::now() + PATIENCE;
        loop {
            let load = self.load();
            if wanted(&load) {
                return load;
            }
            assert!(Instant::now() < end, "{what}: {load:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn write(root: &std::path::Path, functions: &[(&str, &str)]) {
    for (name, code) in functions {
        let path: PathBuf = root.join(format!("{name}.php"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("<?php\nreturn {code};\n")).unwrap();
    }
}

pub(crate) fn signal(pid: &str, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A request of `function`.
pub(crate) fn invoke(function: &str, method: &str, target: &str, fields: &[(&str, &str)], body: Body) -> Invoke {
    let mut builder = RequestHeadBuilder::default();
    for (name, value) in fields {
        builder.field(name, value.as_bytes()).unwrap();
    }
    let parts = RequestParts {
        version: Version::Http11,
        scheme: Scheme::Http,
        method,
        target,
        authority: "example.test",
        remote_addr: "192.0.2.1",
        remote_port: "4711",
        local_addr: "127.0.0.1",
        local_port: "8080",
    };
    let head = builder.finish(&parts).unwrap();
    let path_info = head.path().len() as u16;
    Invoke {
        pool: "default".into(),
        route: "/{function*}".into(),
        function: function.to_owned().into(),
        flags: InvokeFlags::default(),
        path_info,
        queued: Duration::ZERO,
        head,
        body,
    }
}

pub(crate) async fn send(pool: &Rc<PhpPool>, call: Invoke) -> Result<Reply, Failure> {
    pool.call(Envelope::new(call, Deadline::after(PATIENCE))).await
}

/// GETs a function.
pub(crate) async fn get(pool: &Rc<PhpPool>, function: &str) -> Result<Reply, Failure> {
    let target = format!("/{function}");
    send(pool, invoke(function.split('?').next().unwrap(), "GET", &target, &[("x-request-id", "r1")], Body::Empty))
        .await
}

/// The whole body of a reply, as text.
pub(crate) async fn text(mut body: Body) -> String {
    let mut all = Vec::new();
    while let Some(piece) = body.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    String::from_utf8(all).unwrap()
}

pub(crate) async fn get_text(pool: &Rc<PhpPool>, function: &str) -> String {
    text(get(pool, function).await.unwrap().body).await
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Body::full(text.into())
}

/// Runs a test on a thread's runtime, as data threads have it.
pub(crate) fn on_runtime<F: Future<Output = ()>>(test: F) {
    if std::env::var_os("TEST_LOG").is_some() {
        let _ = tracing_subscriber::fmt().with_env_filter("debug").with_writer(std::io::stderr).try_init();
    }
    actix_rt::System::new().block_on(async {
        tokio::time::timeout(PATIENCE * 4, test).await.unwrap();
    });
}

/// Runs a future on a thread of its own, with a runtime of its own.
pub(crate) fn on_thread<T, F>(run: impl FnOnce() -> F + Send + 'static) -> std::thread::JoinHandle<T>
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    std::thread::spawn(|| {
        actix_rt::System::new().block_on(async { tokio::time::timeout(PATIENCE, run()).await.unwrap() })
    })
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Whether a process is there and no zombie.
pub(crate) fn lives(pid: &str) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')),
        Err(_) => false,
    }
}

/// Waits until something is as it should be.
pub(crate) async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
