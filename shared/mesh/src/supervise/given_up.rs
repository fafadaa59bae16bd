//! Which actors of this process were given up, for whoever tells of the process's health.

use std::sync::LazyLock;

use tokio::sync::watch;

use super::Escalation;

/// Escalations that are remembered. After the first the process is to be restarted; many more say nothing new.
const REMEMBERED: usize = 16;

/// One for the process, as its health is: so no actor is forgotten, wherever and by whom it is started.
static GIVEN_UP: LazyLock<watch::Sender<Vec<Escalation>>> = LazyLock::new(|| watch::channel(Vec::new()).0);

/// The actors of this process that were given up, in that order, and the news of more. There is no way back for them but a
/// restart of the process.
pub fn given_up() -> watch::Receiver<Vec<Escalation>> {
    GIVEN_UP.subscribe()
}

pub(super) fn remember(escalation: &Escalation) {
    GIVEN_UP.send_if_modified(|told| {
        let fits = told.len() < REMEMBERED;
        if fits {
            told.push(escalation.clone());
        }
        fits
    });
}
