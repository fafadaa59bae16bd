//! The thread on which the pools' actors live: what they do may block for some milliseconds, which no call should wait for.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::published::Published;
use super::{STOP_TIMEOUT, system};
use crate::control::{self, Note, Plan};
use crate::error::StartError;
use crate::pool::Pool;

/// What may be asked of the thread before it has looked: a start and a farewell for each pool of a large configuration.
const INBOX: usize = 1_024;
/// How long a pool that is given up can still be called: a thread may be about to, or a balancer may not have heard yet.
const LINGERS: Duration = Duration::from_secs(2);
/// How often a pool that is given up is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Calls that a pool still has this long after it was given up are cut off. Streams last longest.
const LONGEST_FAREWELL: Duration = Duration::from_secs(600);

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// To start a pool's actor.
    Start { plan: Box<Plan>, started: oneshot::Sender<()> },
    /// To let a pool go, once its calls are done.
    Part { pool: Arc<Pool> },
    /// To end everything.
    Stop,
}

/// The thread.
#[derive(Debug)]
pub(super) struct Control {
    asks: mpsc::Sender<Ask>,
    thread: JoinHandle<()>,
    /// Pools that still finish their calls.
    parting: Arc<AtomicUsize>,
}

impl Control {
    pub(super) fn start(plans: Vec<Plan>, published: Arc<Published>) -> Result<Self, StartError> {
        let (asks, asked) = mpsc::channel(INBOX);
        let (started, start) = std::sync::mpsc::channel();
        let parting = Arc::<AtomicUsize>::default();
        let leaving = Arc::clone(&parting);
        let run = move || {
            let system = actix_rt::System::new();
            system.block_on(async move {
                let alive = Alive { pools: Rc::default(), published, parting: leaving };
                for plan in plans {
                    alive.start(plan);
                }
                let _ = started.send(());
                alive.serve(asked).await;
            });
        };
        let thread = std::thread::Builder::new()
            .name("php-control".to_owned())
            .spawn(run)
            .map_err(|error| system("all", "start the control thread", error))?;
        // Nothing may be asked of a pool whose actor is not there yet.
        start.recv().map_err(|_| system("all", "start the pools' actors", std::io::ErrorKind::BrokenPipe.into()))?;
        Ok(Self { asks, thread, parting })
    }

    pub(super) fn asks(&self) -> mpsc::Sender<Ask> {
        self.asks.clone()
    }

    pub(super) fn parting(&self) -> usize {
        self.parting.load(Ordering::Relaxed)
    }

    /// Has everything end. The thread does so by itself.
    pub(super) fn stop(self) -> JoinHandle<()> {
        // A full inbox is closed instead: the sender goes.
        let _ = self.asks.try_send(Ask::Stop);
        self.thread
    }
}

/// The pools whose actors live here.
#[derive(Clone)]
struct Alive {
    pools: Rc<RefCell<Vec<Arc<Pool>>>>,
    published: Arc<Published>,
    parting: Arc<AtomicUsize>,
}

impl Alive {
    fn start(&self, plan: Plan) {
        self.pools.borrow_mut().push(Arc::clone(&plan.pool));
        control::start(plan);
    }

    async fn serve(self, mut asked: mpsc::Receiver<Ask>) {
        while let Some(ask) = asked.recv().await {
            match ask {
                Ask::Start { plan, started } => {
                    self.start(*plan);
                    let _ = started.send(());
                }
                Ask::Part { pool } => {
                    if let Some(control) = pool.control.get() {
                        control.replaced();
                    }
                    self.parting.fetch_add(1, Ordering::Relaxed);
                    actix_rt::spawn(self.clone().part(pool));
                }
                Ask::Stop => break,
            }
        }
        let pools = self.pools.take();
        let ends: Vec<_> = pools.iter().map(|pool| end(pool)).collect();
        for end in ends {
            let _ = tokio::time::timeout(STOP_TIMEOUT, end).await;
        }
    }

    async fn part(self, pool: Arc<Pool>) {
        let given_up = Instant::now();
        tokio::time::sleep(LINGERS).await;
        // What it has none of any more it need not keep.
        pool.tell(Note::GiveUp);
        while pool.lanes.in_flight() > 0 {
            if given_up.elapsed() >= LONGEST_FAREWELL {
                let calls = pool.lanes.in_flight();
                tracing::warn!(pool = %pool.name, calls, "a pool that was given up still had calls; they are cut off");
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        // One that nothing took the place of was to be found until now.
        self.published.change(|pools| pools.iter().filter(|other| !Arc::ptr_eq(other, &pool)).cloned().collect());
        let _ = tokio::time::timeout(STOP_TIMEOUT, end(&pool)).await;
        if let Some(control) = pool.control.get() {
            control.stop();
        }
        self.pools.borrow_mut().retain(|other| !Arc::ptr_eq(other, &pool));
        self.parting.fetch_sub(1, Ordering::Relaxed);
        tracing::info!(pool = %pool.name, "the processes of an earlier configuration are gone");
    }
}

fn end(pool: &Pool) -> oneshot::Receiver<()> {
    let (done, end) = oneshot::channel();
    pool.tell(Note::Stop { done });
    end
}
