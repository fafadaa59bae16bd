//! The rules of `[redis]`, and of finding each other through it.

use troupe_mesh::config::{Discovery, MeshConfig};
use troupe_mesh::discovery::Address;
use troupe_node::config::{Problem, RedisConfig, RedisMode};
use troupe_redis::{Server, ServerError};

/// The longest namespace: it is in the name of every key.
const LONGEST_NAMESPACE: usize = 64;

/// Finds what does not fit.
pub(super) fn check(config: &RedisConfig, mesh: &MeshConfig, problems: &mut Vec<Problem>) {
    let mut wrong = |key: &str, what: &str, help: &str| {
        let problem = Problem::new(format!("redis.{key}"), format!("`redis.{key}` {what}"));
        problems.push(if help.is_empty() { problem } else { problem.help(help) });
    };
    let namespace = &config.namespace;
    let plain = namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    if namespace.is_empty() || !plain || namespace.len() > LONGEST_NAMESPACE {
        let what = format!("is {namespace:?}; it takes letters, digits and -_.: and has from 1 to {LONGEST_NAMESPACE}");
        wrong("namespace", &what, "braces would take the keys of a service to several nodes of a cluster");
    }
    if config.timeout.is_zero() {
        wrong("timeout", "is no time at all", "");
    }
    match config.mode {
        RedisMode::Single if !config.nodes.is_empty() => {
            wrong(
                "nodes",
                "is not read while redis.mode is \"single\"",
                "set redis.mode to \"sentinel\" or \"cluster\"",
            );
        }
        RedisMode::Single => {}
        mode if config.nodes.is_empty() => {
            let (mode, what) = match mode {
                RedisMode::Sentinel => ("sentinel", "some Sentinels: [\"10.0.0.7:26379\"]"),
                _ => ("cluster", "some nodes of the cluster: [\"10.0.0.7:6379\"]"),
            };
            let help = format!("name {what}");
            wrong("nodes", &format!("is empty, and redis.mode is {mode:?}"), &help);
        }
        RedisMode::Sentinel if config.master.is_empty() => wrong("master", "is empty", "name it as the Sentinels do"),
        RedisMode::Sentinel | RedisMode::Cluster => {}
    }
    if config.mode == RedisMode::Single {
        server(config, problems);
    }
    advertise(mesh, problems);
}

fn server(config: &RedisConfig, problems: &mut Vec<Problem>) {
    let key = "redis.url";
    let server = match config.url.parse::<Server>() {
        Ok(server) => server,
        Err(error) => {
            // The URL itself is not repeated: there may be a password in it.
            let problem = Problem::new(key, format!("`{key}`: {error}"));
            let bare = config.url.rsplit_once(':').is_some_and(|(host, port)| {
                !host.contains(['/', '@']) && !host.is_empty() && port.parse::<u16>().is_ok()
            });
            problems.push(match error {
                ServerError::Scheme if bare => problem.suggest(Some(format!("redis://{}", config.url))),
                ServerError::Scheme if config.url.starts_with('/') => {
                    problem.suggest(Some(format!("unix://{}", config.url)))
                }
                ServerError::Tls => problem.help("put a tunnel, or a socket on this machine, in between"),
                ServerError::Scheme | ServerError::Malformed => problem,
            });
            return;
        }
    };
    if !config.password_file.as_os_str().is_empty() && server.login.password.is_some() {
        let message = format!("there is a password in `{key}` and another in `redis.password_file`");
        problems.push(Problem::new(key, message).help("keep the file: what stands in a URL gets into logs and lists"));
    }
}

fn advertise(mesh: &MeshConfig, problems: &mut Vec<Problem>) {
    let key = "mesh.advertise";
    if mesh.advertise.is_empty() {
        return;
    }
    if mesh.discovery != Discovery::Redis {
        let message = format!("`{key}` is not read unless mesh.discovery is \"redis\"");
        problems.push(Problem::new(key, message));
    }
    match mesh.advertise.parse::<Address>() {
        Ok(Address::Tcp(address)) if address.ip().is_unspecified() => {
            let message = format!("`{key}` is {address}, which nobody can dial");
            problems.push(Problem::new(key, message).help("leave it empty to have the address that reaches Redis"));
        }
        Ok(_) => {}
        Err(error) => problems.push(Problem::new(key, format!("`{key}`: {error}"))),
    }
}
