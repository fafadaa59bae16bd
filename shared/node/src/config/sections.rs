//! The sections that belong to no service: `[node]`, `[admin]`, `[log]`, and the bounds of a queue.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::text;
use crate::units::Duration;

/// The process: its threads and how it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Threads that serve requests: "auto" is one per core the process may use, or a number.
    pub threads: Threads,
    /// Show clients what otherwise only logs show: messages, files and lines of errors. Never in production.
    pub development: bool,
    /// Bind each thread to a core: false, true (one after the other), or a list of cores.
    pub pin: Pin,
    /// After SIGTERM, how long the process answers "not ready" and still accepts, so that balancers in front notice.
    pub drain_delay: Duration,
    /// After the delay, how long requests in flight may take to end before the process stops anyway.
    pub drain_timeout: Duration,
}

/// The listener for operators: /livez, /readyz, /metrics, what the commands ask, and where the metrics service is, /metrics/cluster and /dashboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Its address. With --service and no address set: port 9090 for gateway, 9091 for balancer, 9092 for php-pool, 9093 for cache, 9094 for metrics.
    #[schemars(schema_with = "text::socket_address")]
    pub listen: SocketAddr,
    /// A file with the token that requests must bear, but for /livez and /readyz; empty: none, which is for loopback only.
    #[schemars(schema_with = "text::path")]
    pub token_file: PathBuf,
}

/// What is logged, and how it looks. Logs go to stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The least severe level that is written (error, warn, info, debug, trace), with exceptions by module: "info,troupe_mesh=debug".
    #[schemars(extend("format" = "log-filter"))]
    pub level: String,
    /// "auto" is text on a terminal and JSON otherwise.
    pub format: LogFormat,
}

/// The shape of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The bounds of a queue of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct QueueConfig {
    /// Calls that may wait; the next one is answered 503 at once. 0: nothing waits.
    pub max: u32,
    /// How long a call may wait before it is answered 503, inside its deadline.
    pub wait: Duration,
}

/// How many threads serve requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "\"auto\" or a number from 1 to 1024")]
pub enum Threads {
    /// One per core the process may use.
    #[default]
    #[serde(with = "auto")]
    Auto,
    /// As many as are named.
    Count(NonZeroU16),
}

/// Which cores the threads are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "true, false or a list of cores")]
pub enum Pin {
    /// `false`: the kernel decides. `true`: thread n runs on the n-th core the process may use.
    Each(bool),
    /// Thread n runs on the n-th core of the list, over again when the list is shorter.
    Cores(Vec<u16>),
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            threads: Threads::Auto,
            development: false,
            pin: Pin::default(),
            drain_delay: Duration::from_secs(0),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)), token_file: PathBuf::new() }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { max: 10_000, wait: Duration::from_secs(5) }
    }
}

impl Default for Pin {
    fn default() -> Self {
        Self::Each(false)
    }
}

impl JsonSchema for Threads {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Threads".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] })
    }
}

impl JsonSchema for Pin {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Pin".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "boolean" },
            { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 65535 }, "minItems": 1 },
        ] })
    }
}

/// The word `auto`, for an untagged variant.
mod auto {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("auto")
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match <std::borrow::Cow<'de, str>>::deserialize(deserializer)?.as_ref() {
            "auto" => Ok(()),
            _ => Err(D::Error::custom("not the word auto")),
        }
    }
}
