//! What warming the cache needs of a front.

use std::time::Duration;

use troupe_wire::head::RequestHead;

use super::{Front, Plan, Purpose};
use crate::request::Request;
use crate::server::Noted;

impl Front {
    /// Decides what is done to warm the cache with what `request` asks for; `anew`: also where that is there, and fresh.
    pub(crate) fn plan_warming(&self, request: &Request, anew: bool) -> Plan {
        self.plan_for(request, Purpose::Warming { anew })
    }

    /// How long what is stored for a request is still fresh, and how long it was to be.
    pub(crate) fn freshness(&self, head: &RequestHead) -> Option<(Duration, Duration)> {
        self.shared.cache.as_ref()?.freshness(head)
    }

    /// What this thread is asked for, where that is predicted.
    pub(crate) fn noted(&self) -> Option<&Noted> {
        self.noted.as_ref()
    }
}
