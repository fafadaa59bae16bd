//! Which actors of this process were given up, for whoever tells of the process's health.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use tokio::sync::watch;

use super::Escalation;

/// Escalations that are remembered. After the first the process is to be restarted; many more say nothing new.
const REMEMBERED: usize = 16;

/// One for the process, as its health is: so no actor is forgotten, wherever and by whom it is started.
static GIVEN_UP: LazyLock<watch::Sender<Vec<GivenUp>>> = LazyLock::new(|| watch::channel(Vec::new()).0);

/// An actor that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Tells it from every other that this process has started, those that do the same included.
    pub actor: u64,
    /// What is told of it.
    pub escalation: Escalation,
}

/// The actors of this process that were given up, in that order, and the news of changes. There is no way back for them but a
/// restart of the process, or that [another takes their place](super::Handle::replaced).
pub fn given_up() -> watch::Receiver<Vec<GivenUp>> {
    GIVEN_UP.subscribe()
}

/// One actor, through all of its lives.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    number: u64,
    replaced: Arc<AtomicBool>,
}

impl Identity {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), replaced: Arc::default() }
    }

    /// Remembers that it was given up, unless nothing depends on it any more.
    pub(super) fn is_given_up(&self, escalation: &Escalation) {
        GIVEN_UP.send_if_modified(|told| {
            // Looked at under the list's lock, as it is set before the list is gone through.
            let news = told.len() < REMEMBERED && !self.replaced.load(Ordering::Acquire);
            if news {
                told.push(GivenUp { actor: self.number, escalation: escalation.clone() });
            }
            news
        });
    }

    pub(super) fn is_replaced(&self) {
        self.replaced.store(true, Ordering::Release);
        GIVEN_UP.send_if_modified(|told| {
            let before = told.len();
            told.retain(|lost| lost.actor != self.number);
            told.len() < before
        });
    }
}
