//! How the balancer is put together: the supervisor on the thread that starts it, a relay on each thread that calls it.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use troupe_contracts::invoke::Invoke;
use troupe_contracts::report::Report;
use troupe_mesh::port::{Port, Service};
use troupe_mesh::supervise::{Handle, SendError};
use troupe_node::config::QueueConfig;

use crate::config::BalancerConfig;
use crate::directory::{Directory, TooManyPools};
use crate::instances::{InstanceId, Instances};
use crate::ranking::{self, Snapshot};
use crate::relay::Relay;
use crate::supervisor::{self, Held, Retuned, Supervisor};
use crate::thread::ThreadPools;

/// The balancer of this process. Dropping it ends the supervisor; calls in flight go on.
pub struct Balancer {
    directory: Arc<Directory>,
    supervisor: Handle<Supervisor>,
    threads: usize,
    absent_wait: Duration,
}

impl Balancer {
    /// Starts the balancer; its supervisor lives on the calling thread, which must run an actix event loop.
    ///
    /// `queues` are the pools of the configuration; a pool that only an instance knows gets a default queue. `threads`
    /// is how many threads will call [`Balancer::on_thread`]. While a pool has no worker at all a call waits
    /// `absent_wait` for one at most, and no longer than its queue lets it. `reports` makes ports to instances, on this
    /// thread.
    pub fn start(
        config: &BalancerConfig,
        queues: &BTreeMap<String, QueueConfig>,
        threads: usize,
        absent_wait: Duration,
        instances: Instances,
        reports: impl Fn(&InstanceId) -> Port<Report> + 'static,
    ) -> Arc<Self> {
        let directory = Arc::new(Directory::new(config, queues, threads));
        let supervisor = supervisor::start(Arc::clone(&directory), instances, Rc::new(reports));
        Arc::new(Self { directory, supervisor, threads, absent_wait })
    }

    /// The balancer as the calling thread sees it: answers `Invoke` by relaying it to a worker.
    ///
    /// `index` is the thread's, below `threads`; it decides which part of the queue is near. `ports` makes this
    /// thread's port to an instance; it is called once per instance while that is listed.
    pub fn on_thread(
        &self,
        index: usize,
        ports: impl Fn(&InstanceId) -> Port<Invoke> + 'static,
    ) -> Rc<dyn Service<Invoke>> {
        let pools = Arc::clone(&self.directory.pools);
        let shard = index % self.threads.max(1);
        Rc::new(Relay::new(ThreadPools::new(pools, shard, self.absent_wait, Box::new(ports))))
    }

    /// All pools and workers with what makes up their scores, for people.
    pub fn snapshot(&self) -> Snapshot {
        let pools = self.directory.pools.load();
        let mut pools: Vec<_> = pools.values().map(|pool| ranking::pool_snapshot(pool)).collect();
        pools.sort_by(|one, other| one.pool.cmp(&other.pool));
        Snapshot { pools }
    }

    /// Lets no new call to a worker (`held`), or lets calls to it again; calls that are with it go on. Every balancer decides
    /// that for itself. `false`: there is no such worker.
    ///
    /// # Errors
    /// When the supervisor does not answer.
    pub async fn hold(&self, instance: &InstanceId, pool: &str, held: bool) -> Result<bool, SendError> {
        self.supervisor.send(Held { instance: instance.clone(), pool: pool.to_owned(), held }).await
    }

    /// Takes another configuration while calls go on. Pools that `queues` no longer names go once they have no worker; calls
    /// that wait do so as they were told to.
    ///
    /// # Errors
    /// When there would be too many pools; all stays as it was.
    pub fn retune(&self, config: &BalancerConfig, queues: &BTreeMap<String, QueueConfig>) -> Result<(), TooManyPools> {
        self.directory.configure(queues)?;
        self.directory.tuning.set(config);
        self.look();
        Ok(())
    }

    /// Asks every worker for its load now: pools may have come, gone or changed.
    pub fn look(&self) {
        if let Err(error) = self.supervisor.try_send(Retuned) {
            tracing::debug!(%error, "the supervisor looks when it is time to");
        }
    }

    /// Calls with workers now, and calls that wait: a drain is over when both are 0.
    pub fn busy(&self) -> (u32, u32) {
        let pools = self.directory.pools.load();
        let in_flight = pools.values().map(|pool| pool.in_flight()).sum();
        let waiting = pools.values().map(|pool| pool.queue.waiting()).sum();
        (in_flight, waiting)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.supervisor.stop();
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Balancer").field("threads", &self.threads).finish_non_exhaustive()
    }
}
