use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use bytestring::ByteString;
use troupe_contracts::cache::Born;
use troupe_contracts::cache::lookup::Looked;
use troupe_mesh::body::{self, BodyWriter};
use troupe_mesh::contract::Contract;
use troupe_mesh::port::{CallFuture, Port, Service};

use super::*;
use crate::cache::config::{CacheConfig, RouteCache};
use crate::cache::l2::orders::{Order, Orders};
use crate::cache::l2::{Ports, Tier};
use crate::cache::sample;

/// How long requests wait where a reply comes too late, which is when it is let.
const SHORT: Duration = Duration::from_millis(20);
/// Ten times what anything may take.
const BOUND: Duration = Duration::from_secs(20);
const NAME: LeaseName = [1; 16];
const TOKEN: u64 = 77;

/// A cache service whose replies come when the test has them come.
#[derive(Default)]
struct Replies(RefCell<Vec<oneshot::Sender<Looked>>>);

impl Service<Lookup> for Replies {
    fn call(&self, _: Envelope<Lookup>) -> CallFuture<Lookup> {
        let (sender, reply) = oneshot::channel();
        self.0.borrow_mut().push(sender);
        Box::pin(async move { Ok(reply.await.expect("a reply")) })
    }
}

impl Replies {
    fn reply(&self, looked: Looked) {
        let sender = self.0.borrow_mut().pop().expect("a look-up");
        sender.send(looked).expect("somebody hears it");
    }
}

/// What is not asked in these tests.
struct Nobody;

impl<C: Contract> Service<C> for Nobody {
    fn call(&self, _: Envelope<C>) -> CallFuture<C> {
        Box::pin(std::future::pending())
    }
}

struct Gateway {
    l2: L2,
    replies: Rc<Replies>,
    caching: RouteCaching,
    orders: Orders,
}

impl Gateway {
    fn new(timeout: Duration) -> Self {
        let (tier, orders) = Tier::new([7; 16], "gateway", timeout, &CacheConfig::default());
        let (replies, nobody) = (Rc::<Replies>::default(), Rc::new(Nobody));
        let ports = Ports {
            lookup: Port::inline(Rc::<Replies>::clone(&replies)),
            store: Port::inline(Rc::<Nobody>::clone(&nobody)),
            lease: Port::inline(nobody),
        };
        let caching = RouteCaching::new(Some(&RouteCache::Switch(true)), ByteString::from_static("/")).unwrap();
        Self { l2: L2::new(tier, ports), replies, caching, orders }
    }

    async fn look_up(&self) -> Result<Answered, &'static str> {
        let head = sample::request();
        let key = self.caching.key(&head).unwrap();
        self.l2.look_up(&self.caching, &key, &head, Want::Answer).await
    }

    /// Waits until the right to fetch is given back.
    async fn is_given_back(&mut self) {
        let order = timeout(BOUND, self.orders.0.recv()).await.expect("it is given back");
        let Some(Order::Give(lease)) = order else { panic!("{order:?}") };
        assert_eq!(lease, Lease { name: NAME, ask: Ask::Give { token: TOKEN, apart: false } });
    }
}

fn granted(found: Option<Stored>) -> Looked {
    Looked { found, leased: Leased::Granted { name: NAME, token: TOKEN }, born: Born::default() }
}

/// An answer whose body does not end before its writer says so.
fn endless() -> (Stored, BodyWriter) {
    let record = record::encode(&sample::entry("max-age=1", now()));
    let (writer, reader) = body::channel(None);
    (Stored { age_ms: 2_000, stale: false, record, body: Body::Stream(reader) }, writer)
}

#[actix_rt::test]
async fn a_right_that_comes_too_late_is_given_back() {
    let mut gateway = Gateway::new(SHORT);
    assert_eq!(gateway.look_up().await.err(), Some("late"));
    gateway.replies.reply(granted(None));
    gateway.is_given_back().await;
}

#[actix_rt::test]
async fn a_right_that_comes_when_its_request_is_gone_is_given_back() {
    let mut gateway = Gateway::new(SHORT);
    {
        let asked = pin!(gateway.look_up());
        assert!(futures_util::poll!(asked).is_pending());
    }
    gateway.replies.reply(granted(None));
    gateway.is_given_back().await;
}

/// It is not that the service did not answer, so nothing else was given back.
#[actix_rt::test]
async fn a_right_that_comes_with_a_body_that_takes_too_long_is_given_back() {
    let mut gateway = Gateway::new(SHORT);
    let (stored, mut writer) = endless();
    let body_begins = async {
        while gateway.replies.0.borrow().is_empty() {
            actix_rt::task::yield_now().await;
        }
        gateway.replies.reply(granted(Some(stored)));
        writer.write(Bytes::from_static(b"first")).await.unwrap();
    };
    let (answer, ()) = tokio::join!(gateway.look_up(), body_begins);
    assert_eq!(answer.err(), Some("late"));
    gateway.is_given_back().await;
    drop(writer);
}

#[actix_rt::test]
async fn a_right_that_comes_in_time_is_kept() {
    let mut gateway = Gateway::new(BOUND);
    let reply = async {
        while gateway.replies.0.borrow().is_empty() {
            actix_rt::task::yield_now().await;
        }
        gateway.replies.reply(granted(None));
    };
    let (answer, ()) = tokio::join!(gateway.look_up(), reply);
    let grant = answer.unwrap().grant.expect("the right to fetch");
    assert!(gateway.orders.0.try_recv().is_err(), "it is held");
    drop(grant);
    gateway.is_given_back().await;
}
