//! What only a link does: calls cancelled without a trace, limits, drains, relays.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Outcome, Started};
use troupe_mesh::link::{Link, LinkState, Services, dial};
use troupe_mesh::listener::MeshListener;
use troupe_mesh::loopback;
use troupe_mesh::port::{CallFuture, Port, Service};

use crate::contract::{Ask, LONG, Said, Teller, What, ask, read, until};
use crate::wiring::{ParseAny, callee, caller, keys};

fn teller() -> (Rc<Teller>, Services) {
    let teller = Rc::new(Teller::default());
    let service: Rc<dyn Service<Ask>> = Rc::clone(&teller) as Rc<dyn Service<Ask>>;
    (teller, Services::new().with(Port::inline(service)))
}

/// A teller behind a TCP link.
async fn over_tcp() -> (Link, Rc<Teller>, MeshListener) {
    let (teller, services) = teller();
    let listener = MeshListener::bind(&"127.0.0.1:0".parse_any()).unwrap();
    listener.acceptor().serve(callee(services, keys(1)));
    let link = dial(listener.address(), &caller(keys(1))).await.unwrap();
    (link, teller, listener)
}

fn call(link: &Link, envelope: Envelope<Ask>) -> CallFuture<Ask> {
    Service::<Ask>::call(link, envelope)
}

#[actix_rt::test]
async fn ten_thousand_cancelled_calls_leave_nothing() {
    let (link, teller, listener) = over_tcp().await;
    // Dropped before they were written.
    for _ in 0..3_000 {
        drop(call(&link, ask(What::Hang, Body::full(Bytes::from_static(&[0; 1000])))));
    }
    // Dropped while their handlers run.
    for _ in 0..5 {
        let calls: Vec<_> = (0..1_000).map(|_| call(&link, ask(What::Hang, Body::Empty))).collect();
        until("the handlers run", || teller.running.get() == 1_000).await;
        drop(calls);
        until("the handlers are stopped", || teller.running.get() == 0).await;
    }
    // Dropped while their replies stream.
    for _ in 0..20 {
        let calls = (0..100).map(|_| call(&link, ask(What::Produce { pieces: 100, size: 30_000 }, Body::Empty)));
        drop(join_all(calls).await);
    }
    until("no stream is left", || link.in_flight() == 0 && teller.running.get() == 0).await;
    until("no byte is left", || link.held_bytes() == 0).await;
    assert_eq!(link.state(), LinkState::Up);
    assert_eq!(listener.links(), 1);
    let reply = call(&link, ask(What::Echo, Body::full(Bytes::from_static(b"fine")))).await.unwrap();
    assert_eq!(read(reply.body).await.unwrap(), b"fine");
}

#[actix_rt::test]
async fn more_calls_than_the_callee_takes_are_refused_unstarted() {
    let (_teller, services) = teller();
    let mut setup = callee(services, keys(1));
    setup.max_in_flight = 10;
    let listener = MeshListener::bind(&"127.0.0.1:0".parse_any()).unwrap();
    listener.acceptor().serve(setup);
    let link = dial(listener.address(), &caller(keys(1))).await.unwrap();
    let held: Vec<_> = (0..10).map(|_| call(&link, ask(What::Hang, Body::Empty))).collect();
    let failure = call(&link, ask(What::Echo, Body::Empty)).await.unwrap_err();
    assert_eq!((failure.outcome, failure.started), (Outcome::Overloaded, Started::No));
    assert!(failure.retry_after.is_some());
    drop(held);
    assert!(call(&link, ask(What::Echo, Body::Empty)).await.is_ok());
}

