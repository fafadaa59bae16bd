//! `[mesh]`: where this process listens for links, and where its peers are.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wiring::Wiring;

/// Links between services that run apart. One process with all services has none and reads only `wiring` of this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MeshConfig {
    /// Where links are accepted: "address:port" or "unix:/path". Empty: 127.0.0.1, balancer on port 7401, php-pool on 7402, cache on 7403, metrics on 7404.
    #[schemars(extend("format" = "mesh-listen"))]
    pub listen: String,
    /// A file with the pre-shared key, 32 bytes or more; required when listening beyond loopback.
    #[schemars(extend("format" = "path"))]
    pub key_file: PathBuf,
    /// A file with another key, which callers may show as well: for the time in which a key is replaced on one instance after another.
    #[schemars(extend("format" = "path"))]
    pub second_key_file: PathBuf,
    /// How peers are found: "static" takes them as written, "dns" looks their names up again every 5 seconds, "redis"
    /// has every service register itself and find the others; peers, where set, are used until one has been found.
    pub discovery: Discovery,
    /// Under "redis", where others dial this process: "address:port" or "unix:/path". Empty: where it listens; for a wildcard
    /// address the one by which this machine reaches Redis.
    #[schemars(extend("format" = "mesh-listen"))]
    pub advertise: String,
    /// Where the other services are: "address:port", "name:port" or "unix:/path", one or several per service.
    pub peers: Peers,
    /// How long a call waits for a link that is away, inside its deadline.
    #[serde(with = "duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub connect_wait: Duration,
    /// How services of one process call each other: "inline" is a function call; "mailbox" and "loopback" cost more and are
    /// there to test with.
    pub wiring: Wiring,
}

/// How peers are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Discovery {
    /// Each peer is one instance.
    #[default]
    Static,
    /// Each peer is a name; every address it has is one instance.
    Dns,
    /// Every instance registers itself in Redis.
    Redis,
}

/// Peers by service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
#[schemars(inline)]
pub struct Peers {
    /// The balancers.
    #[schemars(extend("items" = { "type": "string", "format": "mesh-peer" }))]
    pub balancer: Vec<String>,
    /// The php-pools.
    #[schemars(extend("items" = { "type": "string", "format": "mesh-peer" }))]
    pub php_pool: Vec<String>,
    /// The cache services; with none each gateway's cache is on its own.
    #[schemars(extend("items" = { "type": "string", "format": "mesh-peer" }))]
    pub cache: Vec<String>,
    /// The metrics service; none is waited for, and without one nothing is told.
    #[schemars(extend("items" = { "type": "string", "format": "mesh-peer" }))]
    pub metrics: Vec<String>,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            listen: String::new(),
            key_file: PathBuf::new(),
            second_key_file: PathBuf::new(),
            discovery: Discovery::Static,
            advertise: String::new(),
            peers: Peers::default(),
            connect_wait: Duration::from_secs(2),
            wiring: Wiring::default(),
        }
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            balancer: vec!["127.0.0.1:7401".to_owned()],
            php_pool: vec!["127.0.0.1:7402".to_owned()],
            cache: vec!["127.0.0.1:7403".to_owned()],
            metrics: vec!["127.0.0.1:7404".to_owned()],
        }
    }
}

/// A duration as a string with its unit.
mod duration {
    use std::borrow::Cow;
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|error| D::Error::custom(format!("`{text}` is no duration: {error}")))
    }
}
