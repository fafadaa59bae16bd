//! Where a service is reached: one task accepts and hands each connection to the data thread with the fewest links.
//!
//! A link stays on the thread it was handed to; so do the handlers of its calls. The accept task runs where
//! [`MeshListener::bind`] is called, each data thread says with [`Acceptor::serve`] what it serves.

mod socket;
mod thread;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::discovery::Address;
use crate::link::LinkSetup;
use crate::rate_limit::RateLimit;

use self::socket::{BoundSocket, RawSocket};

/// Connections that may wait for a data thread; it takes them within one turn of its loop.
const HAND_OVER: usize = 64;
/// Most links of one listener. A caller has one per thread, so this is hundreds of instances.
pub const MAX_LINKS: usize = 4096;
/// Pause after an accept that failed, as it does when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two lines about refused peers.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// A listener for links. Dropping it closes the socket; links that are up go on.
#[derive(Debug)]
pub struct MeshListener {
    shared: Arc<Shared>,
    address: Address,
    task: AbortHandle,
}

/// A data thread's share of a listener.
#[derive(Debug, Clone)]
pub struct Acceptor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    threads: Mutex<Vec<Lane>>,
    /// Threads that serve; the accept task waits for the first.
    serving: watch::Sender<usize>,
    links: watch::Sender<usize>,
    /// The reason, once the listener drains.
    draining: watch::Sender<Option<Arc<str>>>,
    refusals: RateLimit,
}

/// The way to one data thread.
#[derive(Debug)]
struct Lane {
    sockets: mpsc::Sender<RawSocket>,
    /// Its links, and the connections on their way to become one.
    load: Arc<AtomicUsize>,
}

impl MeshListener {
    /// Binds `address` and starts to accept on this thread. A Unix socket left behind by a dead process is replaced.
    ///
    /// # Errors
    /// When the address is in use or not this host's.
    pub fn bind(address: &Address) -> io::Result<Self> {
        let socket = BoundSocket::bind(address)?;
        let address = socket.address()?;
        // There from the start, so that the first one is a rise.
        CAUSES.iter().for_each(|cause| refused(cause).increment(0));
        let shared = Arc::new(Shared {
            threads: Mutex::new(Vec::new()),
            serving: watch::Sender::new(0),
            links: watch::Sender::new(0),
            draining: watch::Sender::new(None),
            refusals: RateLimit::new(LOG_EVERY),
        });
        let task = actix_rt::spawn(accept_loop(socket, Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, address, task })
    }

    /// The address that was bound; its port is a real one when port 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// For a data thread to take its share of the links.
    pub fn acceptor(&self) -> Acceptor {
        Acceptor { shared: Arc::clone(&self.shared) }
    }

    /// Links that are up.
    pub fn links(&self) -> usize {
        *self.shared.links.borrow()
    }

    /// Stops accepting and tells every peer to make its calls elsewhere; links end as their calls do.
    pub fn drain(&self, reason: &str) {
        self.task.abort();
        self.shared.draining.send_replace(Some(Arc::from(reason)));
    }

    /// Resolves when no link is left.
    pub async fn drained(&self) {
        // The sender lives as long as this listener.
        let _ = self.shared.links.subscribe().wait_for(|links| *links == 0).await;
    }
}

impl Drop for MeshListener {
    fn drop(&mut self) {
        self.task.abort();
        // The data threads' tasks hold what is shared; without their lanes they end.
        self.shared.threads.lock().clear();
    }
}

/// Why peers that connected got no link, as they are counted; what is none of these is the last.
const CAUSES: [&str; 6] = ["busy", "key", "protocol", "timeout", "reset", "other"];

/// Counts connections of peers that became no link.
fn refused(cause: &'static str) -> metrics::Counter {
    let cause = if CAUSES.contains(&cause) { cause } else { "other" };
    metrics::counter!("troupe_mesh_refused_links_total", "cause" => cause)
}

impl Acceptor {
    /// Serves the links that fall to this thread with `setup`, until the thread ends.
    pub fn serve(&self, setup: LinkSetup) {
        let (sockets, arriving) = mpsc::channel(HAND_OVER);
        let load = Arc::new(AtomicUsize::new(0));
        actix_rt::spawn(thread::serve(Arc::clone(&self.shared), setup, arriving, Arc::clone(&load)));
        self.shared.threads.lock().push(Lane { sockets, load });
        self.shared.serving.send_modify(|serving| *serving += 1);
    }
}

async fn accept_loop(socket: BoundSocket, shared: Arc<Shared>) {
    let mut serving = shared.serving.subscribe();
    if serving.wait_for(|serving| *serving > 0).await.is_err() {
        return;
    }
    loop {
        match socket.accept().await {
            Ok(connection) => shared.hand_over(connection),
            Err(error) => {
                if let Some(suppressed) = shared.refusals.allow() {
                    tracing::warn!(%error, suppressed, "cannot accept a link");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Shared {
    /// Gives a connection to the thread with the fewest links; threads that have ended are forgotten.
    fn hand_over(&self, connection: RawSocket) {
        let mut threads = self.threads.lock();
        threads.retain(|lane| !lane.sockets.is_closed());
        let Some(lane) = threads.iter().min_by_key(|lane| lane.load.load(Ordering::Relaxed)) else {
            return;
        };
        lane.load.fetch_add(1, Ordering::Relaxed);
        if lane.sockets.try_send(connection).is_err() {
            lane.load.fetch_sub(1, Ordering::Relaxed);
            refused("busy").increment(1);
            if let Some(suppressed) = self.refusals.allow() {
                tracing::warn!(suppressed, "dropped a connection: the data thread does not keep up with new links");
            }
        }
    }
}
