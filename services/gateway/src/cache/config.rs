//! `[cache]`, and `cache` on a route.

mod cdn;
mod statuses;
mod warm;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use troupe_cache::service::config::{SecondTier, StoreConfig};
use troupe_cache::store::Eviction;
use troupe_node::units::{Duration, Percent, Size, UnitError};

pub use cdn::{CdnBodies, CdnConfig, CdnPreset};
pub use statuses::Statuses;
pub use warm::{Schedule, WarmConfig};

/// The cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// The first tier: the gateway's own memory, one store for all its threads.
    pub l1: L1Config,
    /// The second tier, which gateways share: "embedded" is the memory of the cache service, of which there is one instance
    /// then; "redis" is Redis, behind any number of cache services; "off": each gateway is on its own. In one process with
    /// all services "embedded" adds nothing to the first tier, and there is none unless store.file keeps it on disk.
    pub l2: SecondTier,
    /// What the second tier keeps.
    pub store: StoreConfig,
    /// How long a gateway that is cut off from the cache service gives what was fresh when it was, where it cannot be
    /// validated either.
    pub stale_when_cut: Duration,
    /// What is fetched before anybody asks for it.
    pub warm: WarmConfig,
    /// A content delivery network in front of the gateways, which is told of purges.
    pub cdn: CdnConfig,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            l1: L1Config::default(),
            l2: SecondTier::default(),
            store: StoreConfig::default(),
            stale_when_cut: Duration::from_secs(30),
            warm: WarmConfig::default(),
            cdn: CdnConfig::default(),
        }
    }
}

/// The first tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct L1Config {
    /// How much memory it takes, index included: a size, or a share of the memory this process may use. "0B" switches
    /// it off.
    pub size: Amount,
    /// Largest body that is stored; at most half of the size.
    pub max_object: Size,
    /// No answer counts as fresh there for longer than this after it came. Then it is asked for again: of the second tier, which
    /// may have it still, or as if it were stale.
    pub max_ttl: Duration,
    /// What goes when it is full.
    pub policy: L1Policy,
}

/// What goes when the first tier is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum L1Policy {
    /// What was not asked for again, in the order in which it came.
    #[default]
    S3Fifo,
    /// What was not asked for the longest. Each hit takes a lock.
    Lru,
}

/// An amount of memory: a size, or a share of what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Size(Size),
    /// A share of the memory that the process may use.
    Share(Percent),
}

/// What a route says about caching: false, true, or a table of details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RouteCache {
    /// True: as the responses' own headers say. False: never.
    Switch(bool),
    /// As the responses' headers say, with these details.
    Details(CacheDetails),
}

impl<'de> Deserialize<'de> for RouteCache {
    /// By hand: a choice that serde makes for itself keeps to itself what was wrong with a table.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RouteCache;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("true, false or a table")
            }

            fn visit_bool<E>(self, on: bool) -> Result<RouteCache, E> {
                Ok(RouteCache::Switch(on))
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<RouteCache, A::Error> {
                CacheDetails::deserialize(MapAccessDeserializer::new(table)).map(RouteCache::Details)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// How the answers of one route are cached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheDetails {
    /// How long answers are fresh, whatever they say themselves. It opens nothing that they close: no-store, private and
    /// cookies are obeyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// No answer is fresh for longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<Duration>,
    /// Longest lifetimes of answers by status: { "404" = "10s", "5xx" = "1s" }. ttl counts for the statuses that are named
    /// here, and for those that may be stored without being told to (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status_ttl: BTreeMap<Statuses, Duration>,
    /// How long a content delivery network in front keeps what is stored here: sent as CDN-Cache-Control and Surrogate-Control,
    /// with the answer's groups as Surrogate-Key and Cache-Tag, where the answer has no such fields of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cdn_ttl: Option<Duration>,
    /// How long a stale answer is given while a new one is fetched, where the answer itself names no time.
    pub stale_while_revalidate: Duration,
    /// How long a stale answer is given when a new one cannot be had, where the answer itself names no time.
    pub stale_if_error: Duration,
    /// Guess how long an answer with Last-Modified and nothing else is fresh: a tenth of its age, a day at most.
    pub heuristic: bool,
    /// Answers do not depend on Cookie: ttl counts for requests with cookies too.
    pub ignore_cookies: bool,
    /// Obey the Cache-Control of requests (no-cache, max-age, ...).
    pub obey_requests: bool,
    /// Parameters of the query that neither tell answers apart nor are passed on; a * at the end stands for any ending.
    pub ignore_query: Vec<String>,
    /// Bring the parameters of the query in order: ?a=1&b=2 and ?b=2&a=1 are one.
    pub sort_query: bool,
}

impl Default for L1Config {
    fn default() -> Self {
        Self {
            size: Amount::Size(Size::from_mib(256)),
            max_object: Size::from_mib(8),
            max_ttl: Duration::from_secs(24 * 60 * 60),
            policy: L1Policy::default(),
        }
    }
}

impl Default for CacheDetails {
    fn default() -> Self {
        Self {
            ttl: None,
            max_ttl: None,
            status_ttl: BTreeMap::new(),
            cdn_ttl: None,
            stale_while_revalidate: Duration::default(),
            stale_if_error: Duration::default(),
            heuristic: true,
            ignore_cookies: false,
            obey_requests: true,
            ignore_query: Vec::new(),
            sort_query: false,
        }
    }
}

impl From<L1Policy> for Eviction {
    fn from(policy: L1Policy) -> Self {
        match policy {
            L1Policy::S3Fifo => Self::S3Fifo,
            L1Policy::Lru => Self::Lru,
        }
    }
}

impl Amount {
    /// In bytes, of `whole` bytes.
    #[must_use]
    pub fn bytes(self, whole: u64) -> u64 {
        match self {
            Self::Size(size) => size.bytes(),
            Self::Share(share) => share.of(whole),
        }
    }
}

impl FromStr for Amount {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text.trim_end().ends_with('%') {
            true => text.parse().map(Self::Share),
            false => text.parse().map(Self::Size),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size(size) => size.fmt(f),
            Self::Share(share) => share.fmt(f),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "amount" })
    }
}

impl JsonSchema for RouteCache {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RouteCache".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let details = CacheDetails::json_schema(generator);
        json_schema!({ "anyOf": [{ "type": "boolean" }, details] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_sizes_or_shares() {
        assert_eq!("64MiB".parse::<Amount>().map(|amount| amount.bytes(0)), Ok(64 << 20));
        assert_eq!("60%".parse::<Amount>().map(|amount| amount.bytes(1000)), Ok(600));
        assert!("60".parse::<Amount>().is_err() && "x%".parse::<Amount>().is_err());
        assert_eq!("60%".parse::<Amount>().map(|amount| amount.to_string()), Ok("60%".to_owned()));
    }
}
