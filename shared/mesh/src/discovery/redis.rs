//! Membership through Redis: instances register themselves, and read who else has.
//!
//! Each instance that listens beats: every [`BEAT_EVERY`] it writes its record with a time to live, and its uid into the
//! service's index with the time by Redis' clock, so that no clock of an instance matters. Whoever calls a service polls the
//! index. That is the truth; what is published on a change is only a hint to poll at once. One actor per process does all
//! of it.
//!
//! Redis names candidates; whether one is alive is what its link's pings say. So nothing that happens to Redis takes away
//! what works: while it is away the last set stays, when it has lost its data the instances that it no longer names stay for
//! half a minute, and a process that starts without it serves and registers once it is there.

mod actor;
mod advertise;
mod health;
mod hints;
mod keys;
mod meters;
mod record;
mod round;
mod view;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use troupe_redis::Redis;
use troupe_wire::handshake::Uid;

use self::actor::{Drain, Leave, Member, Refresh};
use self::health::Health;
use self::keys::Keys;
use self::meters::Meters;
use self::record::State;
use self::view::View;
use super::{Discovery, Endpoints};
use crate::supervise::{self, Handle, Spec};

pub use self::advertise::Advertise;

/// How often an instance beats, about.
pub const BEAT_EVERY: Duration = Duration::from_secs(2);
/// How long a beat lasts: two may be lost.
pub const BEAT_LASTS: Duration = Duration::from_secs(6);
/// How often the set of a service is read, about.
pub const POLL_EVERY: Duration = Duration::from_secs(1);
/// How long leaving may take, whatever the number of services and however slow Redis is.
const LEAVE_WAIT: Duration = Duration::from_secs(2);

/// This process's part in membership. It belongs to the thread that started it; its work ends with it and its sources.
#[derive(Debug)]
pub struct Membership {
    shared: Rc<Shared>,
    actor: Handle<Member>,
}

/// An instance as it registers.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The service that it serves.
    pub service: String,
    /// This start of this process, as its links say it.
    pub uid: Uid,
    /// What people see.
    pub name: String,
    /// Where it is dialled.
    pub advertise: Advertise,
}

/// The instances of a service that Redis names.
#[derive(Debug)]
pub struct RedisDiscovery {
    endpoints: watch::Receiver<Endpoints>,
    /// The actor ends with its last handle.
    _actor: Handle<Member>,
}

/// What outlives the actor: a restart must neither forget who is registered nor what was seen.
#[derive(Debug)]
struct Shared {
    redis: Redis,
    joined: RefCell<Vec<Joined>>,
    watched: RefCell<Vec<Watched>>,
    health: RefCell<Health>,
    /// Something was published.
    hinted: Notify,
    /// A round is under way.
    busy: Cell<bool>,
    /// It has ended.
    idle: Notify,
    meters: Meters,
}

/// A registration, and what became of it.
#[derive(Debug, Clone)]
struct Joined {
    registration: Registration,
    keys: Keys,
    state: State,
    /// The address that is written, once it is known.
    address: Option<super::Address>,
    /// Whether it was written once: then it no longer replaces who came after it.
    written: bool,
    /// Whether another process has taken the address, which was told.
    replaced: bool,
    /// Whether it was told that the address is not known.
    nowhere: bool,
    /// When it beats again; none: at once.
    due: Option<Instant>,
}

/// A service that is read.
#[derive(Debug)]
struct Watched {
    service: String,
    keys: Keys,
    view: View,
    /// Something that is no instance stands there, which was told.
    refused: bool,
    /// What is used until Redis has named an instance.
    meanwhile: Option<Meanwhile>,
    published: watch::Sender<Endpoints>,
}

/// Another source, and what it says.
#[derive(Debug)]
struct Meanwhile {
    endpoints: watch::Receiver<Endpoints>,
    /// A source that is dropped tells of no change.
    _source: Box<dyn Discovery>,
}

impl Meanwhile {
    fn new(source: Box<dyn Discovery>) -> Self {
        Self { endpoints: source.watch(), _source: source }
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints::clone(&self.endpoints.borrow())
    }
}

impl Membership {
    /// Starts the actor on this thread, which needs an actix event loop. Nothing is connected to until something is
    /// registered or read.
    pub fn start(redis: Redis) -> Self {
        let shared = Rc::new(Shared {
            redis,
            joined: RefCell::default(),
            watched: RefCell::default(),
            health: RefCell::new(Health::new(Instant::now())),
            hinted: Notify::new(),
            busy: Cell::new(false),
            idle: Notify::new(),
            meters: Meters::new(),
        });
        let own = Rc::clone(&shared);
        let actor = supervise::start(Spec::new("membership"), move || Member::new(Rc::clone(&own)));
        Self { shared, actor }
    }

    /// Registers an instance, now and for as long as this is not told otherwise.
    pub fn join(&self, registration: Registration) {
        let keys = Keys::new(self.shared.redis.namespace(), &registration.service);
        self.shared.joined.borrow_mut().push(Joined {
            registration,
            keys,
            state: State::Up,
            address: None,
            written: false,
            replaced: false,
            nowhere: false,
            due: None,
        });
        self.refresh();
    }

    /// The instances of `service`. Until Redis has named one, those of `meanwhile`: a start beside a Redis that is away.
    pub fn watch(&self, service: &str, meanwhile: Option<Box<dyn Discovery>>) -> RedisDiscovery {
        let meanwhile = meanwhile.map(Meanwhile::new);
        let first = meanwhile.as_ref().map_or_else(|| Endpoints::from([]), Meanwhile::endpoints);
        let (published, endpoints) = watch::channel(first);
        self.shared.watched.borrow_mut().push(Watched {
            service: service.to_owned(),
            keys: Keys::new(self.shared.redis.namespace(), service),
            view: View::default(),
            refused: false,
            meanwhile,
            published,
        });
        self.refresh();
        RedisDiscovery { endpoints, _actor: self.actor.clone() }
    }

    /// Says that this process will stop: callers that have another instance turn to it.
    pub fn drain(&self) {
        // An actor that is given up beats no more either; what it wrote last ends by itself.
        let _ = self.actor.try_send(Drain);
    }

    /// Says that this process has stopped, and beats no more. Takes two seconds at most, whatever Redis does.
    pub async fn leave(&self) {
        if self.shared.joined.borrow().is_empty() {
            return;
        }
        if let Err(error) = self.actor.send_within(Leave, LEAVE_WAIT).await {
            tracing::debug!(%error, "redis was not told that this instance stops; its last beat ends by itself");
        }
    }

    fn refresh(&self) {
        // Without room a round is about to begin anyway.
        let _ = self.actor.try_send(Refresh);
    }
}

impl Discovery for RedisDiscovery {
    fn watch(&self) -> watch::Receiver<Endpoints> {
        self.endpoints.clone()
    }
}
