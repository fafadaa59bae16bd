//! What no schema can say: how keys have to fit each other.

mod php;
mod redis;

use std::net::SocketAddr;

use troupe_balancer::upstream::config::UpstreamConfig;
use troupe_cache::service::config::SecondTier;
use troupe_gateway::config::RouteConfig;
use troupe_gateway::router::OwnPages;
use troupe_mesh::discovery::Peer;
use troupe_node::config::{Problem, nearest};
use troupe_node::units::{Duration, Size};

use super::Config;
use super::document::bare_or_quoted;

/// What a head may be at most: it crosses the mesh in one frame.
const LARGEST_HEAD: Size = Size::from_kib(60);

/// Below this, ordinary browsers are refused.
const SMALLEST_HEAD: Size = Size::from_kib(1);

/// The longest name of a pool: it is a label of metrics and a column of tables.
const LONGEST_NAME: usize = 64;

/// Finds every key that does not fit the others.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    gateway(config, &mut problems);
    routes(config, &mut problems);
    for (name, pool) in &config.php {
        php::check(name, pool, &mut problems);
    }
    for (name, upstream) in &config.upstream {
        check_upstream(name, upstream, &mut problems);
    }
    redis::check(&config.redis, &config.mesh, &mut problems);
    cache(config, &mut problems);
    let mesh = &config.mesh;
    let open = mesh.listen.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback());
    if open && mesh.key_file.as_os_str().is_empty() {
        problems.push(
            Problem::new("mesh.listen", format!("{} is beyond loopback, where links need a key", mesh.listen))
                .help("set mesh.key_file to a file of 32 random bytes or more: `openssl rand -base64 32 > mesh.key`"),
        );
    }
    let admin = &config.admin;
    if !admin.listen.ip().is_loopback() && admin.token_file.as_os_str().is_empty() {
        let message = format!("{} is beyond loopback, where the admin listener needs a token", admin.listen);
        problems.push(Problem::new("admin.listen", message).help(
            "set admin.token_file to a file with a long random word: `openssl rand -hex 32 > admin.token`; commands send it \
             by --token-file",
        ));
    }
    problems
}

fn gateway(config: &Config, problems: &mut Vec<Problem>) {
    let gateway = &config.gateway;
    if gateway.listen.is_empty() {
        problems.push(Problem::new("gateway.listen", "`gateway.listen` is empty: nothing would be served"));
    }
    let mut taken = vec![(config.admin.listen, "admin.listen".to_owned())];
    for (n, listen) in gateway.listen.iter().enumerate() {
        let (key, address) = (format!("gateway.listen[{n}]"), listen.address);
        let other = taken.iter().find(|(other, _)| clash(*other, address));
        match other {
            Some((_, other)) => {
                problems.push(Problem::new(&key, format!("`{key}` is {address}, which `{other}` takes already")));
            }
            None => taken.push((address, key)),
        }
    }
    if gateway.dashboard && config.admin.token_file.as_os_str().is_empty() {
        // What stands in front of a gateway makes everybody look as if they came from this machine.
        let local = gateway.listen.iter().all(|listen| listen.address.ip().is_loopback());
        if !(config.node.development && local) {
            let message = "`gateway.dashboard` shows the dashboard to whoever reaches the gateway, and needs a token";
            problems.push(Problem::new("gateway.dashboard", message).help(
                "set admin.token_file to a file with a long random word: `openssl rand -hex 32 > admin.token`; only with \
                 node.development and on loopback it goes without",
            ));
        }
    }
    if !(SMALLEST_HEAD..=LARGEST_HEAD).contains(&gateway.max_head) {
        let message = format!("`gateway.max_head` is {}, not from {SMALLEST_HEAD} to {LARGEST_HEAD}", gateway.max_head);
        problems.push(Problem::new("gateway.max_head", message));
    }
    for (key, value) in [
        ("gateway.request_timeout", gateway.request_timeout),
        ("gateway.stream_idle", gateway.stream_idle),
        ("gateway.head_timeout", gateway.head_timeout),
        ("gateway.disconnect_timeout", gateway.disconnect_timeout),
        ("balancer.decay", config.balancer.decay),
        ("balancer.report_interval", config.balancer.report_interval),
        ("node.drain_timeout", config.node.drain_timeout),
    ] {
        not_zero(key, value, problems);
    }
}

/// An embedded store is the memory of one process: of two, each would tell its own gateways another truth.
fn cache(config: &Config, problems: &mut Vec<Problem>) {
    let cache = &config.cache;
    if cache.l2 == SecondTier::Embedded && config.mesh.peers.cache.len() > 1 {
        let message = "`mesh.peers.cache` has several cache services, and cache.l2 is \"embedded\": there can be one";
        problems.push(Problem::new("mesh.peers.cache[1]", message).help("name one, or set cache.l2 to \"redis\""));
    }
    if cache.store.is_on_disk() && cache.l2 != SecondTier::Embedded {
        let message = "`cache.store.file` keeps the embedded store on disk, and cache.l2 is not \"embedded\"";
        problems.push(
            Problem::new("cache.store.file", message).help("set cache.l2 to \"embedded\", or leave the file out"),
        );
    }
    for (key, value) in [
        ("cache.l1.max_ttl", cache.l1.max_ttl),
        ("cache.store.lease", cache.store.lease),
        ("cache.store.max_ttl", cache.store.max_ttl),
    ] {
        not_zero(key, value, problems);
    }
}

