//! `cache.l2` and `[cache.store]`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use troupe_node::config::text;
use troupe_node::units::{Duration, Size};

/// Where the tier is that gateways share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SecondTier {
    /// There is none: each gateway's memory is on its own.
    Off,
    /// In the memory of the cache service, of which there is one instance then.
    #[default]
    Embedded,
    /// In Redis, for any number of instances of the cache service.
    Redis,
}

/// What the second tier keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// A file in which the embedded store is kept as well, so that it survives a restart; empty: in memory alone. With one, there is a
    /// second tier in one process with all services, too. It holds `size` of answers, and is about twice as long.
    #[schemars(schema_with = "text::path")]
    pub file: PathBuf,
    /// How much memory the embedded store takes, index included. Redis is bounded by its own `maxmemory`, of which answers
    /// take 80 % at most.
    pub size: Size,
    /// Largest body that is kept.
    pub max_object: Size,
    /// No answer is kept for longer than this, fresh or stale.
    pub max_ttl: Duration,
    /// How long a gateway may fetch an answer that others wait for, before another may fetch it as well.
    pub lease: Duration,
}

impl StoreConfig {
    /// Whether the embedded store is kept on disk.
    pub fn is_on_disk(&self) -> bool {
        !self.file.as_os_str().is_empty()
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            size: Size::from_mib(256),
            max_object: Size::from_mib(8),
            max_ttl: Duration::from_secs(24 * 60 * 60),
            lease: Duration::from_secs(10),
        }
    }
}
