//! Which instances elsewhere this process has links to.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use troupe_mesh::pool::Instance;

use crate::services::Service;

type Links = watch::Receiver<Arc<[Instance]>>;

/// The links of all threads.
#[derive(Clone, Default)]
pub(in crate::stack) struct Linked(Arc<Mutex<Vec<(Service, Links)>>>);

impl Linked {
    /// Adds the links of a thread to a service.
    pub(in crate::stack) fn add(&self, service: Service, links: Links) {
        self.0.lock().push((service, links));
    }

    /// Each instance once, with how many threads have a link to it.
    pub(super) fn list(&self) -> Value {
        let mut found: BTreeMap<(&str, String, String), u32> = BTreeMap::new();
        let links = self.0.lock();
        for (service, links) in links.iter() {
            for instance in links.borrow().iter() {
                let address = instance.endpoint.address.to_string();
                *found.entry((service.name(), instance.name.to_string(), address)).or_default() += 1;
            }
        }
        let list = found.into_iter().map(|((service, instance, address), threads)| {
            json!({ "service": service, "instance": instance, "address": address, "threads": threads })
        });
        list.collect()
    }
}
