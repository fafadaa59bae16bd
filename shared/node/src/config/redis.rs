//! `[redis]`: the server, Sentinels or cluster that instances of all services share.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text;
use crate::units::Duration;

/// Redis, where something asks for it: `mesh.discovery = "redis"`, `cache.l2 = "redis"`. Nothing needs it to start or to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// What stands behind it: "single" is the one server at `url`, "sentinel" whatever server the Sentinels at `nodes` call the
    /// master, "cluster" the Redis Cluster that `nodes` belong to.
    pub mode: RedisMode,
    /// The one server: "redis://host:6379/0", or "unix:///run/redis.sock?db=0" for a socket. A password belongs in
    /// `password_file`; one that stands here is hidden in `config show`.
    #[schemars(extend("format" = "redis-url"))]
    pub url: String,
    /// The Sentinels, or some nodes of the cluster: "host:port" each. The others are learned from them.
    #[schemars(extend("items" = { "type": "string", "format": "host-and-port" }))]
    pub nodes: Vec<String>,
    /// The name of the master, as the Sentinels know it.
    pub master: String,
    /// The database of the master that the Sentinels name. A single server's is in its URL, a cluster has one only.
    pub database: u8,
    /// The user to log in as; empty: the server's default user.
    pub username: String,
    /// A file with the password of the servers; empty: none. White space around it does not count.
    #[schemars(schema_with = "text::path")]
    pub password_file: PathBuf,
    /// A file with the password of the Sentinels; empty: none.
    #[schemars(schema_with = "text::path")]
    pub sentinel_password_file: PathBuf,
    /// What the names of all keys begin with. Stacks that share a Redis need one each.
    pub namespace: String,
    /// How long a command may take; a new connection may take ten times as long. What takes longer counts as an outage.
    pub timeout: Duration,
}

/// What stands behind the configuration of Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum RedisMode {
    /// One server.
    #[default]
    Single,
    /// The master that Sentinels name.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            mode: RedisMode::Single,
            url: "redis://127.0.0.1:6379".to_owned(),
            nodes: Vec::new(),
            master: "mymaster".to_owned(),
            database: 0,
            username: String::new(),
            password_file: PathBuf::new(),
            sentinel_password_file: PathBuf::new(),
            namespace: "troupe".to_owned(),
            timeout: Duration::from_millis(50),
        }
    }
}
