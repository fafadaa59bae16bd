//! The second tier, which gateways share: asked between this process's memory and the call, filled behind the answer, and
//! heard of what every gateway is to forget.
//!
//! ```text
//! miss ─▶ look-up ──an answer──▶ stored here, and given
//!            └──the lease──▶ call ─▶ answer, and behind it a store
//!            └──another has it──▶ wait ─▶ look-up
//! purge ─▶ service ─▶ watch ─▶ every gateway forgets, and confirms
//! ```
//!
//! | module | subject |
//! |---|---|
//! | `coherence` | whether this process's memory may be believed |
//! | `alone` | that there is one service where there must be one |
//! | `watch` | the stream that says so |
//! | `ask` | look-ups, leases and stores, each within its time |
//! | `grant` | the right to fetch, and what becomes of it |
//! | `breaker` | does not ask who does not answer |
//! | `orders` | purges that are passed on |
//! | `second` | the fetch path's part |

mod alone;
mod ask;
mod breaker;
mod coherence;
mod grant;
mod meters;
mod orders;
mod second;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;
use troupe_cache::entry::Entry;
use troupe_cache::reuse::Reuse;
use troupe_cache::time::Moment;
use troupe_contracts::cache::Uid;
use troupe_contracts::cache::lease::Lease;
use troupe_contracts::cache::lookup::Lookup;
use troupe_contracts::cache::store::Store;
use troupe_mesh::port::Port;

use super::config::CacheConfig;
pub use alone::Services;
use breaker::Breaker;
use coherence::Coherence;
pub(super) use grant::Grant;
pub(super) use meters::LookupCounts;
use meters::Meters;
pub use meters::describe;
pub use orders::Orders;
pub(super) use second::Second;
pub use watch::{WatchPorts, follow};

/// Stores that may be under way at once; what is fetched beyond them is not stored in the second tier.
const MAX_STORES: usize = 64;

/// A process's part in the second tier.
#[derive(Debug)]
pub struct Tier {
    uid: Uid,
    name: String,
    /// How long a request waits for the tier.
    timeout: Duration,
    /// How long another gateway may fetch what is waited for.
    lease: Duration,
    stale_when_cut: Duration,
    max_object: usize,
    /// Bytes that answers on their way into the tier may take where there is no first one.
    room: u64,
    coherence: Coherence,
    /// There are several services with a store each, see [`alone`].
    contested: AtomicBool,
    breaker: Breaker,
    orders: mpsc::Sender<orders::Order>,
    untold: Arc<orders::Untold>,
    stores: Arc<std::sync::atomic::AtomicUsize>,
    meters: Meters,
}

/// A thread's ports to the cache service.
#[derive(Debug, Clone)]
pub struct Ports {
    /// For look-ups.
    pub lookup: Port<Lookup>,
    /// For stores.
    pub store: Port<Store>,
    /// For leases.
    pub lease: Port<Lease>,
}

/// Makes a thread's ports, given the thread's index.
pub type PortsFactory = Arc<dyn Fn(usize) -> Ports + Send + Sync>;

/// The second tier on one thread.
#[derive(Debug, Clone)]
pub(crate) struct L2 {
    tier: Arc<Tier>,
    ports: Ports,
}

impl Tier {
    /// The part of this process, which others know by `uid` and people by `name`. What is ordered here is carried out by
    /// [`follow`], which wants the orders.
    pub fn new(uid: Uid, name: &str, timeout: Duration, config: &CacheConfig) -> (Arc<Self>, Orders) {
        let (sender, orders) = orders::channel();
        let tier = Self {
            uid,
            name: name.to_owned(),
            timeout,
            lease: config.store.lease.get(),
            stale_when_cut: config.stale_when_cut.get(),
            max_object: config.store.max_object.as_usize(),
            room: config.store.size.bytes(),
            coherence: Coherence::new(),
            contested: AtomicBool::new(false),
            breaker: Breaker::new(),
            orders: sender,
            untold: Arc::default(),
            stores: Arc::default(),
            meters: Meters::new(),
        };
        (Arc::new(tier), orders)
    }

    /// Whether this process hears of every purge, so that what it has stored may be given.
    pub fn is_live(&self) -> bool {
        self.coherence.is_live()
    }

    /// What may be done with `entry`, which would be `reuse`d if everything here could be believed.
    pub(super) fn believed(&self, reuse: Reuse, entry: &Entry, now: Moment) -> Reuse {
        self.coherence.believed(reuse, entry, now, self.stale_when_cut)
    }

    pub(super) fn max_object(&self) -> usize {
        self.max_object
    }

    pub(super) fn room(&self) -> u64 {
        self.room
    }
}

impl L2 {
    pub(crate) fn new(tier: Arc<Tier>, ports: Ports) -> Self {
        Self { tier, ports }
    }
}