#[actix_rt::test]
async fn a_drained_link_finishes_what_is_in_flight() {
    let (link, teller, listener) = over_tcp().await;
    let slow = call(&link, ask(What::Sleep(400), Body::Empty));
    let large = call(&link, ask(What::Produce { pieces: 300, size: 32_000 }, Body::Empty)).await.unwrap();
    until("both are under way", || teller.begun.get() == 2).await;
    listener.drain("test");
    let _ = link.states().wait_for(|state| *state != LinkState::Up).await;
    let failure = call(&link, ask(What::Echo, Body::Empty)).await.unwrap_err();
    assert_eq!((failure.outcome, failure.started), (Outcome::Unreachable, Started::No));
    assert_eq!(slow.await.unwrap().number, 400);
    assert_eq!(read(large.body).await.unwrap().len(), 9_600_000);
    tokio::time::timeout(LONG, listener.drained()).await.expect("the link ends");
    assert!(dial(listener.address(), &caller(keys(1))).await.is_err(), "nothing listens any more");
}

#[actix_rt::test]
async fn a_link_without_users_ends_after_its_calls() {
    let (link, teller, listener) = over_tcp().await;
    let slow = call(&link, ask(What::Sleep(200), Body::Empty));
    drop(link);
    assert_eq!(slow.await.unwrap().number, 200);
    until("the callee's side is gone", || listener.links() == 0).await;
    assert_eq!(teller.running.get(), 0);
}

/// Passes calls and bodies on, as the balancer does.
struct Relay(Link);

impl Service<Ask> for Relay {
    fn call(&self, envelope: Envelope<Ask>) -> CallFuture<Ask> {
        Service::<Ask>::call(&self.0, envelope)
    }
}

/// Relays `mebibytes` from a teller over two links, with a reader that takes them at once; the most that the links
/// held meanwhile.
async fn relay(mebibytes: u32) -> u64 {
    let (_teller, services) = teller();
    let behind = loopback::link(services).unwrap();
    let relay: Rc<dyn Service<Ask>> = Rc::new(Relay(behind.clone()));
    let front = loopback::link(Services::new().with(Port::inline(relay))).unwrap();
    let what = What::Produce { pieces: mebibytes * 32, size: 32 * 1024 };
    let Said { mut body, .. } = call(&front, ask(what, Body::Empty)).await.unwrap();
    let (mut total, mut most) = (0u64, 0);
    while let Some(piece) = body.next().await {
        total += piece.unwrap().len() as u64;
        most = most.max(front.held_bytes() + behind.held_bytes());
    }
    assert_eq!(total, u64::from(mebibytes) * 1024 * 1024);
    most
}

#[actix_rt::test]
async fn a_relayed_gibibyte_leaves_memory_flat() {
    let most = relay(1024).await;
    assert!(most <= 2 * 4 * 1024 * 1024, "{most}");
}

#[actix_rt::test]
async fn many_slow_readers_do_not_stop_the_others() {
    let (link, _teller, _listener) = over_tcp().await;
    let calls = (0..60).map(|_| call(&link, ask(What::Produce { pieces: 1000, size: 32 * 1024 }, Body::Empty)));
    let slow: Vec<Said> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    actix_rt::time::sleep(Duration::from_millis(200)).await;
    let large = call(&link, ask(What::Produce { pieces: 300, size: 32 * 1024 }, Body::Empty)).await.unwrap();
    let bytes = tokio::time::timeout(LONG, read(large.body)).await.expect("it is not stopped").unwrap();
    assert_eq!(bytes.len(), 300 * 32 * 1024);
    drop(slow);
    until("no byte is left", || link.held_bytes() == 0 && link.in_flight() == 0).await;
}

#[actix_rt::test]
async fn small_calls_pass_a_large_body() {
    let (link, _teller, _listener) = over_tcp().await;
    let large = call(&link, ask(What::Produce { pieces: 10_000, size: 32 * 1024 }, Body::Empty)).await.unwrap();
    let reading = actix_rt::spawn(async move {
        let mut body = large.body;
        while let Some(Ok(_)) = body.next().await {}
    });
    let mut done = 0;
    while !reading.is_finished() {
        call(&link, ask(What::Echo, Body::full(Bytes::from_static(b"small")))).await.unwrap();
        done += 1;
    }
    assert!(done >= 50, "only {done} small calls beside 312 MiB");
}
