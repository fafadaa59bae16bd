//! Fake php-pool instances and calls, without sockets.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use troupe_balancer::Balancer;
use troupe_balancer::config::{BalancerConfig, QueueConfig};
use troupe_balancer::instances::{Instance, InstanceId, Instances};
use troupe_contracts::invoke::{Invoke, InvokeFlags, Reply, Times};
use troupe_contracts::report::{InstanceReport, Load, PoolReport, Report};
use troupe_mesh::body::{self, Body};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Port, Service};
use troupe_wire::head::{RequestHead, RequestHeadBuilder, RequestParts, ResponseHeadBuilder, Scheme, Version};

pub const POOL: &str = "default";

/// What a fake worker does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Reply(u16),
    Stream,
    Hang,
    Fail(Outcome, bool),
    /// Takes a piece of the body, and fails before it has started.
    Taste(Outcome),
    /// No link takes the call.
    Away,
    /// Its code cannot be loaded.
    Down,
    /// It is out of something that is no place for a call.
    Exhausted,
}

/// A php-pool instance of one pool. All threads see the same.
#[derive(Debug)]
pub struct Fake {
    pub id: InstanceId,
    pub slots: AtomicU32,
    pub in_flight: AtomicU32,
    pub most: AtomicU32,
    pub calls: AtomicU64,
    /// Reports it was asked for.
    pub reports: AtomicU64,
    pub latency_us: AtomicU64,
    pub silent: AtomicBool,
    pub draining: AtomicBool,
    pub behaviour: Mutex<Behaviour>,
    /// `queued` of the calls.
    pub queued: Mutex<Vec<Duration>>,
}

impl Fake {
    pub fn new(name: &str, slots: u32, latency: Duration) -> Arc<Self> {
        Arc::new(Self {
            id: InstanceId::new(name),
            slots: AtomicU32::new(slots),
            in_flight: AtomicU32::new(0),
            most: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            reports: AtomicU64::new(0),
            latency_us: AtomicU64::new(latency.as_micros() as u64),
            silent: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            behaviour: Mutex::new(Behaviour::Reply(200)),
            queued: Mutex::default(),
        })
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock() = behaviour;
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    fn load(&self) -> Load {
        Load {
            slots: self.slots.load(Ordering::SeqCst),
            in_flight: self.in_flight(),
            draining: self.draining.load(Ordering::SeqCst),
            ..Load::default()
        }
    }
}

/// Counts a call in, and out when it ends.
struct Inside(Arc<Fake>);

impl Inside {
    fn enter(fake: &Arc<Fake>) -> Self {
        fake.calls.fetch_add(1, Ordering::SeqCst);
        let now = fake.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        fake.most.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(fake))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

pub struct FakeService(pub Arc<Fake>);

impl Service<Invoke> for FakeService {
    fn call(&self, envelope: Envelope<Invoke>) -> CallFuture<Invoke> {
        let fake = Arc::clone(&self.0);
        Box::pin(async move {
            let mut envelope = envelope;
            let inside = Inside::enter(&fake);
            if !envelope.call.queued.is_zero() {
                fake.queued.lock().push(envelope.call.queued);
            }
            let latency = fake.latency_us.load(Ordering::SeqCst);
            if latency > 0 {
                tokio::time::sleep(Duration::from_micros(latency)).await;
            }
            let behaviour = *fake.behaviour.lock();
            let load = fake.load();
            let head = |status| ResponseHeadBuilder::default().finish(status);
            match behaviour {
                Behaviour::Reply(status) => {
                    Ok(Reply { head: head(status), load, times: Times::default(), body: Body::Empty })
                }
                Behaviour::Stream => {
                    let (mut writer, reader) = body::channel(None);
                    actix_rt::spawn(async move {
                        let _inside = inside;
                        for _ in 0..3 {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                            if writer.write(Bytes::from_static(b"piece")).await.is_err() {
                                return;
                            }
                        }
                        writer.finish();
                    });
                    Ok(Reply { head: head(200), load, times: Times::default(), body: Body::Stream(reader) })
                }
                Behaviour::Away => {
                    Err(Failure::new(Outcome::Unreachable, Stage::Link, "the service is away").not_started())
                }
                Behaviour::Down => {
                    Err(Failure::overloaded(Stage::PhpPool, "it cannot be loaded", Duration::from_secs(1))
                        .with_detail("why"))
                }
                Behaviour::Exhausted => {
                    Err(Failure::exhausted(Stage::PhpPool, "no room for the body", Duration::from_secs(1)))
                }
                Behaviour::Hang => std::future::pending().await,
                Behaviour::Fail(Outcome::Overloaded, false) => {
                    Err(Failure::overloaded(Stage::PhpPool, "full", Duration::from_secs(1)))
                }
                Behaviour::Taste(outcome) => {
                    let _ = envelope.call.body.next().await;
                    Err(Failure::new(outcome, Stage::PhpPool, "failed as told").not_started())
                }
                Behaviour::Fail(outcome, started) => {
                    let failure = Failure::new(outcome, Stage::PhpPool, "failed as told");
                    Err(if started { failure } else { failure.not_started() })
                }
            }
        })
    }
}

impl Service<Report> for FakeService {
    fn call(&self, _: Envelope<Report>) -> CallFuture<Report> {
        let fake = Arc::clone(&self.0);
        Box::pin(async move {
            fake.reports.fetch_add(1, Ordering::SeqCst);
            if fake.silent.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            Ok(InstanceReport { pools: vec![PoolReport { pool: POOL.to_owned(), load: fake.load() }] })
        })
    }
}

/// Fakes behind a balancer.
pub struct Stack {
    pub balancer: Arc<Balancer>,
    pub fakes: Arc<Mutex<Vec<Arc<Fake>>>>,
    pub instances: watch::Sender<Arc<[Instance]>>,
}

pub fn queue(max: u32, wait: Duration) -> QueueConfig {
    QueueConfig { max, wait: troupe_node::units::Duration::from_millis(wait.as_millis() as u64) }
}

/// Longer than any queue of these tests lets a call wait.
const ABSENT_WAIT: Duration = Duration::from_secs(60);

pub fn fast_config() -> BalancerConfig {
    BalancerConfig { report_interval: troupe_node::units::Duration::from_millis(50), ..BalancerConfig::default() }
}

/// Starts a balancer over `fakes` and waits until it has found all of them.
pub async fn start(fakes: Vec<Arc<Fake>>, queue: QueueConfig, threads: usize) -> Stack {
    start_with(fast_config(), fakes, queue, threads).await
}

pub async fn start_with(config: BalancerConfig, fakes: Vec<Arc<Fake>>, queue: QueueConfig, threads: usize) -> Stack {
    let count = fakes.len();
    let listed: Arc<[Instance]> = fakes.iter().map(|fake| instance(fake)).collect();
    let (instances, source): (_, Instances) = watch::channel(listed);
    let fakes = Arc::new(Mutex::new(fakes));
    let queues = BTreeMap::from([(POOL.to_owned(), queue)]);
    let known = Arc::clone(&fakes);
    let balancer = Balancer::start(&config, &queues, threads, ABSENT_WAIT, source, move |id| {
        Port::inline(Rc::new(FakeService(find(&known, id))))
    });
    let stage = Stack { balancer, fakes, instances };
    stage.found(count).await;
    stage
}

impl Stack {
    /// Waits until the balancer lists `count` workers.
    pub async fn found(&self, count: usize) {
        until("workers are found", || self.balancer.snapshot().pools[0].workers.len() == count).await;
    }

