//! The cache service: the tier that gateways share, and what keeps their own memories coherent with it.
//!
//! ```text
//! gateway ──Lookup──▶ face ─▶ tier: embedded, or Redis        an answer, or the lease to fetch one
//!         ──Store───▶
//!         ──Purge───▶ face ─▶ tier ─▶ history ─▶ hub ─▶ every watcher ─▶ confirmed, or its lease ran out
//!         ◀─Watch──── hub
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`config`] | `cache.l2` and `[cache.store]` |
//! | `face` | answers the contracts of [`troupe_contracts::cache`] |
//! | `tier` | what is asked, whichever store there is |
//! | `embedded`, `leases` | the store in this process's memory, and who fetches |
//! | `holders` | gives back what a gateway was fetching that went away |
//! | `disk` | the copy of it that survives a restart |
//! | `redis` | the store in Redis, and the history there |
//! | `hub` | the history of purges, who watches it, and who has confirmed what |
//! | `watchers` | the leases of watchers: pure, by a clock that is handed in |
//! | `stream` | one watcher's stream |
//! | [`convert`] | keys and selectors as messages say them |

pub mod config;
pub mod convert;

mod disk;
mod embedded;
mod face;
mod holders;
mod hub;
mod leases;
mod meters;
mod redis;
mod stream;
mod tier;
mod watchers;
mod wiring;

pub use disk::OpenError;
pub use meters::describe;
pub use watchers::WATCH_LEASE;
pub use wiring::{CacheService, Faces};
