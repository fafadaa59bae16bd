//! What the configuration of a route says about its caching.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How the responses of one route are cached. The default follows the responses' own headers and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long responses are fresh, whatever they say themselves; `None`: as they say. It opens nothing that is
    /// closed: `no-store`, `private`, `no-cache`, cookies and `Authorization` are obeyed all the same.
    pub ttl: Option<Duration>,
    /// No response is fresh for longer.
    pub max_ttl: Duration,
    /// What else holds for responses of certain statuses.
    pub statuses: Vec<StatusTtl>,
    /// How long a stale response may be answered while a new one is fetched, where the response names no time itself.
    pub stale_while_revalidate: Duration,
    /// How long a stale response may be answered when a new one cannot be had, where the response names no time itself.
    pub stale_if_error: Duration,
    /// Whether a response with `Last-Modified` and no lifetime gets one (RFC 9111 §4.2.2).
    pub heuristic: bool,
    /// Whether answers are the same with any `Cookie`. Otherwise [`Policy::ttl`] counts for requests without cookies only.
    pub ignore_cookies: bool,
    /// Whether the `Cache-Control` of requests is obeyed (RFC 9111 §5.2.1).
    pub obey_requests: bool,
    /// Only `Troupe-Cache-Control` opens the cache: for routes whose configuration does not mention it.
    pub only_targeted: bool,
}

/// How long responses of some statuses are fresh at most. [`Policy::ttl`] counts for them; for statuses that none of these
/// names it counts where RFC 9110 §15.1 lets a response be stored that does not ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusTtl {
    /// The statuses.
    pub statuses: RangeInclusive<u16>,
    /// No response of them is fresh for longer.
    pub ttl: Duration,
}

impl Policy {
    /// What is said of `status`: by the narrowest of those that hold it.
    pub fn of_status(&self, status: u16) -> Option<Duration> {
        let holding = self.statuses.iter().filter(|one| one.statuses.contains(&status));
        let width = |one: &&StatusTtl| one.statuses.end() - one.statuses.start();
        holding.min_by_key(width).map(|one| one.ttl)
    }

    /// A policy for a route that is configured without details.
    pub fn new() -> Self {
        Self {
            ttl: None,
            max_ttl: Duration::from_secs(u64::from(crate::time::LONGEST)),
            statuses: Vec::new(),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            heuristic: true,
            ignore_cookies: false,
            obey_requests: true,
            only_targeted: false,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}
