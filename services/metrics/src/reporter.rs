//! Tells the metrics service each second what this instance counts and uses.
//!
//! One snapshot is under way at a time, and none waits: while the metrics service is away, slow or frozen, readings are
//! skipped, and the next one that gets through tells what changed since the last.

mod teller;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, counter};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use troupe_contracts::snapshot::{Complaint, Order, Outcome, Pool, Slow, Snapshot, Source, Worker};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::pool;
use troupe_mesh::port::Port;
use troupe_node::metrics::Metrics;
use troupe_wire::handshake::Uid;

pub use teller::{About, MAX_SLOW, Teller};

/// Pause between two readings.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long the metrics service may take to answer; nothing else of this instance waits meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an instance that stops waits for its last snapshot.
const FAREWELL: Duration = Duration::from_millis(500);

/// Carries out an order, on the reporter's thread.
pub type Obey = Arc<dyn Fn(Order) -> Pin<Box<dyn Future<Output = Outcome>>> + Send + Sync>;

/// Orders that an instance works on at once; one more is refused.
const MOST_ORDERS: usize = 16;

/// What an instance tells beside its series. The closures are called once a second, on the reporter's thread.
#[derive(Clone)]
pub struct Feeds {
    /// The tables of this instance's balancer, if it has one.
    pub tables: Option<Arc<dyn Fn() -> Tables + Send + Sync>>,
    /// The slowest requests of this instance's gateway, if it has one, the slowest first.
    pub slow: Option<Arc<dyn Fn() -> Vec<Slow> + Send + Sync>>,
    /// What is wrong with this instance.
    pub complaints: Arc<dyn Fn() -> Vec<Complaint> + Send + Sync>,
    /// What carries out orders, if this instance takes any.
    pub obey: Option<Obey>,
}

/// A balancer's pools and workers.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// The pools.
    pub pools: Vec<Pool>,
    /// Their workers, best score first.
    pub workers: Vec<Worker>,
}

impl std::fmt::Debug for Feeds {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tables, slow, obey) = (self.tables.is_some(), self.slow.is_some(), self.obey.is_some());
        out.debug_struct("Feeds")
            .field("tables", &tables)
            .field("slow", &slow)
            .field("obey", &obey)
            .finish_non_exhaustive()
    }
}

/// Who reports, and what.
#[derive(Debug, Clone)]
pub struct Subject {
    /// This instance; its uptime is set with each reading.
    pub source: Source,
    /// What it counts.
    pub metrics: Metrics,
    /// What it tells besides.
    pub feeds: Feeds,
    /// When it started.
    pub started: Instant,
}

/// The reporting of this instance, on the thread that started it. Dropping it ends it.
#[derive(Debug)]
pub struct Reporter {
    task: JoinHandle<()>,
    leaving: watch::Sender<bool>,
}

impl Reporter {
    /// Reports to the metrics service of this process.
    pub fn here(subject: Subject, port: Port<Snapshot>) -> Self {
        let (leaving, leave) = watch::channel(false);
        Self { task: actix_rt::spawn(report(Rc::new(subject), port, leave)), leaving }
    }

    /// Reports to each metrics service that `links` lead to, now and as that changes.
    pub fn apart(subject: Subject, links: pool::Pool) -> Self {
        let (leaving, leave) = watch::channel(false);
        Self { task: actix_rt::spawn(follow(Rc::new(subject), links, leave)), leaving }
    }

