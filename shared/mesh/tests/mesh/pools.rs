//! Several instances, instances that come and go, and calls that must not notice.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::discovery::{Address, Discovery, DnsDiscovery, Endpoint, Endpoints, Resolve, Resolved, Take};
use troupe_mesh::failure::{Outcome, Started};
use troupe_mesh::link::{Identity, LinkSetup, Services};
use troupe_mesh::listener::MeshListener;
use troupe_mesh::pool::{Instance, Pool};
use troupe_mesh::port::{Port, Service};

use crate::contract::{Ask, Teller, What, ask, until};
use crate::wiring::{ParseAny, caller, keys};

/// An instance of the service on this thread.
fn instance(name: &str, address: &Address, threads: u16) -> (MeshListener, Rc<Teller>) {
    let teller = Rc::new(Teller::default());
    let service: Rc<dyn Service<Ask>> = Rc::clone(&teller) as Rc<dyn Service<Ask>>;
    let identity = Identity::new("callee", name, threads).unwrap();
    let listener = MeshListener::bind(address).unwrap();
    listener.acceptor().serve(LinkSetup::callee(identity, keys(1), Services::new().with(Port::inline(service))));
    (listener, teller)
}

fn any() -> Address {
    "127.0.0.1:0".parse_any()
}

fn endpoints<'a>(listeners: impl IntoIterator<Item = &'a MeshListener>) -> Endpoints {
    let mut endpoints: Vec<Endpoint> =
        listeners.into_iter().map(|listener| Endpoint::from(listener.address().clone())).collect();
    endpoints.sort();
    Arc::from(endpoints)
}

fn names(instances: &[Instance]) -> Vec<&str> {
    instances.iter().map(|instance| &*instance.name).collect()
}

fn pool(connect_wait: Duration, endpoints: watch::Receiver<Endpoints>) -> Pool {
    Pool::start(caller(keys(1)), "callee", connect_wait, endpoints)
}

#[actix_rt::test]
async fn without_an_instance_a_call_waits_and_is_told_when_to_try_again() {
    let nobody = watch::Sender::new(endpoints([]));
    let port: Port<Ask> = pool(Duration::from_millis(200), nobody.subscribe()).port();
    let since = Instant::now();
    let failure = port.call(ask(What::Echo, Body::Empty)).await.unwrap_err();
    assert_eq!((failure.outcome, failure.started), (Outcome::Unreachable, Started::No));
    assert!(failure.retry_after.is_some());
    assert!(since.elapsed() >= Duration::from_millis(200));
    let short = Envelope::new(Ask { what: What::Echo, body: Body::Empty }, Deadline::after(Duration::from_millis(50)));
    let failure = port.call(short).await.unwrap_err();
    assert_eq!((failure.outcome, failure.started), (Outcome::Deadline, Started::No));
}

