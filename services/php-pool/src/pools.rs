//! All pools of this process, and a thread's handle to them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;
use troupe_contracts::invoke::Invoke;
use troupe_contracts::operate::{Action, Operate, Operated};
use troupe_contracts::report::{InstanceReport, Load, PoolReport, Report};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Stage};
use troupe_mesh::port::{CallFuture, Service};

use crate::call;
use crate::config::PhpPoolConfig;
use crate::control::{self, Launch, Note, Plan, RenewError, Renewal, Renewed, upload_limits};
use crate::error::StartError;
use crate::local::Local;
use crate::pool::{Condition, Limits, Pool};
use crate::rundir;
use crate::spool::Spool;

/// How long the end of a pool may take, once its processes are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How pools are started.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads that will take calls; each gets its handle by [`PhpPools::on_thread`].
    pub threads: usize,
    /// Whether clients may read the details of errors.
    pub development: bool,
}

/// What a pool is doing, for people.
#[derive(Debug, Clone, Serialize)]
pub struct PoolStatus {
    /// Its name.
    pub pool: String,
    /// `booting`, `up` or `down`.
    pub condition: &'static str,
    /// Why it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Processes that are always there.
    pub min: usize,
    /// Processes that may be there.
    pub max: usize,
    /// The functions it serves.
    pub functions: Vec<String>,
    /// How loaded it is.
    pub load: Load,
}

/// Every PHP pool of this process.
#[derive(Debug)]
pub struct PhpPools {
    pools: Vec<Arc<Pool>>,
    control: Mutex<Option<Control>>,
}

#[derive(Debug)]
struct Control {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl PhpPools {
    /// Starts the pools: checks what can be checked at once, then boots them in a thread of their own.
    ///
    /// # Errors
    /// When a pool cannot work on this machine: no such directory, PHP binary or user. Code that does not load is none:
    /// the pool answers 503 and tries again.
    pub fn start(configs: &BTreeMap<String, PhpPoolConfig>, options: Options) -> Result<Arc<Self>, StartError> {
        let spool_dirs: Vec<_> = configs.values().map(|config| config.spool_dir.clone()).collect();
        rundir::remove_stale(&spool_dirs);
        let mut pools = Vec::new();
        let mut plans = Vec::new();
        for (index, (name, config)) in configs.iter().enumerate() {
            let (min, max) = (config.processes.min, config.processes.max);
            if min > max || max == 0 {
                return Err(StartError::Processes { pool: name.clone(), min, max });
            }
            let launch = Launch::new(name, config, options.development)?;
            let gauge = metrics::gauge!("troupe_php_spooled_bytes", "pool" => name.clone());
            let (uploads, quota) = (upload_limits(config), config.spool_quota.bytes());
            let tag = format!("{index}-spool");
            let spool = Spool::create((name, &tag), &config.spool_dir, launch.owner, quota, uploads, gauge)
                .map_err(|error| system(name, "make the directory for request bodies", error))?;
            let limits = Limits {
                min: usize::from(min),
                max: usize::from(max),
                timeout: config.timeout.get(),
                max_streams: config.max_streams.of(u64::from(max)).max(1) as usize,
                max_requests: config.max_requests.max(1),
                isolation: config.isolation,
                development: options.development,
            };
            let pool = Arc::new(Pool::new(name.clone(), limits, options.threads, spool));
            plans.push(Plan { pool: Arc::clone(&pool), launch, config: config.clone(), tag: index.to_string() });
            pools.push(pool);
        }
        let control = control(pools.clone(), plans)?;
        Ok(Arc::new(Self { pools, control: Mutex::new(Some(control)) }))
    }

    /// Waits until each pool has loaded its code or failed to; gives the names of those that failed, with the reason.
    pub async fn booted(&self) -> Vec<(String, String)> {
        let mut failed = Vec::new();
        for pool in &self.pools {
            let mut condition = pool.condition.subscribe();
            // The sender lives as long as the pool.
            if let Ok(condition) = condition.wait_for(|condition| *condition != Condition::Booting).await
                && let Condition::Down(reason) = &*condition
            {
                failed.push((pool.name.clone(), reason.to_string()));
            }
        }
        failed
    }

    /// The functions of each pool, by pool; what is loaded now.
    pub fn functions(&self) -> BTreeMap<String, Vec<String>> {
        self.pools.iter().map(|pool| (pool.name.clone(), pool.functions.load().names())).collect()
    }

    /// The handle of the thread with the index `thread`, to be made on that thread, inside its runtime.
    pub fn on_thread(&self, thread: usize) -> Rc<PhpPool> {
        let pools = self.pools.iter().map(|pool| Local::new(Arc::clone(pool), thread)).collect();
        Rc::new(PhpPool { pools })
    }

    /// How loaded the pools are.
    pub fn report(&self) -> InstanceReport {
        report(self.pools.iter().map(|pool| &**pool))
    }

    /// What each pool is doing.
    pub fn status(&self) -> Vec<PoolStatus> {
        let status = |pool: &Arc<Pool>| {
            let condition = pool.condition.borrow().clone();
            PoolStatus {
                pool: pool.name.clone(),
                condition: match &condition {
                    Condition::Booting => "booting",
                    Condition::Up => "up",
                    Condition::Down(_) => "down",
                },
                reason: match condition {
                    Condition::Down(reason) => Some(reason.into()),
                    Condition::Booting | Condition::Up => None,
                },
                min: pool.limits.min,
                max: pool.limits.max,
                functions: pool.functions.load().names(),
                load: pool.load(),
            }
        };
        self.pools.iter().map(status).collect()
    }

