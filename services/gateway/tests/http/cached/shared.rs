//! Gateways with a cache service behind them, in this process: what they make of what it has.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use troupe_cache::service::CacheService;
use troupe_contracts::cache::lookup::Lookup;
use troupe_contracts::cache::watch::Watch;
use troupe_contracts::invoke::{Invoke, Reply};
use troupe_gateway::cache::Cache;
use troupe_gateway::cache::config::CacheConfig;
use troupe_gateway::cache::l2::{Ports, PortsFactory, Tier, WatchPorts, follow};
use troupe_gateway::{Options, Running};
use troupe_mesh::body::Body;
use troupe_mesh::contract::{Contract, Envelope};
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Port, Service};

use super::{Calls, on, route, status};
use crate::support::*;

/// The cache service, and whether look-ups reach it.
#[derive(Clone)]
struct Shared {
    service: CacheService,
    away: Arc<AtomicBool>,
}

/// Answers as `service` does, unless it is away.
struct Road<C>(Rc<dyn Service<C>>, Arc<AtomicBool>);

impl<C: Contract> Service<C> for Road<C> {
    fn call(&self, envelope: Envelope<C>) -> CallFuture<C> {
        match self.1.load(Ordering::SeqCst) {
            true => {
                let failure = Failure::new(Outcome::Unreachable, Stage::Cache, "the test has it away");
                Box::pin(std::future::ready(Err(failure)))
            }
            false => self.0.call(envelope),
        }
    }
}

impl Shared {
    fn start() -> Self {
        let service = CacheService::embedded(&CacheConfig::default().store).expect("no disk");
        Self { service, away: Arc::default() }
    }

    /// A gateway that never hears of purges, so that it asks the second tier before it gives what it has.
    fn gateway<F, A>(&self, uid: u8, service: F) -> Running
    where
        F: Fn(Envelope<Invoke>) -> A + Clone + Send + Sync + 'static,
        A: Future<Output = Result<Reply, Failure>> + 'static,
    {
        let settings = CacheConfig::default();
        // However busy the machine is, it is not late.
        let (tier, orders) = Tier::new([uid; 16], "gateway", PATIENCE, &settings);
        let cache = Cache::with_tier(&settings, Some(tier)).expect("a cache");
        let (watched, watching) = (Arc::clone(&cache), self.service.clone());
        // For as long as the process: it carries out what the gateway orders.
        thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let faces = watching.on_thread();
                let ports = WatchPorts {
                    watch: Port::<Watch>::inline(Rc::new(Road(faces.watch(), Arc::new(AtomicBool::new(true))))),
                    purge: Port::inline(faces.purge()),
                    lease: Port::inline(faces.lease()),
                    services: None,
                };
                follow(watched, ports, orders).await;
            });
        });
        let shared = self.clone();
        let l2: PortsFactory = Arc::new(move |_| {
            let faces = shared.service.on_thread();
            let lookup: Rc<dyn Service<Lookup>> = Rc::new(Road(faces.lookup(), Arc::clone(&shared.away)));
            Ports {
                lookup: Port::inline(lookup),
                store: Port::inline(faces.store()),
                lease: Port::inline(faces.lease()),
            }
        });
        let options = Options { threads: 2, cache: Some(cache), l2: Some(l2), ..Options::default() };
        serve_with(config(), &route(on()), options, service)
    }

    fn is_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
}

type Answered = std::future::Ready<Result<Reply, Failure>>;

/// An origin whose every answer is another version, and was under way for so many seconds: those in `ages`, then none.
fn versions(ages: &'static [u64]) -> (Calls, impl Fn(Envelope<Invoke>) -> Answered + Clone + Send + Sync + 'static) {
    let calls = Calls::default();
    let counted = calls.clone();
    let service = move |_: Envelope<Invoke>| {
        let n = counted.next();
        let age = ages.get(n - 1).copied().unwrap_or(0).to_string();
        let fields = [("Cache-Control", "max-age=600"), ("Age", &*age)];
        std::future::ready(Ok(reply(200, &fields, Body::full(format!("version {n}").into()))))
    };
    (calls, service)
}

fn asked(running: &Running, control: &str) -> Response {
    let head = format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{control}\r\n\r\n");
    Client::connect(running).send(head).response(false)
}

fn get(running: &Running) -> Response {
    asked(running, "Accept: */*")
}

/// Waits until the second tier answers with `version`; nobody is told another one meanwhile.
fn await_shared(running: &Running, version: &str) {
    let began = Instant::now();
    loop {
        let answer = get(running);
        assert_eq!(answer.text(), version, "{}", answer.head);
        if status(&answer).starts_with("troupe-l2; hit") {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{}", answer.head);
        pause(Duration::from_millis(10));
    }
}

/// RFC 9111 §4: the most recent answers. What was fetched while the second tier was away takes the place of what it has.
#[test]
fn what_the_second_tier_missed_is_not_undone_by_what_it_has() {
    let shared = Shared::start();
    // The first version was made long before the second, whatever the machine makes of the time between them.
    let (calls, service) = versions(&[100]);
    let gateways = [1, 2].map(|uid| shared.gateway(uid, service.clone()));
    assert_eq!(get(&gateways[0]).text(), "version 1");
    await_shared(&gateways[1], "version 1");
    shared.is_away(true);
    assert_eq!(get(&gateways[0]).text(), "version 2");
    shared.is_away(false);
    let only = asked(&gateways[0], "Cache-Control: only-if-cached");
    assert_eq!(only.status, 504, "{}", only.text());
    let answer = get(&gateways[0]);
    assert_eq!(answer.text(), "version 3", "{}", answer.head);
    assert!(status(&answer).starts_with("troupe-l2; fwd=stale, troupe-l1; fwd=stale; "), "{}", answer.head);
    await_shared(&gateways[0], "version 3");
    await_shared(&gateways[1], "version 3");
    assert_eq!(calls.count(), 3);
}

/// A reload at a gateway that has nothing itself is a reload for all: the others went on with what was there before.
#[test]
fn what_a_request_wants_anew_is_anew_for_every_gateway() {
    for control in ["no-cache", "max-age=50", "min-fresh=550"] {
        let shared = Shared::start();
        let (calls, service) = versions(&[100]);
        let gateways = [1, 2].map(|uid| shared.gateway(uid, service.clone()));
        get(&gateways[0]);
        await_shared(&gateways[0], "version 1");
        let anew = asked(&gateways[1], &format!("Cache-Control: {control}"));
        assert_eq!(anew.text(), "version 2", "{control}");
        let told = status(&anew);
        assert!(told.starts_with("troupe-l2; fwd=request, troupe-l1; fwd=request; ttl="), "{control}: {told}");
        // It is brought behind its answer.
        let began = Instant::now();
        while get(&gateways[0]).text() != "version 2" {
            assert!(began.elapsed() < PATIENCE, "{control}");
            pause(Duration::from_millis(10));
        }
        assert_eq!(calls.count(), 2, "{control}");
    }
}