    pub fn on_thread(&self, index: usize) -> Port<Invoke> {
        on_thread(&self.balancer, &self.fakes, index)
    }

    pub fn list(&self) {
        self.instances.send_replace(self.fakes.lock().iter().map(|fake| instance(fake)).collect());
    }

    pub fn idle(&self) -> bool {
        self.balancer.busy() == (0, 0)
    }
}

pub fn on_thread(balancer: &Arc<Balancer>, fakes: &Arc<Mutex<Vec<Arc<Fake>>>>, index: usize) -> Port<Invoke> {
    let known = Arc::clone(fakes);
    Port::inline(balancer.on_thread(index, move |id| Port::inline(Rc::new(FakeService(find(&known, id))))))
}

fn find(fakes: &Mutex<Vec<Arc<Fake>>>, id: &InstanceId) -> Arc<Fake> {
    Arc::clone(fakes.lock().iter().find(|fake| fake.id == *id).expect("only listed instances are asked for"))
}

pub fn instance(fake: &Fake) -> Instance {
    Instance::new(fake.id.clone(), Arc::from(fake.id.as_str()))
}

/// Waits for something to become true; ten seconds is forever.
pub async fn until(what: &str, check: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

pub fn head() -> RequestHead {
    thread_local! {
        static HEAD: RefCell<Option<RequestHead>> = const { RefCell::new(None) };
    }
    let parts = RequestParts {
        version: Version::Http11,
        scheme: Scheme::Http,
        method: "GET",
        target: "/hello",
        authority: "example.test",
        remote_addr: "192.0.2.1",
        remote_port: "1",
        local_addr: "192.0.2.2",
        local_port: "80",
    };
    HEAD.with_borrow_mut(|head| {
        head.get_or_insert_with(|| RequestHeadBuilder::default().finish(&parts).expect("a small head")).clone()
    })
}

pub fn envelope(idempotent: bool, body: Body, budget: Duration) -> Envelope<Invoke> {
    let call = Invoke {
        pool: POOL.into(),
        route: "/hello".into(),
        function: "hello".into(),
        flags: InvokeFlags { idempotent, ..InvokeFlags::default() },
        path_info: 6,
        queued: Duration::ZERO,
        head: head(),
        body,
    };
    Envelope::new(call, Deadline::after(budget))
}

/// A GET with half a minute.
pub fn get() -> Envelope<Invoke> {
    envelope(true, Body::Empty, Duration::from_secs(30))
}

/// A POST with half a minute.
pub fn post() -> Envelope<Invoke> {
    envelope(false, Body::full(Bytes::from_static(b"form")), Duration::from_secs(30))
}