    /// Replaces the processes of a pool, and its code if that is asked for, while calls go on. The future ends when new calls
    /// go to the new processes only; it holds nothing of the pools.
    pub fn renew(
        &self,
        pool: &str,
        what: Renewal,
    ) -> impl Future<Output = Result<Renewed, RenewError>> + Send + 'static + use<> {
        renew(self.pools.iter().map(|pool| &**pool).find(|one| one.name == pool), pool, what)
    }

    /// Says in every reply and report of a pool that it takes no new calls here, or that it does again; what came goes on.
    /// `false`: there is no such pool.
    pub fn hold(&self, pool: &str, held: bool) -> bool {
        let Some(pool) = self.pools.iter().find(|one| one.name == pool) else { return false };
        pool.draining.store(held, Ordering::Relaxed);
        true
    }

    /// Says in every reply and report that this instance is about to stop. Calls are still answered.
    pub fn drain(&self) {
        for pool in &self.pools {
            pool.draining.store(true, Ordering::Relaxed);
        }
    }

    /// Ends every PHP process, at once, and removes what was written to disk.
    pub async fn stop(&self) {
        let Some(Control { stop, thread }) = self.control.lock().take() else { return };
        let _ = stop.send(());
        let ended = tokio::task::spawn_blocking(move || thread.join());
        if !matches!(tokio::time::timeout(STOP_TIMEOUT, ended).await, Ok(Ok(Ok(())))) {
            tracing::error!("the php pools did not stop in time");
        }
    }
}

impl Drop for PhpPools {
    fn drop(&mut self) {
        // Without `stop`, the thread ends by itself and takes the processes with it.
        if let Some(Control { stop, .. }) = self.control.lock().take() {
            let _ = stop.send(());
        }
    }
}

/// The thread on which the pools' actors live: what they do may block for some milliseconds, which no call should wait for.
fn control(pools: Vec<Arc<Pool>>, plans: Vec<Plan>) -> Result<Control, StartError> {
    let (stop, stopped) = oneshot::channel();
    let (started, start) = std::sync::mpsc::channel();
    let run = move || {
        let system = actix_rt::System::new();
        system.block_on(async move {
            plans.into_iter().for_each(control::start);
            let _ = started.send(());
            let _ = stopped.await;
            let mut ends = Vec::new();
            for pool in &pools {
                let (done, end) = oneshot::channel();
                pool.tell(Note::Stop { done });
                ends.push(end);
            }
            for end in ends {
                let _ = tokio::time::timeout(STOP_TIMEOUT, end).await;
            }
        });
    };
    let thread = std::thread::Builder::new()
        .name("php-control".to_owned())
        .spawn(run)
        .map_err(|error| system("all", "start the control thread", error))?;
    // Nothing may be asked of a pool whose actor is not there yet.
    start.recv().map_err(|_| system("all", "start the pools' actors", std::io::ErrorKind::BrokenPipe.into()))?;
    Ok(Control { stop, thread })
}

fn system(pool: &str, what: &'static str, error: std::io::Error) -> StartError {
    StartError::System { pool: pool.to_owned(), what, error }
}

fn report<'a>(pools: impl Iterator<Item = &'a Pool>) -> InstanceReport {
    InstanceReport { pools: pools.map(|pool| PoolReport { pool: pool.name.clone(), load: pool.load() }).collect() }
}

fn renew(
    found: Option<&Pool>,
    name: &str,
    what: Renewal,
) -> impl Future<Output = Result<Renewed, RenewError>> + Send + 'static + use<> {
    let (done, end) = oneshot::channel();
    if let Some(pool) = found {
        pool.tell(Note::Renew { what, done });
    }
    let missing = found.is_none().then(|| RenewError::NoPool(name.to_owned()));
    async move {
        match missing {
            Some(missing) => Err(missing),
            // Dropped unanswered: its actor is gone.
            None => end.await.unwrap_or(Err(RenewError::Lost)),
        }
    }
}

/// The pools, for one thread: answers [`Invoke`], [`Report`] and [`Operate`].
#[derive(Debug)]
pub struct PhpPool {
    /// An instance has a handful of pools: looking at each is faster than hashing the name.
    pools: Vec<Rc<Local>>,
}

impl Service<Invoke> for PhpPool {
    fn call(&self, envelope: Envelope<Invoke>) -> CallFuture<Invoke> {
        let pool = &envelope.call.pool;
        match self.pools.iter().find(|local| *local.pool.name == **pool) {
            Some(local) => Box::pin(call::invoke(Rc::clone(local), envelope)),
            None => {
                let failure = Failure::refused(Stage::PhpPool, 404, "there is no such pool");
                Box::pin(std::future::ready(Err(failure)))
            }
        }
    }
}

impl Service<Report> for PhpPool {
    fn call(&self, _: Envelope<Report>) -> CallFuture<Report> {
        Box::pin(std::future::ready(Ok(report(self.pools.iter().map(|local| &*local.pool)))))
    }
}

impl Service<Operate> for PhpPool {
    fn call(&self, envelope: Envelope<Operate>) -> CallFuture<Operate> {
        let Operate { pool, action } = envelope.call;
        let what = match action {
            Action::Restart => Renewal::Processes,
            Action::Reload => Renewal::Code,
        };
        let renewed = renew(self.pools.iter().map(|local| &*local.pool).find(|one| one.name == pool), &pool, what);
        Box::pin(async move { Ok(operated(renewed.await)) })
    }
}

fn operated(result: Result<Renewed, RenewError>) -> Operated {
    match result {
        Ok(Renewed { replaced, functions }) => {
            let functions = u32::try_from(functions).unwrap_or(u32::MAX);
            Operated { done: true, reason: String::new(), replaced, functions }
        }
        Err(error) => Operated { done: false, reason: error.to_string(), replaced: 0, functions: 0 },
    }
}