    /// Tells that the instance stops; waits a moment at most for that to arrive.
    pub async fn leave(mut self) {
        self.leaving.send_replace(true);
        // Nobody to hear it is no reason to stay.
        let _ = timeout(FAREWELL, &mut self.task).await;
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps one task per metrics service.
async fn follow(subject: Rc<Subject>, links: pool::Pool, mut leave: watch::Receiver<bool>) {
    let mut instances = links.instances();
    let mut tasks: BTreeMap<Uid, Task> = BTreeMap::new();
    loop {
        let listed = Arc::clone(&instances.borrow_and_update());
        tasks.retain(|uid, _| listed.iter().any(|instance| instance.uid == *uid));
        for instance in listed.iter() {
            tasks.entry(instance.uid).or_insert_with(|| {
                let port = links.port_of(instance.uid);
                Task(actix_rt::spawn(report(Rc::clone(&subject), port, leave.clone())))
            });
        }
        tokio::select! {
            changed = instances.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = leave.wait_for(|leaving| *leaving) => break,
        }
    }
    for task in tasks.values_mut() {
        // It ends by itself after its farewell.
        let _ = (&mut task.0).await;
    }
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reports to one metrics service until the instance leaves.
async fn report(subject: Rc<Subject>, port: Port<Snapshot>, mut leave: watch::Receiver<bool>) {
    let mut teller = Teller::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let sent = counter!("troupe_metrics_snapshots_sent_total");
    let lost = counter!("troupe_metrics_snapshots_lost_total");
    let servant = Servant::default();
    loop {
        let leaving = tokio::select! {
            _ = ticks.tick() => false,
            _ = leave.wait_for(|leaving| *leaving) => true,
        };
        let outcomes = servant.outcomes.take();
        let parts = teller.read(&subject.metrics, &subject.about(leaving, outcomes.clone()));
        let (orders, told) = tell(&port, parts, &sent).await;
        match told {
            Told::All => {}
            Told::Anew => teller.begin_anew(),
            Told::Lost => {
                lost.increment(1);
                teller.begin_anew();
                // Whoever gave the orders still waits to hear of them.
                servant.outcomes.borrow_mut().extend(outcomes);
            }
        }
        if leaving {
            return;
        }
        for order in orders {
            servant.take(order, subject.feeds.obey.as_ref());
        }
    }
}

/// How far a reading came.
enum Told {
    All,
    /// The receiver wants everything anew.
    Anew,
    Lost,
}

/// Sends the parts of a reading; with how far that came, the orders that came back.
async fn tell(port: &Port<Snapshot>, parts: Vec<Snapshot>, sent: &Counter) -> (Vec<Order>, Told) {
    let mut orders = Vec::new();
    for part in parts {
        let call = port.call(Envelope::new(part, Deadline::after(PATIENCE)));
        // A frozen peer answers nothing, not even that the time is up.
        match timeout(PATIENCE, call).await {
            Ok(Ok(taken)) => {
                orders.extend(taken.orders);
                if taken.anew {
                    return (orders, Told::Anew);
                }
                sent.increment(1);
            }
            Ok(Err(_)) | Err(_) => return (orders, Told::Lost),
        }
    }
    (orders, Told::All)
}

/// Carries out orders beside the readings, and remembers what came of them until it is told.
#[derive(Default)]
struct Servant {
    outcomes: Rc<RefCell<Vec<Outcome>>>,
    busy: Rc<()>,
}

impl Servant {
    fn take(&self, order: Order, obey: Option<&Obey>) {
        let refused = |why: &str| Outcome { id: order.id, done: false, said: why.to_owned() };
        let Some(obey) = obey else {
            return self.outcomes.borrow_mut().push(refused("no balancer runs in that process"));
        };
        if Rc::strong_count(&self.busy) > MOST_ORDERS {
            return self.outcomes.borrow_mut().push(refused("too many orders at once; wait for those before"));
        }
        let (outcomes, busy, outcome) = (Rc::clone(&self.outcomes), Rc::clone(&self.busy), obey(order));
        actix_rt::spawn(async move {
            let outcome = outcome.await;
            outcomes.borrow_mut().push(outcome);
            drop(busy);
        });
    }
}

impl Subject {
    fn about(&self, leaving: bool, outcomes: Vec<Outcome>) -> About {
        let uptime_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let tables = self.feeds.tables.as_ref().map(|tables| tables()).unwrap_or_default();
        About {
            source: Source { uptime_ms, ..self.source.clone() },
            process: teller::process(),
            tables,
            slow: self.feeds.slow.as_ref().map(|slow| slow()),
            complaints: (self.feeds.complaints)(),
            outcomes,
            leaving,
        }
    }
}
