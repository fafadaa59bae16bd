//! `[upstream.NAME]`: a group of HTTP servers and how they are spoken to.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use troupe_node::config::QueueConfig;
use troupe_node::units::Duration;

/// A group of HTTP/1.1 servers that give the same answers: what upstream = "NAME" of a route leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamConfig {
    /// The servers: "host:port", or tables { address = "host:port", weight = 1, max_connections = 512 }. Each address of a name is a server, looked up every 5 seconds.
    pub servers: Vec<ServerConfig>,
    /// How a server is chosen: "score" takes the one that answers soonest for the calls it has.
    pub algorithm: Algorithm,
    /// Most connections to one server at once, over all threads; also the most calls that it is given at once.
    #[schemars(range(min = 1))]
    pub max_connections: u32,
    /// Calls that wait while every server has as many as it may have.
    pub queue: QueueConfig,
    /// How long a server may take.
    pub timeouts: TimeoutsConfig,
    /// Connections kept for later requests.
    pub keep_alive: KeepAliveConfig,
}

/// One entry of `servers`. In a file a string, or a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ServerForm", into = "ServerForm")]
pub struct ServerConfig {
    /// Host and port.
    pub address: String,
    /// Its share beside the others' at equal speed.
    pub weight: u32,
    /// Its own bound on connections; the group's when it is not set.
    pub max_connections: Option<u32>,
}

/// How a server is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Algorithm {
    /// By score.
    #[default]
    Score,
}

/// How long a server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct TimeoutsConfig {
    /// To accept a connection.
    pub connect: Duration,
    /// Longest pause in taking a request in.
    pub write: Duration,
    /// From the complete request to the head of the reply, inside the request's own time.
    pub first_byte: Duration,
    /// Longest pause between two pieces of a reply's body.
    pub idle: Duration,
    /// How long a WebSocket tunnel may be silent, both ways at once.
    pub tunnel: Duration,
}

/// Connections kept for later requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(inline)]
pub struct KeepAliveConfig {
    /// Idle connections to a server that are kept open, and opened, whatever idle says.
    pub min_idle: u32,
    /// How long a connection may lie idle; below what servers keep theirs (Node.js and Apache: 5s).
    pub idle: Duration,
    /// How old a connection may get.
    pub age: Duration,
    /// Requests after which a connection is closed.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// How long a call waits for a connection while all that there may be are in use.
    pub wait: Duration,
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            algorithm: Algorithm::Score,
            max_connections: 512,
            queue: QueueConfig::default(),
            timeouts: TimeoutsConfig::default(),
            keep_alive: KeepAliveConfig::default(),
        }
    }
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            // One lost SYN is made up for after one second.
            connect: Duration::from_secs(3),
            write: Duration::from_secs(30),
            first_byte: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            // Applications say nothing for minutes, and not all of them ping.
            tunnel: Duration::from_secs(60 * 60),
        }
    }
}

impl Default for KeepAliveConfig {
    fn default() -> Self {
        Self {
            min_idle: 0,
            idle: Duration::from_secs(4),
            age: Duration::from_secs(600),
            requests: 100_000,
            wait: Duration::from_secs(1),
        }
    }
}

/// What a server looks like in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum ServerForm {
    Address(String),
    Table(ServerTable),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerTable {
    address: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_connections: Option<u32>,
}

fn one() -> u32 {
    1
}

impl From<ServerForm> for ServerConfig {
    fn from(form: ServerForm) -> Self {
        match form {
            ServerForm::Address(address) => Self { address, weight: 1, max_connections: None },
            ServerForm::Table(ServerTable { address, weight, max_connections }) => {
                Self { address, weight, max_connections }
            }
        }
    }
}

impl From<ServerConfig> for ServerForm {
    fn from(server: ServerConfig) -> Self {
        let ServerConfig { address, weight, max_connections } = server;
        match (weight, max_connections) {
            (1, None) => Self::Address(address),
            _ => Self::Table(ServerTable { address, weight, max_connections }),
        }
    }
}

impl JsonSchema for ServerConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Server".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let address = json_schema!({ "type": "string", "format": "host-and-port" });
        json_schema!({ "anyOf": [
            address,
            {
                "type": "object",
                "properties": {
                    "address": address,
                    "weight": { "type": "integer", "minimum": 1, "maximum": 1000 },
                    "max_connections": { "type": "integer", "minimum": 1, "maximum": 1_000_000 },
                },
                "required": ["address"],
                "additionalProperties": false,
            },
        ] })
    }
}
