//! A data thread's share of a listener: shakes hands, serves, drains.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use troupe_wire::handshake::RefusalCode;

use super::socket::RawSocket;
use super::{MAX_LINKS, Shared, refused};
use crate::link::{self, Link, LinkSetup, LinkState, Socket};

/// Handshakes at once per thread; each holds a connection for two seconds at most.
const MAX_HANDSHAKES: usize = 256;

pub(super) async fn serve(
    shared: Arc<Shared>,
    setup: LinkSetup,
    mut arriving: mpsc::Receiver<RawSocket>,
    load: Arc<AtomicUsize>,
) {
    let setup = Rc::new(setup);
    let handshakes = Rc::new(());
    while let Some(connection) = arriving.recv().await {
        let loaded = Loaded(Arc::clone(&load));
        let Ok(socket) = connection.adopt() else {
            continue;
        };
        if Rc::strong_count(&handshakes) > MAX_HANDSHAKES {
            // No answer: whoever opens this many connections without speaking is no peer.
            continue;
        }
        let (shared, setup, handshake) = (Arc::clone(&shared), Rc::clone(&setup), Rc::clone(&handshakes));
        actix_rt::spawn(async move {
            let link = let_in(&shared, socket, &setup).await;
            drop(handshake);
            if let Some(link) = link {
                live(&shared, link).await;
            }
            drop(loaded);
        });
    }
}

async fn let_in(shared: &Shared, socket: Socket, setup: &LinkSetup) -> Option<Link> {
    if shared.draining.borrow().is_some() {
        refused("busy").increment(1);
        link::refuse(socket, setup, RefusalCode::Draining, "this instance is stopping").await;
        return None;
    }
    if *shared.links.borrow() >= MAX_LINKS {
        refused("busy").increment(1);
        link::refuse(socket, setup, RefusalCode::Busy, "this instance has as many links as it may").await;
        return None;
    }
    let from = peer_of(&socket);
    match link::accept(socket, setup).await {
        Ok(link) => {
            let peer = &link.session().peer;
            tracing::info!(peer = %peer.service, instance = %peer.instance, uid = %peer.uid, build = %peer.build, from, "link up");
            Some(link)
        }
        Err(error) => {
            refused(error.cause()).increment(1);
            if let Some(suppressed) = shared.refusals.allow() {
                tracing::warn!(from, %error, suppressed, "no link with a peer that connected");
            }
            None
        }
    }
}

/// Counts a link from its handshake to its end, and passes the drain on to it.
async fn live(shared: &Shared, link: Link) {
    let counted = Counted::new(shared);
    let mut draining = shared.draining.subscribe();
    let mut states = link.states();
    let down = states.wait_for(|state| *state == LinkState::Down);
    tokio::pin!(down);
    tokio::select! {
        _ = &mut down => return,
        Ok(reason) = draining.wait_for(Option::is_some) => link.drain(reason.as_deref().unwrap_or_default()),
    }
    let _ = down.await;
    drop(counted);
}

fn peer_of(socket: &Socket) -> String {
    match socket {
        Socket::Tcp(socket) => socket.peer_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string()),
        Socket::Unix(_) => "unix socket".to_owned(),
    }
}

/// One connection of this thread's load.
struct Loaded(Arc<AtomicUsize>);

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One link of the listener.
struct Counted<'a>(&'a Shared);

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.links.send_modify(|links| *links += 1);
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.links.send_modify(|links| *links -= 1);
    }
}
