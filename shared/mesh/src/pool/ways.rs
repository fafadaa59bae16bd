//! The ways to one instance, and which of them is dialled first.

use std::sync::Arc;

use super::reports::Reports;
use crate::discovery::Endpoint;
use crate::link::{ConnectError, Link, LinkSetup, dial};

/// What is dialled of one endpoint.
pub(super) struct Ways {
    service: Box<str>,
    ways: Vec<Way>,
}

struct Way {
    endpoint: Endpoint,
    /// Kept from dial to dial: it knows what was said.
    reports: Arc<Reports>,
}

impl Ways {
    /// None yet, to an instance of `service`.
    pub(super) fn new(service: &str) -> Self {
        Self { service: service.into(), ways: Vec::new() }
    }

    /// Takes over the ways that `endpoint` has now. Those that it had keep their order.
    pub(super) fn follow(&mut self, endpoint: &Endpoint) {
        let named: Vec<Endpoint> = endpoint.ways().collect();
        self.ways.retain(|way| named.contains(&way.endpoint));
        for endpoint in named {
            if !self.ways.iter().any(|way| way.endpoint == endpoint) {
                let reports = Reports::about(&self.service, &endpoint);
                self.ways.push(Way { endpoint, reports });
            }
        }
    }

    /// Dials one way after the other until one leads to the service. The next round begins with that one.
    pub(super) async fn dial(&mut self, setup: &LinkSetup) -> Option<(Link, Endpoint)> {
        for (index, way) in self.ways.iter().enumerate() {
            match dial(&way.endpoint.address, setup).await.and_then(|link| self.expected(link)) {
                Ok(link) => {
                    let endpoint = way.endpoint.clone();
                    self.ways.swap(0, index);
                    return Some((link, endpoint));
                }
                Err(error) => way.reports.failed(&error),
            }
        }
        None
    }

    /// The address of an instance that is gone may have become another service's.
    fn expected(&self, link: Link) -> Result<Link, ConnectError> {
        let there = &link.session().peer.service;
        if **there == *self.service {
            return Ok(link);
        }
        Err(ConnectError::Service { there: there.clone(), wanted: self.service.to_string() })
    }
}
