//! All pools of this process, and a thread's handle to them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use actix::Actor as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use troupe_contracts::invoke::Invoke;
use troupe_contracts::report::{InstanceReport, PoolReport, Report};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Stage};
use troupe_mesh::port::{CallFuture, Service};

use crate::call;
use crate::config::PhpPoolConfig;
use crate::control::{Launch, Note, PoolActor, upload_limits};
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
        let mut actors = Vec::new();
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
            actors.push(PoolActor::new(Arc::clone(&pool), launch, config, index.to_string()));
            pools.push(pool);
        }
        let control = control(pools.clone(), actors)?;
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
fn control(pools: Vec<Arc<Pool>>, actors: Vec<PoolActor>) -> Result<Control, StartError> {
    let (stop, stopped) = oneshot::channel();
    let (started, start) = std::sync::mpsc::channel();
    let run = move || {
        let system = actix_rt::System::new();
        system.block_on(async move {
            let actors: Vec<_> = actors.into_iter().map(PoolActor::start).collect();
            for (pool, actor) in pools.iter().zip(&actors) {
                // Set once, here.
                let _ = pool.control.set(actor.clone());
            }
            let _ = started.send(());
            let _ = stopped.await;
            let mut ends = Vec::new();
            for actor in &actors {
                let (done, end) = oneshot::channel();
                actor.do_send(Note::Stop { done });
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

/// The pools, for one thread: answers [`Invoke`] and [`Report`].
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
