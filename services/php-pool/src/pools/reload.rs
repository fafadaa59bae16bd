//! Another configuration of the pools: each that differs is started beside the one that serves, verified, and put in its place
//! whole. So whatever a key does, it is either in force for every new call or for none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::thread::Ask;
use super::{PhpPools, plan};
use crate::config::PhpPoolConfig;
use crate::error::ReloadError;
use crate::metrics::FunctionSeries;
use crate::pool::{Condition, Pool};

/// Pools of earlier configurations that may still finish their calls, each with its processes, when another one is taken.
const MOST_PARTING: usize = 16;
/// How often it is looked whether the processes of a new pool are up.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Functions that are named when they cannot be loaded.
const NAMED: usize = 5;

/// Pools that are up and wait to be put in their place. When it is dropped instead, they end.
#[derive(Debug)]
pub struct Prepared {
    configs: BTreeMap<String, PhpPoolConfig>,
    pools: Vec<Arc<Pool>>,
    asks: mpsc::Sender<Ask>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for pool in self.pools.drain(..) {
            let _ = self.asks.try_send(Ask::Part { pool });
        }
    }
}

impl PhpPools {
    /// Starts what of `configs` differs from what serves, and verifies it: the code loads, nothing that works now is broken in
    /// it, and `processes.min` processes come up. No call goes there yet. Where the queue alone differs, nothing does; a pool
    /// whose actor was given up is started anew in any case.
    ///
    /// # Errors
    /// For the first pool that cannot serve; nothing has changed.
    pub async fn prepare(&self, configs: &BTreeMap<String, PhpPoolConfig>) -> Result<Prepared, ReloadError> {
        let (asks, parting) = match &*self.control.lock() {
            Some(control) => (control.asks(), control.parting()),
            None => return Err(ReloadError::Stopping),
        };
        let now = self.configs.lock().clone();
        // Of one whose actor was given up nothing comes any more: another one takes its place, configured as it may be.
        let lost = |name: &String| self.published.find(name).is_some_and(|pool| pool.is_lost());
        let differs =
            |name: &String, config: &PhpPoolConfig| now.get(name).is_none_or(|old| !same(old, config)) || lost(name);
        let differing: Vec<_> = configs.iter().filter(|(name, config)| differs(name, config)).collect();
        if parting > MOST_PARTING && !differing.is_empty() {
            return Err(ReloadError::Busy { parting });
        }
        let mut prepared = Prepared { configs: configs.clone(), pools: Vec::new(), asks: asks.clone() };
        for (name, config) in differing {
            let before = self.published.find(name);
            let tag = self.next_tag.fetch_add(1, Ordering::Relaxed);
            let plan = {
                let (name, config, options, before) = (name.clone(), config.clone(), self.options, before.clone());
                let series = Arc::clone(
                    self.series.lock().entry(name.clone()).or_insert_with(|| Arc::new(FunctionSeries::new(&name))),
                );
                let plan = move || plan(&name, &config, options, tag, (before.as_deref(), series));
                // It asks the PHP binary what it is, and waits for the answer.
                tokio::task::spawn_blocking(plan).await.map_err(|_| ReloadError::Stopping)??
            };
            let pool = Arc::clone(&plan.pool);
            let (started, start) = oneshot::channel();
            asks.send(Ask::Start { plan: Box::new(plan), started }).await.map_err(|_| ReloadError::Stopping)?;
            prepared.pools.push(Arc::clone(&pool));
            start.await.map_err(|_| ReloadError::Stopping)?;
            verify(&pool, before.as_deref(), config.boot_timeout.get()).await?;
        }
        Ok(prepared)
    }

    /// Puts what was prepared in its place: calls from now on go there, those that are under way end where they are. What is
    /// no longer configured goes on, until [`PhpPools::retire`].
    pub fn commit(&self, mut prepared: Prepared) {
        let new = std::mem::take(&mut prepared.pools);
        *self.configs.lock() = std::mem::take(&mut prepared.configs);
        let before = self.published.list();
        for pool in &new {
            if let Some(old) = before.iter().find(|old| old.name == pool.name) {
                pool.succeed(old);
            }
        }
        self.published.change(|pools| {
            let kept = pools.iter().filter(|old| new.iter().all(|pool| pool.name != old.name));
            let mut now: Vec<Arc<Pool>> = kept.chain(&new).cloned().collect();
            now.sort_by(|one, other| one.name.cmp(&other.name));
            now
        });
        for old in before.iter().filter(|old| new.iter().any(|pool| pool.name == old.name)) {
            tracing::info!(pool = %old.name, "the pool is as configured anew; earlier calls end with the processes before");
            self.part(old);
        }
    }

