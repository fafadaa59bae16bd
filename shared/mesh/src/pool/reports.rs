//! Says that an endpoint cannot be reached: once for the whole process, however many of its threads dial, and not again
//! for a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::discovery::Endpoint;
use crate::link::ConnectError;
use crate::rate_limit::RateLimit;

/// Pause between two lines of one kind about one endpoint.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// What all threads' connectors share. Entries whose connectors are gone are removed when one is added, so there are as
/// many as there are endpoints.
static ALL: Mutex<Known> = Mutex::new(BTreeMap::new());

type Known = BTreeMap<(Box<str>, Endpoint), Weak<Reports>>;

/// The lines about one endpoint of a service.
pub(super) struct Reports {
    service: Box<str>,
    endpoint: Endpoint,
    away: RateLimit,
    /// Apart from the other: an endpoint that was away and now refuses has news.
    refused: RateLimit,
}

impl Reports {
    /// The one for this endpoint of `service`.
    pub(super) fn about(service: &str, endpoint: &Endpoint) -> Arc<Self> {
        let mut all = ALL.lock();
        let key = (Box::from(service), endpoint.clone());
        if let Some(reports) = all.get(&key).and_then(Weak::upgrade) {
            return reports;
        }
        all.retain(|_, reports| reports.strong_count() > 0);
        let reports = Arc::new(Self {
            service: service.into(),
            endpoint: endpoint.clone(),
            away: RateLimit::new(LOG_EVERY),
            refused: RateLimit::new(LOG_EVERY),
        });
        all.insert(key, Arc::downgrade(&reports));
        reports
    }

    /// A dial has failed.
    pub(super) fn failed(&self, error: &ConnectError) {
        let service = &*self.service;
        let cause = error.cause();
        metrics::counter!("troupe_mesh_failed_dials_total", "peer" => service.to_owned(), "cause" => cause)
            .increment(1);
        let limit = if error.is_refusal() { &self.refused } else { &self.away };
        let Some(suppressed) = limit.allow() else {
            return;
        };
        let endpoint = &self.endpoint.name;
        if error.is_refusal() {
            tracing::error!(service, %endpoint, %error, suppressed, "no link: the peer and this side do not match");
        } else {
            tracing::warn!(service, %endpoint, %error, suppressed, "no link yet: dialling goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_what_was_said() {
        let endpoint = Endpoint::from("127.0.0.1:1".parse::<crate::discovery::Address>().unwrap());
        let one = Reports::about("nobody", &endpoint);
        let other = Reports::about("nobody", &endpoint);
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one, &Reports::about("somebody", &endpoint)));
        drop((one, other));
        let anew = Reports::about("nobody", &endpoint);
        assert_eq!(anew.away.allow(), Some(0));
    }
}
