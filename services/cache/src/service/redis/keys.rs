//! The names of keys.
//!
//! | key | type | what |
//! |---|---|---|
//! | `ns:{cache}:epochs` | hash | the generation, the number of the last purge, and numbers by what they are about |
//! | `ns:{cache}:prefixes` | hash | the same for beginnings of URLs, which cannot be looked up |
//! | `ns:{cache}:log` | stream | the last purges; ids are their numbers |
//! | `ns:{cache}:services` | sorted set | instances of the service by the end of their leases, by Redis' clock |
//! | `ns:{cache}:acks` | hash | how far each of them is |
//! | `ns:{cache}:found` | hash | what gateways found, by purge |
//! | `ns:{<url>}:o` | string | an answer, or which fields its variants differ by |
//! | `ns:{<url>}:o:<variant>` | string | the answer of a variant |
//! | `ns:{<url>}:b:<id>:<n>` | string | a further part of a body |
//! | `ns:{<lease>}:l` | string | who may fetch it; or that answers of it are not stored |
//! | `ns:{<lease>}:w:<nonce>` | string | that a call which has not come yet is not to take it |
//!
//! The braces are a hash tag: in a cluster the first six are on one node, and what belongs to one URL is on one.

use troupe_contracts::cache::LeaseName;

/// The names of one namespace.
#[derive(Debug)]
pub(super) struct Keys {
    namespace: String,
    pub(super) epochs: String,
    pub(super) prefixes: String,
    pub(super) log: String,
    pub(super) services: String,
    pub(super) acks: String,
    pub(super) found: String,
}

impl Keys {
    pub(super) fn new(namespace: &str) -> Self {
        let one = |name: &str| format!("{namespace}:{{cache}}:{name}");
        Self {
            namespace: namespace.to_owned(),
            epochs: one("epochs"),
            prefixes: one("prefixes"),
            log: one("log"),
            services: one("services"),
            acks: one("acks"),
            found: one("found"),
        }
    }

    /// That a call is withdrawn which was to take a lease.
    pub(super) fn withdrawn(&self, lease: &LeaseName, nonce: u64) -> String {
        format!("{}:{{{}}}:w:{nonce:x}", self.namespace, hex(lease))
    }

    /// The answers of a URL.
    pub(super) fn object(&self, url: &LeaseName) -> String {
        format!("{}:{{{}}}:o", self.namespace, hex(url))
    }

    /// The answer of one of its variants.
    pub(super) fn variant(&self, url: &LeaseName, variant: &LeaseName) -> String {
        format!("{}:{}", self.object(url), hex(variant))
    }

    /// A further part of a body.
    pub(super) fn chunk(&self, url: &LeaseName, id: u64, number: usize) -> String {
        format!("{}:{{{}}}:b:{id:x}:{number}", self.namespace, hex(url))
    }

    /// A lease.
    pub(super) fn lease(&self, lease: &LeaseName) -> String {
        format!("{}:{{{}}}:l", self.namespace, hex(lease))
    }
}

pub(super) fn hex(name: &LeaseName) -> String {
    format!("{:032x}", u128::from_be_bytes(*name))
}