#[actix_rt::test]
async fn a_call_waits_for_an_instance_that_comes_late() {
    let address = {
        let (listener, _) = instance("gone", &any(), 1);
        listener.address().clone()
    };
    let named = watch::Sender::new(Arc::from([Endpoint::from(address.clone())]));
    let port: Port<Ask> = pool(Duration::from_secs(30), named.subscribe()).port();
    let call =
        actix_rt::spawn(async move { port.call(ask(What::Sleep(1), Body::Empty)).await.map(|said| said.number) });
    actix_rt::time::sleep(Duration::from_millis(300)).await;
    let since = Instant::now();
    let (_listener, _teller) = instance("late", &address, 1);
    assert_eq!(call.await.unwrap().unwrap(), 1);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[actix_rt::test]
async fn calls_go_to_every_instance_and_follow_discovery() {
    let ((one, first), (two, second)) = (instance("one", &any(), 1), instance("two", &any(), 1));
    let named = watch::Sender::new(endpoints([&one, &two]));
    let pool = pool(Duration::from_secs(10), named.subscribe());
    let mut instances = pool.instances();
    let both = instances.wait_for(|instances| instances.len() == 2).await.unwrap().clone();
    let names: BTreeSet<&str> = both.iter().map(|instance| &*instance.name).collect();
    assert_eq!(names, BTreeSet::from(["one", "two"]));
    let port: Port<Ask> = pool.port();
    let held: Vec<_> = (0..20).map(|_| port.call(ask(What::Hang, Body::Empty))).map(actix_rt::spawn).collect();
    until("all run", || first.running.get() + second.running.get() == 20).await;
    assert_eq!(first.running.get(), 10, "the less busy link is taken");
    for call in &held {
        call.abort();
    }
    named.send_replace(endpoints([&two]));
    instances.wait_for(|instances| instances.len() == 1).await.unwrap();
    until("its link ends", || one.links() == 0).await;
    port.call(ask(What::Echo, Body::Empty)).await.unwrap();
}

/// Knows every name by the same addresses.
#[derive(Debug)]
struct Addresses([[u8; 4]; 3]);

impl Resolve for Addresses {
    fn resolve(&self, _host: &str, port: u16) -> Resolved {
        let found = self.0.map(|ip| SocketAddr::from((ip, port))).to_vec();
        Box::pin(async move { Ok(found) })
    }
}

#[actix_rt::test]
async fn a_name_of_one_instance_is_reached_by_whichever_address_answers() {
    let (listener, _teller) = instance("one", &any(), 2);
    let Address::Tcp(address) = listener.address().clone() else { panic!("not TCP") };
    // Nobody listens at the first two: all of these are this machine.
    let resolver = Arc::new(Addresses([[127, 0, 0, 3], [127, 0, 0, 2], [127, 0, 0, 1]]));
    let peers = [format!("balancer:{}", address.port())];
    let found = DnsDiscovery::start("callee", peers.iter().map(String::as_str), Take::One, resolver).unwrap();
    let pool = pool(Duration::from_secs(30), found.watch());
    pool.port::<Ask>().call(ask(What::Echo, Body::Empty)).await.unwrap();
    let instances = pool.instances().borrow().clone();
    let at: Vec<&Address> = instances.iter().map(|instance| &instance.endpoint.address).collect();
    assert_eq!(at, [listener.address()], "it is listed by the address that answers");
    until("both of its threads have a link", || listener.links() == 2).await;
}

#[actix_rt::test]
async fn an_instance_that_has_moved_is_found_by_another_of_its_ways() {
    let (one, _first) = instance("one", &any(), 1);
    let (two, _second) = instance("two", &any(), 1);
    let ways = Endpoint {
        alternatives: Arc::from([Endpoint::from(two.address().clone())]),
        ..Endpoint::from(one.address().clone())
    };
    let named = watch::Sender::new(Arc::from([ways]));
    let pool = pool(Duration::from_secs(30), named.subscribe());
    let mut instances = pool.instances();
    let up = |wanted: &'static str| move |up: &Arc<[_]>| names(up) == [wanted];
    instances.wait_for(up("one")).await.unwrap();
    assert_eq!(two.links(), 0, "one way at a time");
    one.drain("test");
    instances.wait_for(up("two")).await.unwrap();
}

#[actix_rt::test]
async fn another_way_to_an_instance_ends_no_link_that_is_up() {
    let ((one, first), (two, _second)) = (instance("one", &any(), 1), instance("two", &any(), 1));
    let named = watch::Sender::new(endpoints([&one]));
    let pool = pool(Duration::from_secs(30), named.subscribe());
    let mut instances = pool.instances();
    instances.wait_for(|instances| instances.len() == 1).await.unwrap();
    // Held, so that its link stays even where a second one takes its place.
    let port: Port<Ask> = pool.port();
    let held = actix_rt::spawn(port.call(ask(What::Hang, Body::Empty)));
    until("it runs", || first.running.get() == 1).await;
    let mut more = endpoints([&one, &two]).to_vec();
    for endpoint in more.iter_mut().filter(|endpoint| endpoint.address == *one.address()) {
        endpoint.alternatives = Arc::from([Endpoint::from(any())]);
    }
    named.send_replace(Arc::from(more));
    instances.wait_for(|instances| instances.len() == 2).await.unwrap();
    until("the new one has its link", || two.links() == 1).await;
    assert_eq!(one.links(), 1);
    held.abort();
}

#[actix_rt::test]
async fn a_way_that_never_answered_takes_no_link_with_it_when_it_leaves_the_name() {
    let ((one, first), (two, _second)) = (instance("one", &any(), 1), instance("two", &any(), 1));
    let ways = Endpoint { alternatives: Arc::from([Endpoint::from(one.address().clone())]), ..Endpoint::from(any()) };
    let named = watch::Sender::new(Arc::from([ways]));
    let pool = pool(Duration::from_secs(30), named.subscribe());
    let mut instances = pool.instances();
    let uid = instances.wait_for(|instances| instances.len() == 1).await.unwrap()[0].uid;
    // Held, so that its link stays even where a second one takes its place.
    let held = actix_rt::spawn(pool.port::<Ask>().call(ask(What::Hang, Body::Empty)));
    until("it runs", || first.running.get() == 1).await;
    named.send_replace(endpoints([&one, &two]));
    instances.wait_for(|instances| instances.iter().any(|instance| instance.uid != uid)).await.unwrap();
    pool.port_of::<Ask>(uid).call(ask(What::Echo, Body::Empty)).await.unwrap();
    assert_eq!(one.links(), 1, "the one that it had");
    // It stays for that way's sake alone.
    held.abort();
    named.send_replace(endpoints([&two]));
    until("its link ends", || one.links() == 0).await;
}

#[actix_rt::test]
async fn directed_calls_reach_their_instance_or_fail_unstarted() {
    let ((one, first), (two, second)) = (instance("one", &any(), 1), instance("two", &any(), 1));
    let named = watch::Sender::new(endpoints([&one, &two]));
    let pool = pool(Duration::from_secs(10), named.subscribe());
    let both = pool.instances().wait_for(|instances| instances.len() == 2).await.unwrap().clone();
    let uid = both.iter().find(|instance| &*instance.name == "one").unwrap().uid;
    let port: Port<Ask> = pool.port_of(uid);
    for _ in 0..10 {
        port.call(ask(What::Echo, Body::Empty)).await.unwrap();
    }
    assert_eq!((first.begun.get(), second.begun.get()), (10, 0));
    one.drain("test");
    pool.instances().wait_for(|instances| instances.len() == 1).await.unwrap();
    let failure = port.call(ask(What::Echo, Body::Empty)).await.unwrap_err();
    assert_eq!((failure.outcome, failure.started), (Outcome::Unreachable, Started::No));
}

#[actix_rt::test]
async fn a_drained_instance_costs_no_call_where_another_lives() {
    let ((one, first), (two, _second)) = (instance("one", &any(), 1), instance("two", &any(), 1));
    let named = watch::Sender::new(endpoints([&one, &two]));
    let pool = pool(Duration::from_secs(10), named.subscribe());
    pool.instances().wait_for(|instances| instances.len() == 2).await.unwrap();
    let done = Rc::new(Cell::new(0));
    let stop = Rc::new(Cell::new(false));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (port, done, stop) = (pool.port::<Ask>(), Rc::clone(&done), Rc::clone(&stop));
            actix_rt::spawn(async move {
                while !stop.get() {
                    port.call(ask(What::Sleep(1), Body::full(Bytes::from_static(b"x")))).await.unwrap();
                    done.set(done.get() + 1);
                }
            })
        })
        .collect();
    until("the load runs", || done.get() > 500).await;
    one.drain("test");
    tokio::time::timeout(Duration::from_secs(30), one.drained()).await.expect("it drains under load");
    assert_eq!(first.running.get(), 0);
    let before = done.get();
    until("the load goes on", || done.get() > before + 500).await;
    stop.set(true);
    for caller in callers {
        caller.await.unwrap();
    }
}