/// The gateway's router knows which routes can stand beside each other; whether their pools exist is known here.
fn routes(config: &Config, problems: &mut Vec<Problem>) {
    for problem in troupe_gateway::router::check(&config.routes, OwnPages::of(&config.gateway)) {
        let key = format!("route[{}].{}", problem.route, problem.key);
        problems.push(Problem::new(&key, format!("`{key}`: {}", problem.what)));
    }
    for (index, route) in config.routes.iter().enumerate() {
        if let Some(upstream) = &route.upstream {
            upstream_of(config, index, route, upstream, problems);
            continue;
        }
        let pool = route.pool();
        if config.php.contains_key(pool) {
            continue;
        }
        let key = if route.functions.is_some() { "functions" } else { "function" };
        let message = format!("the route {:?} leads to the pool `{pool}`, which is not configured", route.path);
        let names = config.php.keys().map(String::as_str);
        let known: Vec<String> = names.clone().map(|name| format!("[php.{}]", bare_or_quoted(name))).collect();
        let help = match (known.is_empty(), config.routes == Config::default().routes) {
            (true, _) => "no pool is configured".to_owned(),
            // The route nobody wrote.
            (false, true) => {
                format!("that is the default route; write [[route]] with functions = one of {}", known.join(", "))
            }
            (false, false) => format!("pools: {}", known.join(", ")),
        };
        let problem = Problem::new(format!("route[{index}].{key}"), message);
        problems.push(problem.suggest(nearest(pool, names)).help(help));
    }
}

fn upstream_of(config: &Config, index: usize, route: &RouteConfig, upstream: &str, problems: &mut Vec<Problem>) {
    if config.upstream.contains_key(upstream) {
        return;
    }
    let message = format!("the route {:?} leads to the upstream `{upstream}`, which is not configured", route.path);
    let names = config.upstream.keys().map(String::as_str);
    let known: Vec<String> = names.clone().map(|name| format!("[upstream.{}]", bare_or_quoted(name))).collect();
    let help = match known.is_empty() {
        true => format!("write [upstream.{}] with servers = [\"host:port\"]", bare_or_quoted(upstream)),
        false => format!("upstreams: {}", known.join(", ")),
    };
    let problem = Problem::new(format!("route[{index}].upstream"), message);
    problems.push(problem.suggest(nearest(upstream, names)).help(help));
}

fn check_upstream(name: &str, upstream: &UpstreamConfig, problems: &mut Vec<Problem>) {
    let section = format!("upstream.{}", bare_or_quoted(name));
    let key = |key: &str| format!("{section}.{key}");
    check_name(&section, name, "an upstream", problems);
    if upstream.servers.is_empty() {
        problems.push(Problem::new(key("servers"), format!("`{section}.servers` is empty: nothing would answer")));
    }
    for (index, server) in upstream.servers.iter().enumerate() {
        if let Err(error) = server.address.parse::<Peer>() {
            let message = format!("`{section}.servers`: {error}");
            problems.push(Problem::new(key(&format!("servers[{index}]")), message));
        }
        if upstream.servers.iter().take(index).any(|earlier| earlier.address == server.address) {
            let message = format!("`{section}.servers`: {} stands twice; give it a weight instead", server.address);
            problems.push(Problem::new(key(&format!("servers[{index}]")), message));
        }
    }
    let (timeouts, keep_alive) = (upstream.timeouts, upstream.keep_alive);
    for (name, value) in [
        ("timeouts.connect", timeouts.connect),
        ("timeouts.write", timeouts.write),
        ("timeouts.first_byte", timeouts.first_byte),
        ("timeouts.idle", timeouts.idle),
        ("timeouts.tunnel", timeouts.tunnel),
    ] {
        not_zero(&key(name), value, problems);
    }
    let least = upstream.servers.iter().filter_map(|server| server.max_connections).min();
    let least = least.unwrap_or(upstream.max_connections).min(upstream.max_connections);
    if keep_alive.min_idle > least {
        let message =
            format!("`{section}.keep_alive.min_idle` {} is more than max_connections {least}", keep_alive.min_idle);
        problems.push(Problem::new(key("keep_alive.min_idle"), message));
    }
}

/// A name is a label of metrics and a column of tables.
fn check_name(section: &str, name: &str, of: &str, problems: &mut Vec<Problem>) {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if name.is_empty() || !plain || name.len() > LONGEST_NAME {
        let message = format!("{name:?} is no name for {of}: letters, digits, - and _, at most {LONGEST_NAME}");
        problems.push(Problem::new(section, message));
    }
}

fn not_zero(key: &str, value: Duration, problems: &mut Vec<Problem>) {
    if value.is_zero() {
        problems.push(Problem::new(key, format!("`{key}` is no time at all")));
    }
}

/// Whether two listeners cannot both be had.
pub(super) fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let same_host =
        a.ip() == b.ip() || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
    a.port() != 0 && a.port() == b.port() && same_host
}
