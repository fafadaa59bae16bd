//! All pools of this process, and a thread's handle to them.

mod handle;
mod published;
mod reload;
mod thread;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::oneshot;
use troupe_contracts::report::{InstanceReport, Load, PoolReport};

use crate::config::PhpPoolConfig;
use crate::control::{Launch, Note, Plan, RenewError, Renewal, Renewed, upload_limits};
use crate::error::StartError;
use crate::metrics::FunctionSeries;
use crate::pool::{Condition, CrashLoop, Limits, Pool};
use crate::rundir;
use crate::spool::Spool;
use published::Published;
use thread::Control;

pub use handle::PhpPool;
pub use reload::Prepared;

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
    /// Set while its processes end before their first call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash_loop: Option<CrashLoop>,
    /// Processes that are always there.
    pub min: usize,
    /// Processes that may be there.
    pub max: usize,
    /// The functions it serves.
    pub functions: Vec<String>,
    /// How loaded it is.
    pub load: Load,
    /// Processor time that its PHP processes have used, in seconds.
    pub cpu_seconds: f64,
    /// Memory that they take, in bytes.
    pub resident_bytes: u64,
}

/// Every PHP pool of this process.
#[derive(Debug)]
pub struct PhpPools {
    published: Arc<Published>,
    options: Options,
    /// What they are made of.
    configs: Mutex<BTreeMap<String, PhpPoolConfig>>,
    /// Where the functions of each name's pool are counted: those of a pool that goes and comes back are the same.
    series: Mutex<BTreeMap<String, Arc<FunctionSeries>>>,
    /// Tells the directories of pools apart, those of one name included.
    next_tag: AtomicUsize,
    control: Mutex<Option<Control>>,
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
        let (mut plans, mut all_series) = (Vec::new(), BTreeMap::new());
        for (tag, (name, config)) in configs.iter().enumerate() {
            let series = Arc::new(FunctionSeries::new(name));
            plans.push(plan(name, config, options, tag, (None, Arc::clone(&series)))?);
            all_series.insert(name.clone(), series);
        }
        let pools = plans.iter().map(|plan| Arc::clone(&plan.pool)).collect();
        let published = Arc::new(Published::new(pools));
        let next_tag = AtomicUsize::new(plans.len());
        let control = Control::start(plans, Arc::clone(&published))?;
        let (configs, control) = (Mutex::new(configs.clone()), Mutex::new(Some(control)));
        let series = Mutex::new(all_series);
        Ok(Arc::new(Self { published, options, configs, series, next_tag, control }))
    }

    /// Waits until each pool has loaded its code or failed to; gives the names of those that failed, with the reason.
    pub async fn booted(&self) -> Vec<(String, String)> {
        let mut failed = Vec::new();
        for pool in self.published.list().iter() {
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
        self.published.list().iter().map(|pool| (pool.name.clone(), pool.functions.load().names())).collect()
    }

    /// The handle of the thread with the index `thread`, to be made on that thread, inside its runtime.
    pub fn on_thread(&self, thread: usize) -> Rc<PhpPool> {
        Rc::new(PhpPool::new(&self.published, thread))
    }

    /// How loaded the pools are.
    pub fn report(&self) -> InstanceReport {
        report(&self.published.list())
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
                crash_loop: pool.crash_loop.lock().clone(),
                min: pool.limits.min,
                max: pool.limits.max,
                functions: pool.functions.load().names(),
                load: pool.load(),
                cpu_seconds: pool.usage.cpu_seconds(),
                resident_bytes: pool.usage.resident(),
            }
        };
        self.published.list().iter().map(status).collect()
    }

    /// Replaces the processes of a pool, and its code if that is asked for, while calls go on. The future ends when new calls
    /// go to the new processes only; it holds nothing of the pools.
    pub fn renew(
        &self,
        pool: &str,
        what: Renewal,
    ) -> impl Future<Output = Result<Renewed, RenewError>> + Send + 'static + use<> {
        renew(self.published.find(pool), pool, what)
    }

    /// Says in every reply and report of a pool that it takes no new calls here, or that it does again; what came goes on.
    /// `false`: there is no such pool.
    pub fn hold(&self, pool: &str, held: bool) -> bool {
        let Some(pool) = self.published.find(pool) else { return false };
        pool.draining.store(held, Ordering::Relaxed);
        true
    }

    /// Says in every reply and report that this instance is about to stop. Calls are still answered.
    pub fn drain(&self) {
        for pool in self.published.list().iter() {
            pool.draining.store(true, Ordering::Relaxed);
        }
    }

    /// Ends every PHP process, at once, and removes what was written to disk.
    pub async fn stop(&self) {
        let Some(thread) = self.control.lock().take().map(Control::stop) else { return };
        let ended = tokio::task::spawn_blocking(move || thread.join());
        if !matches!(tokio::time::timeout(STOP_TIMEOUT, ended).await, Ok(Ok(Ok(())))) {
            tracing::error!("the php pools did not stop in time");
        }
    }
}

impl Drop for PhpPools {
    fn drop(&mut self) {
        // Without `stop`, the thread ends by itself and takes the processes with it.
        drop(self.control.lock().take().map(Control::stop));
    }
}

/// Checks what can be checked before anything runs, and makes the pool. `before`: the one whose place it is to take.
fn plan(
    name: &str,
    config: &PhpPoolConfig,
    options: Options,
    tag: usize,
    (before, series): (Option<&Pool>, Arc<FunctionSeries>),
) -> Result<Plan, StartError> {
    let (min, max) = (config.processes.min, config.processes.max);
    if min > max || max == 0 {
        return Err(StartError::Processes { pool: name.to_owned(), min, max });
    }
    let launch = Launch::new(name, config, options.development)?;
    let gauge = metrics::gauge!("troupe_php_spooled_bytes", "pool" => name.to_owned());
    let (uploads, quota) = (upload_limits(config), config.spool_quota.bytes());
    let dir = format!("{tag}-spool");
    let spool = Spool::create((name, &dir), &config.spool_dir, launch.owner, quota, uploads, gauge)
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
    let pool = Pool::new(name.to_owned(), limits, options.threads, spool, series);
    if let Some(before) = before {
        // What is known of the functions' pace goes on.
        pool.functions.store(before.functions.load_full());
        pool.be_silent(true);
    }
    Ok(Plan { pool: Arc::new(pool), launch, config: config.clone(), tag: tag.to_string() })
}

fn system(pool: &str, what: &'static str, error: std::io::Error) -> StartError {
    StartError::System { pool: pool.to_owned(), what, error }
}

fn report(pools: &[Arc<Pool>]) -> InstanceReport {
    InstanceReport {
        pools: pools.iter().map(|pool| PoolReport { pool: pool.name.clone(), load: pool.load() }).collect(),
    }
}

fn renew(
    found: Option<Arc<Pool>>,
    name: &str,
    what: Renewal,
) -> impl Future<Output = Result<Renewed, RenewError>> + Send + 'static + use<> {
    let (done, end) = oneshot::channel();
    let missing = found.is_none().then(|| RenewError::NoPool(name.to_owned()));
    if let Some(pool) = found {
        pool.tell(Note::Renew { what, done });
    }
    async move {
        match missing {
            Some(missing) => Err(missing),
            // Dropped unanswered: its actor is gone.
            None => end.await.unwrap_or(Err(RenewError::Lost)),
        }
    }
}
