//! What stands for a server's report of its load.
//!
//! An upstream server reports nothing by itself, so this process says what its own connections to it tell. A server that
//! refused the last connection is knocked at, and is silent until it opens: so it is out at once, and back without a
//! client's call having been spent on finding out.

use std::sync::Arc;

use troupe_contracts::report::{InstanceReport, PoolReport, Report};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Service};

use super::server::Server;

/// Reports for one server.
pub(super) struct Reporter(Arc<Server>);

impl Reporter {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self(server)
    }
}

impl Service<Report> for Reporter {
    fn call(&self, envelope: Envelope<Report>) -> CallFuture<Report> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            if server.is_unreachable() && !server.probe(envelope.deadline.remaining()).await {
                let failure = Failure::new(Outcome::Unreachable, Stage::Upstream, "it accepts no connection");
                return Err(failure.not_started());
            }
            let report = PoolReport { pool: server.pool.to_string(), load: server.load() };
            Ok(InstanceReport { pools: vec![report] })
        })
    }
}
