//! How a pool's actor is started, and made anew when it fails.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use troupe_mesh::supervise::{self, Spec};

use super::PoolActor;
use super::launch::Launch;
use crate::config::PhpPoolConfig;
use crate::pool::{Condition, Pool};

/// Notes that may wait: a pool of a thousand processes that all end at once tells a handful of each.
const INBOX: usize = 8_192;
/// What callers are told once the actor is given up.
const GIVEN_UP: &str = "its actor failed too often; see the log, and restart php-pool";

/// What a pool's actor is made of, now and after each failure.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) pool: Arc<Pool>,
    pub(crate) launch: Launch,
    pub(crate) config: PhpPoolConfig,
    /// Tells the run directories of this pool from those of others in this process.
    pub(crate) tag: String,
}

/// Starts the actor of a pool on this thread, supervised. One that fails takes its processes with it; the next loads the
/// code anew while calls wait. One that fails too often leaves the pool down.
pub(crate) fn start(plan: Plan) {
    let pool = Arc::clone(&plan.pool);
    let given_up = Arc::clone(&pool);
    let spec = Spec {
        subject: pool.name.clone(),
        inbox: INBOX,
        on_escalate: Some(Rc::new(move |_| {
            given_up.condition.send_replace(Condition::Down(GIVEN_UP.into()));
        })),
        ..Spec::new("php-pool")
    };
    let numbers = Rc::<Numbers>::default();
    let actor = supervise::start(spec, move || PoolActor::new(&plan, Rc::clone(&numbers)));
    // Set once, here, and before the actor's first turn.
    let _ = pool.control.set(actor);
}

/// Numbers that are never given twice, whatever becomes of the actor: what is told late of an earlier life must not be taken
/// for news of this one.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    generation: Cell<u64>,
    process: Cell<u32>,
}

impl Numbers {
    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.set(self.generation.get() + 1);
        self.generation.get()
    }

    pub(crate) fn next_process(&self) -> u32 {
        self.process.replace(self.process.get().wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use troupe_mesh::supervise::State;

    use super::*;
    use crate::control::failing::Fail;
    use crate::control::upload_limits;
    use crate::metrics::FunctionSeries;
    use crate::pool::Limits;
    use crate::spool::Spool;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn with_pool(test: impl AsyncFnOnce(&Arc<Pool>)) {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("hello.php"), "<?php return fn() => 'hello';").unwrap();
        let config = PhpPoolConfig { root: root.path().to_owned(), ..PhpPoolConfig::default() };
        actix_rt::System::new().block_on(async {
            let launch = Launch::new("supervised", &config, false).unwrap();
            let limits = Limits {
                min: 2,
                max: 4,
                timeout: config.timeout.get(),
                max_streams: 1,
                max_requests: config.max_requests,
                isolation: config.isolation,
                development: false,
            };
            let gauge = metrics::gauge!("troupe_php_spooled_bytes", "pool" => "supervised");
            let tag = format!("{}-spool", root.path().file_name().unwrap().to_string_lossy());
            let spool =
                Spool::create(("supervised", &tag), &config.spool_dir, launch.owner, 1, upload_limits(&config), gauge)
                    .unwrap();
            let series = Arc::new(FunctionSeries::new("supervised"));
            let pool = Arc::new(Pool::new("supervised".to_owned(), limits, 1, spool, series));
            let tag = tag.replace("spool", "run");
            start(Plan { pool: Arc::clone(&pool), launch, config: config.clone(), tag });
            until("the pool is up", || *pool.condition.borrow() == Condition::Up && pool.lanes.idle() == 2).await;
            test(&pool).await;
        });
    }

    async fn until(what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process id of an idle process.
    fn a_pid(pool: &Pool) -> i32 {
        let process = pool.lanes.remove_any().unwrap();
        let pid = process.info.pid();
        pool.lanes.put(0, process);
        pid
    }

    fn runs(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn an_actor_that_fails_takes_its_processes_with_it_and_the_next_starts_others() {
        with_pool(async |pool| {
            let before = a_pid(pool);
            assert!(runs(before));
            pool.control.get().unwrap().try_send(Fail).unwrap();
            until("the old process is gone", || !runs(before)).await;
            until("the pool is up again", || *pool.condition.borrow() == Condition::Up && pool.lanes.idle() == 2).await;
            assert_ne!(a_pid(pool), before);
        });
    }

    #[test]
    fn an_actor_that_fails_too_often_is_given_up_and_the_pool_says_so() {
        with_pool(async |pool| {
            let actor = pool.control.get().unwrap();
            let given_up = || *pool.condition.borrow() == Condition::Down(GIVEN_UP.into());
            while actor.state() != State::Escalated {
                // Refused while it is made anew and once it is given up.
                let _ = actor.send(Fail).await;
            }
            until("the pool is down", given_up).await;
        });
    }
}
