//! An embedded store is the memory of one process: of two, each would tell its own gateways another truth. The configuration
//! forbids it where it lists the services; where they are found by DNS or in Redis, only who finds them knows.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;
use troupe_mesh::pool::Instance;

use super::Tier;

/// The cache services that this process is linked to, where there must be one.
pub type Services = watch::Receiver<Arc<[Instance]>>;

/// Looks after it.
#[derive(Debug)]
pub(super) struct Alone {
    services: Option<Services>,
    told: bool,
}

impl Alone {
    /// `services`: `None` where there may be any number.
    pub(super) fn new(services: Option<Services>) -> Self {
        Self { services, told: false }
    }

    pub(super) fn is_contested(&self) -> bool {
        self.services.as_ref().is_some_and(|services| services.borrow().len() > 1)
    }

    /// Waits until there is one at most. Until then neither what is stored here is believed nor what is stored there.
    pub(super) async fn wait(&mut self, tier: &Tier) {
        while self.is_contested() {
            tier.contested.store(true, Ordering::Release);
            tier.coherence.cut();
            self.tell();
            let Some(services) = &mut self.services else { return };
            if services.changed().await.is_err() {
                return;
            }
        }
        if tier.contested.swap(false, Ordering::AcqRel) {
            self.told = false;
        }
    }

    fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            let names = self.services.as_ref().map(|services| {
                services.borrow().iter().map(|instance| instance.name.to_string()).collect::<Vec<_>>().join(", ")
            });
            tracing::error!(
                services = names.unwrap_or_default(),
                "several cache services, each with a store of its own: what is purged at one the others would still give, \
                 so nothing stored is given without being validated; stop all but one, or set cache.l2 to \"redis\""
            );
        }
    }
}