/// An instance on a thread of its own, which dies without a word when told.
fn mortal_instance() -> (Address, tokio::sync::oneshot::Sender<()>, std::thread::JoinHandle<()>) {
    let (tell, address) = std::sync::mpsc::channel();
    let (kill, killed) = tokio::sync::oneshot::channel();
    let thread = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let (listener, _teller) = instance("mortal", &any(), 1);
            tell.send(listener.address().clone()).unwrap();
            let _ = killed.await;
        });
    });
    (address.recv().unwrap(), kill, thread)
}

#[actix_rt::test]
async fn a_killed_instance_fails_only_what_it_had_begun() {
    let (mortal, kill, thread) = mortal_instance();
    let (other, _teller) = instance("other", &any(), 1);
    let mut both = vec![Endpoint::from(mortal), Endpoint::from(other.address().clone())];
    both.sort();
    let named: watch::Sender<Endpoints> = watch::Sender::new(Arc::from(both));
    let pool = pool(Duration::from_secs(10), named.subscribe());
    pool.instances().wait_for(|instances| instances.len() == 2).await.unwrap();
    let (done, failed, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let port = pool.port::<Ask>();
            let (done, failed, stop) = (Rc::clone(&done), Rc::clone(&failed), Rc::clone(&stop));
            actix_rt::spawn(async move {
                while !stop.get() {
                    match port.call(ask(What::Sleep(1), Body::full(Bytes::from_static(b"x")))).await {
                        Ok(_) => done.set(done.get() + 1),
                        Err(failure) => {
                            assert_eq!((failure.outcome, failure.started), (Outcome::Broken, Started::Maybe));
                            failed.set(failed.get() + 1);
                        }
                    }
                }
            })
        })
        .collect();
    until("the load runs", || done.get() > 500).await;
    kill.send(()).unwrap();
    thread.join().unwrap();
    let before = done.get();
    until("the load goes on", || done.get() > before + 500).await;
    stop.set(true);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(failed.get() <= 50, "each caller had one call in flight, and {} failed", failed.get());
    pool.instances().wait_for(|instances| instances.len() == 1).await.unwrap();
}

#[actix_rt::test]
async fn every_thread_of_a_callee_gets_a_link() {
    let listener = MeshListener::bind(&any()).unwrap();
    let identity = Identity::new("callee", "b", 3).unwrap();
    let arbiters: Vec<_> = (0..3).map(|_| actix_rt::Arbiter::new()).collect();
    for arbiter in &arbiters {
        let (acceptor, identity) = (listener.acceptor(), identity.clone());
        arbiter.spawn_fn(move || {
            let service: Rc<dyn Service<Ask>> = Rc::new(Teller::default());
            acceptor.serve(LinkSetup::callee(identity, keys(1), Services::new().with(Port::inline(service))));
        });
    }
    let named = watch::Sender::new(endpoints([&listener]));
    let pool = pool(Duration::from_secs(10), named.subscribe());
    until("three links", || listener.links() == 3).await;
    let instances = pool.instances();
    assert_eq!(instances.borrow().len(), 1, "one instance, whatever number of links");
    let port: Port<Ask> = pool.port();
    for _ in 0..100 {
        port.call(ask(What::Echo, Body::Empty)).await.unwrap();
    }
    drop((port, pool));
    until("they end with the pool", || listener.links() == 0).await;
}
