//! Where Redis is and how to log in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo};

/// Everything that is needed to use Redis.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What stands behind it.
    pub topology: Topology,
    /// How to log in to the servers.
    pub login: Login,
    /// What the names of all keys begin with: letters, digits, `-`, `_`, `.` and `:`.
    pub namespace: String,
    /// How long a command may take; a new connection may take ten times as long.
    pub timeout: Duration,
}

/// What stands behind [`Settings`].
#[derive(Debug, Clone)]
pub enum Topology {
    /// One server.
    Single(Server),
    /// The master that Sentinels name.
    Sentinel {
        /// The Sentinels, one at least.
        sentinels: Vec<Node>,
        /// How to log in to them.
        login: Login,
        /// The master's name.
        master: String,
        /// The master's database.
        database: u8,
    },
    /// A Redis Cluster.
    Cluster {
        /// Some of its nodes, one at least.
        nodes: Vec<Node>,
    },
}

/// A user and a password. Its debug form shows neither.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The user; none is the server's default user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<String>,
}

/// A server by name or address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its host name or IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// One server, as a URL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub place: Place,
    /// The database.
    pub database: i64,
    /// The login that stands in the URL.
    pub login: Login,
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Tcp(Node),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a URL names no server. Says nothing of what stands in it, which may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// The scheme is missing or another.
    #[error("it begins with none of redis:// and unix://")]
    Scheme,
    /// It asks for TLS.
    #[error("TLS to redis is not supported")]
    Tls,
    /// What follows the scheme cannot be read.
    #[error("it is none of redis://host:port/database and unix:///path?db=database")]
    Malformed,
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = |part: &Option<String>| if part.is_some() { "***" } else { "none" };
        write!(out, "Login {{ username: {}, password: {} }}", given(&self.username), given(&self.password))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(out, "[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Node {
    type Err = ServerError;

    /// Reads `host:port`; an IPv6 address has brackets.
    fn from_str(text: &str) -> Result<Self, ServerError> {
        let (host, port) = text.rsplit_once(':').ok_or(ServerError::Malformed)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ServerError::Malformed)?;
        if host.is_empty() {
            return Err(ServerError::Malformed);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl FromStr for Server {
    type Err = ServerError;

    /// Reads `redis://[user[:password]@]host[:port][/database]` or `unix:///path[?db=database]`.
    fn from_str(text: &str) -> Result<Self, ServerError> {
        if text.starts_with("rediss://") {
            return Err(ServerError::Tls);
        }
        if !text.starts_with("redis://") && !text.starts_with("unix://") {
            return Err(ServerError::Scheme);
        }
        let info = text.into_connection_info().map_err(|_| ServerError::Malformed)?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) if *port != 0 && !host.is_empty() => {
                Place::Tcp(Node { host: host.trim_matches(['[', ']']).to_owned(), port: *port })
            }
            ConnectionAddr::Unix(path) if path.is_absolute() => Place::Unix(path.clone()),
            ConnectionAddr::TcpTls { .. } => return Err(ServerError::Tls),
            _ => return Err(ServerError::Malformed),
        };
        let redis = info.redis_settings();
        let login =
            Login { username: redis.username().map(str::to_owned), password: redis.password().map(str::to_owned) };
        Ok(Self { place, database: redis.db(), login })
    }
}

impl fmt::Display for Topology {
    /// Where it is, for logs: never a password.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &[Node]| nodes.iter().map(Node::to_string).collect::<Vec<_>>().join(",");
        match self {
            Self::Single(Server { place: Place::Tcp(node), .. }) => node.fmt(out),
            Self::Single(Server { place: Place::Unix(path), .. }) => write!(out, "unix:{}", path.display()),
            Self::Sentinel { sentinels, master, .. } => write!(out, "{master} of sentinels {}", list(sentinels)),
            Self::Cluster { nodes } => write!(out, "cluster {}", list(nodes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_servers() {
        let node = |host: &str, port| Place::Tcp(Node { host: host.to_owned(), port });
        for (text, place, database) in [
            ("redis://127.0.0.1:6379", node("127.0.0.1", 6379), 0),
            ("redis://redis", node("redis", 6379), 0),
            ("redis://redis:7000/3", node("redis", 7000), 3),
            ("redis://[::1]:6379", node("::1", 6379), 0),
            ("unix:///run/redis.sock", Place::Unix("/run/redis.sock".into()), 0),
            ("unix:///run/redis.sock?db=2", Place::Unix("/run/redis.sock".into()), 2),
        ] {
            let server: Server = text.parse().expect(text);
            assert_eq!(
                (&server.place, server.database, &server.login),
                (&place, database, &Login::default()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_names_none_is_refused_without_repeating_it() {
        for (text, error) in [
            ("", ServerError::Scheme),
            ("127.0.0.1:6379", ServerError::Scheme),
            ("http://redis", ServerError::Scheme),
            ("rediss://redis", ServerError::Tls),
            ("redis://", ServerError::Malformed),
            ("redis://redis:0", ServerError::Malformed),
            ("redis://redis:port", ServerError::Malformed),
            ("redis://redis/x", ServerError::Malformed),
            ("unix://", ServerError::Malformed),
        ] {
            assert_eq!(text.parse::<Server>(), Err(error), "{text}");
        }
        let error = "redis://:hunter2@redis:port".parse::<Server>().expect_err("a bad port").to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn no_debug_form_shows_a_password() {
        let server: Server = "redis://ada:hunter2@redis:6379".parse().expect("valid");
        assert_eq!(server.login.password.as_deref(), Some("hunter2"));
        let shown = format!("{server:?} {}", Topology::Single(server.clone()));
        assert!(!shown.contains("hunter2") && !shown.contains("ada"), "{shown}");
    }

    #[test]
    fn nodes_are_read_and_written() {
        for text in ["redis-1:6379", "10.0.0.7:26379", "[::1]:6379"] {
            assert_eq!(text.parse::<Node>().expect(text).to_string(), text);
        }
        for text in ["", "redis", ":6379", "redis:0", "redis:x"] {
            assert!(text.parse::<Node>().is_err(), "{text}");
        }
    }
}
