//! HTTP caching. The rules of RFC 9111 and its companions stand here without sockets, clocks or threads: what may be
//! stored ([`storing`]), what may be answered from the store ([`reuse`]), and how the two are kept true ([`entry`],
//! [`invalidation`]). [`store`] is the store in memory that all threads of a process share. [`service`] is the cache service:
//! the tier that gateways share, and what keeps their memories coherent.
//!
//! ```text
//! request ─▶ store ─▶ reuse::decide ─▶ fresh │ stale │ to be validated
//!                          response ─▶ storing::judge ─▶ an entry, or why not
//! ```
//!
//! What comes in may be anything: a malformed field is read as the stricter of its meanings or not at all, and never
//! makes a response fresher than a well-formed one.

pub mod cache_status;
pub mod conditions;
pub mod control;
pub mod entry;
pub mod fields;
pub mod freshness;
pub mod groups;
pub mod invalidation;
pub mod key;
pub mod object;
pub mod partial;
pub mod policy;
pub mod range;
pub mod record;
pub mod reuse;
pub mod service;
pub mod store;
pub mod storing;
pub mod targeted;
pub mod time;
pub mod validators;
pub mod vary;

#[cfg(test)]
mod heads;
