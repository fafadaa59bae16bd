//! From `[redis]` to a client.

use std::path::Path;

use troupe_node::config::{RedisConfig, RedisMode};
use troupe_redis::{Login, Node, Redis, Server, Settings, Topology};

use crate::failure::{Code, CommandError};

/// Makes the client; connects to nothing.
///
/// # Errors
///
/// When a password file cannot be read, or what the configuration's rules let pass contradicts itself.
pub(crate) fn open(config: &RedisConfig) -> Result<Redis, CommandError> {
    let wrong = |key: &str, why: String| CommandError::new(Code::Configuration, format!("redis.{key}: {why}"));
    let nodes = || {
        let read = |text: &String| text.parse().map_err(|_| wrong("nodes", format!("`{text}` is no host:port")));
        config.nodes.iter().map(read).collect::<Result<Vec<Node>, _>>()
    };
    let topology = match config.mode {
        RedisMode::Single => {
            Topology::Single(config.url.parse::<Server>().map_err(|error| wrong("url", error.to_string()))?)
        }
        RedisMode::Sentinel => Topology::Sentinel {
            sentinels: nodes()?,
            login: Login {
                username: None,
                password: password("sentinel_password_file", &config.sentinel_password_file)?,
            },
            master: config.master.clone(),
            database: config.database,
        },
        RedisMode::Cluster => Topology::Cluster { nodes: nodes()? },
    };
    let username = Some(config.username.clone()).filter(|username| !username.is_empty());
    let login = Login { username, password: password("password_file", &config.password_file)? };
    let (namespace, timeout) = (config.namespace.clone(), config.timeout.get());
    Redis::open(&Settings { topology, login, namespace, timeout }).map_err(|error| wrong("url", error.to_string()))
}

/// The file's text without surrounding white space; none without a file.
fn password(key: &str, path: &Path) -> Result<Option<String>, CommandError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) => {
            let message = format!("redis.{key}: cannot use {}: {error}", path.display());
            Err(CommandError::new(Code::Configuration, message))
        }
    }
}