    /// Lets the pools go that are no longer configured, once their calls are done. `announced`: callers elsewhere are told by
    /// reports and replies that no new call is taken.
    pub fn retire(&self, announced: bool) {
        let configs = self.configs.lock().clone();
        for pool in self.published.list().iter().filter(|pool| !configs.contains_key(&pool.name)) {
            if pool.retired.swap(true, Ordering::Relaxed) {
                continue;
            }
            if announced {
                pool.draining.store(true, Ordering::Relaxed);
            }
            tracing::info!(pool = %pool.name, "the pool is no longer configured; it finishes the calls it has");
            self.part(pool);
        }
    }

    fn part(&self, pool: &Arc<Pool>) {
        if let Some(control) = &*self.control.lock()
            && control.asks().try_send(Ask::Part { pool: Arc::clone(pool) }).is_err()
        {
            tracing::warn!(pool = %pool.name, "the control thread has fallen far behind: earlier processes stay");
        }
    }
}

/// Whether php-pool does the same by both: the bounds of the queue are the balancer's.
fn same(one: &PhpPoolConfig, other: &PhpPoolConfig) -> bool {
    let other = PhpPoolConfig { queue: one.queue, ..other.clone() };
    *one == other
}

/// Waits until the pool can serve as well as the one before.
async fn verify(pool: &Pool, before: Option<&Pool>, patience: Duration) -> Result<(), ReloadError> {
    let broken = |why: String| ReloadError::Broken { pool: pool.name.clone(), why };
    let mut condition = pool.condition.subscribe();
    let known = match condition.wait_for(|condition| *condition != Condition::Booting).await {
        Ok(condition) => condition.clone(),
        Err(_) => return Err(ReloadError::Stopping),
    };
    if let Condition::Down(why) = known {
        return Err(broken(why.into()));
    }
    let functions = pool.functions.load_full();
    if let Some(before) = before {
        let worked = before.functions.load_full().names();
        let why: Vec<&str> = worked.iter().filter_map(|name| functions.why_broken(name)).take(NAMED).collect();
        if !why.is_empty() {
            return Err(broken(why.join("; ")));
        }
        if functions.names().is_empty() && !worked.is_empty() {
            return Err(broken("there is no function in it".to_owned()));
        }
    }
    let until = Instant::now() + patience;
    while (pool.processes.load(Ordering::Relaxed) as usize) < pool.limits.min {
        if Instant::now() >= until {
            return Err(broken(format!("not {} processes came up within {patience:?}", pool.limits.min)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use troupe_mesh::supervise::{self, State};

    use super::*;
    use crate::Options;
    use crate::control::failing::Fail;

    #[test]
    fn a_pool_whose_actor_was_given_up_is_replaced_by_a_reload_and_no_reason_to_be_unready_any_more() {
        const NAME: &str = "given up and replaced";
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("hello.php"), "<?php return fn() => 'hello';").unwrap();
        let config = PhpPoolConfig { root: root.path().to_owned(), ..PhpPoolConfig::default() };
        let configs = BTreeMap::from([(NAME.to_owned(), config)]);
        let told = || supervise::given_up().borrow().iter().any(|lost| lost.escalation.subject == NAME);
        actix_rt::System::new().block_on(async {
            let pools = PhpPools::start(&configs, Options { threads: 1, development: false }).unwrap();
            assert_eq!(pools.booted().await, Vec::new());
            let before = pools.published.find(NAME).unwrap();
            let actor = before.control.get().unwrap().clone();
            while actor.state() != State::Escalated {
                // Refused while it is made anew.
                let _ = actor.send(Fail).await;
            }
            assert!(told() && before.is_lost());

            // The same configuration: that is no reason to leave what is lost in its place.
            let prepared = pools.prepare(&configs).await.unwrap();
            assert!(told(), "the new one does not serve yet");
            pools.commit(prepared);
            let end = Instant::now() + Duration::from_secs(30);
            while told() && Instant::now() < end {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            assert!(!told(), "nothing depends on it any more");
            let now = pools.published.find(NAME).unwrap();
            assert!(!now.is_lost() && *now.condition.borrow() == Condition::Up);
            pools.stop().await;
        });
    }
}
