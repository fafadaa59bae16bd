//! What these tests share.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use troupe_mesh::discovery::{Advertise, Discovery, Endpoints, Membership, RedisDiscovery, Registration};
use troupe_redis::{Login, Redis, Settings, Topology};
use troupe_testkit::redis::Redis as Server;
use troupe_wire::handshake::Uid;

/// Far above what anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A timeout that a loaded machine keeps.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);

/// A client of one server.
pub(crate) fn client(url: &str) -> Redis {
    client_of(Topology::Single(url.parse().unwrap()), Login::default())
}

pub(crate) fn client_of(topology: Topology, login: Login) -> Redis {
    Redis::open(&Settings { topology, login, namespace: "t".to_owned(), timeout: TIMEOUT }).unwrap()
}

/// A process that serves "callee" at `port`, started for the `uid`th time.
pub(crate) fn joined(server: &Server, uid: u8, port: u16) -> Membership {
    let membership = Membership::start(client(&server.url()));
    membership.join(registration(uid, port));
    membership
}

pub(crate) fn registration(uid: u8, port: u16) -> Registration {
    let address = format!("10.0.0.7:{port}").parse().unwrap();
    let (service, name) = ("callee".to_owned(), format!("callee-{uid}"));
    Registration { service, uid: Uid([uid; 16]), name, advertise: Advertise::Address(address) }
}

/// A process that calls "callee".
pub(crate) struct Reader {
    /// Kept: with it its work ends.
    _membership: Membership,
    source: RedisDiscovery,
}

impl Reader {
    pub(crate) fn of(server: &Server) -> Self {
        Self::with(client(&server.url()))
    }

    pub(crate) fn with(redis: Redis) -> Self {
        Self::start(redis, None)
    }

    /// One that knows of peers by another way.
    pub(crate) fn beside(server: &Server, peers: impl Discovery + 'static) -> Self {
        Self::start(client(&server.url()), Some(Box::new(peers)))
    }

    fn start(redis: Redis, meanwhile: Option<Box<dyn Discovery>>) -> Self {
        let membership = Membership::start(redis);
        let source = membership.watch("callee", meanwhile);
        Self { _membership: membership, source }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Endpoints> {
        self.source.watch()
    }

    /// The instances that it sees, as uid and port.
    pub(crate) fn sees(&self) -> Vec<(u8, u16)> {
        let watched = self.watch();
        let found = watched.borrow();
        let port = |text: String| text.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        found.iter().map(|found| (found.uid.map_or(0, |uid| uid.0[0]), port(found.address.to_string()))).collect()
    }

    /// Waits until it sees just these.
    pub(crate) async fn until(&self, wanted: &[(u8, u16)]) {
        until(&format!("{wanted:?} to be seen"), || self.sees() == wanted, || format!("{:?}", self.sees())).await;
    }

    /// It sees just these, now and for a while.
    pub(crate) async fn keeps(&self, wanted: &[(u8, u16)], during: Duration) {
        let since = Instant::now();
        while since.elapsed() < during {
            assert_eq!(self.sees(), wanted, "after {:?}", since.elapsed());
            actix_rt::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool, now: impl Fn() -> String) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "waited in vain for {what}: {}", now());
        actix_rt::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs `work` and says how long it took.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let since = Instant::now();
    (work.await, since.elapsed())
}
