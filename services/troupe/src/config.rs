//! The root of the configuration: every section of every service, and the rules between them.

mod change;
pub(crate) mod document;
mod listeners;
mod present;
mod rules;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use troupe_balancer::config::BalancerConfig;
use troupe_balancer::upstream::config::UpstreamConfig;
use troupe_gateway::cache::config::CacheConfig;
use troupe_gateway::config::{GatewayConfig, RouteConfig};
use troupe_mesh::config::MeshConfig;
use troupe_node::config::{AdminConfig, Loaded, LogConfig, NodeConfig, Place, Problems, RedisConfig, Sources};
use troupe_php_pool::config::PhpPoolConfig;

pub(crate) use change::Change;

use crate::services::{Service, Services};

/// The configuration of Troupe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) node: NodeConfig,
    pub(crate) log: LogConfig,
    pub(crate) gateway: GatewayConfig,
    /// The routes.
    #[serde(rename = "route")]
    pub(crate) routes: Vec<RouteConfig>,
    /// Pools of PHP processes by name.
    pub(crate) php: BTreeMap<String, PhpPoolConfig>,
    /// Groups of HTTP servers by name.
    pub(crate) upstream: BTreeMap<String, UpstreamConfig>,
    pub(crate) balancer: BalancerConfig,
    pub(crate) cache: CacheConfig,
    pub(crate) redis: RedisConfig,
    pub(crate) mesh: MeshConfig,
    pub(crate) admin: AdminConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: NodeConfig::default(),
            log: LogConfig::default(),
            gateway: GatewayConfig::default(),
            routes: vec![RouteConfig::serve_functions()],
            php: BTreeMap::from([("default".to_owned(), PhpPoolConfig::default())]),
            upstream: BTreeMap::new(),
            balancer: BalancerConfig::default(),
            cache: CacheConfig::default(),
            redis: RedisConfig::default(),
            mesh: MeshConfig::default(),
            admin: AdminConfig::default(),
        }
    }
}

/// Loads the configuration and checks the rules between its keys. What has to be on this machine is left to [`ready`].
///
/// # Errors
///
/// Everything that is wrong, each with its place.
pub(crate) fn load(sources: &Sources) -> Result<Loaded<Config>, Problems> {
    let mut loaded = troupe_node::config::load(sources, rules::check)?;
    if !loaded.is_set("php.default") && serves_without_php(&loaded.config.routes) {
        loaded.config.php.remove("default");
    }
    anchor_binaries(&mut loaded);
    Ok(loaded)
}

/// Makes PHP binaries that are named by a path absolute: PHP is started in the directory of its functions, whence a relative one
/// leads elsewhere. Those of the file are taken from its directory, as every path is; a bare name stays one, for PATH.
fn anchor_binaries(loaded: &mut Loaded<Config>) {
    let directory = loaded.file.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    let of_file: Vec<bool> = loaded
        .config
        .php
        .keys()
        .map(|pool| matches!(loaded.place(&format!("php.{}.binary", document::bare_or_quoted(pool))), Place::File(_)))
        .collect();
    for (pool, of_file) in loaded.config.php.values_mut().zip(of_file) {
        let path = if of_file { directory.join(&pool.binary) } else { PathBuf::from(&pool.binary) };
        // Fails only where there is no working directory, and then nothing relative leads anywhere.
        if pool.binary.contains('/')
            && let Ok(path) = std::path::absolute(path)
        {
            pool.binary = path.to_string_lossy().into_owned();
        }
    }
}

/// Whether all routes lead elsewhere than to the pool that nobody wrote: then no PHP needs to be here.
fn serves_without_php(routes: &[RouteConfig]) -> bool {
    routes.iter().any(|route| route.upstream.is_some())
        && !routes.iter().any(|route| route.upstream.is_none() && route.pool() == "default")
}

/// Checks that what the configuration names is there for `services` (directories of functions, the mesh's key), and that their
/// listeners do not take each other's place.
///
/// # Errors
///
/// Everything that is missing or in the way, at the key that names it.
pub(crate) fn ready(loaded: Loaded<Config>, services: Services) -> Result<Loaded<Config>, Problems> {
    let mut problems = present::check(&loaded.config, services);
    problems.extend(listeners::check(&loaded, services));
    loaded.accept(problems)
}

/// Where the admin listener is: as configured, else on the port of the one service that runs here.
pub(crate) fn admin_address(loaded: &Loaded<Config>, services: Services) -> SocketAddr {
    let mut address = loaded.config.admin.listen;
    if !loaded.is_set("admin.listen")
        && let Some(service) = services.only()
    {
        address.set_port(service.admin_port());
    }
    address
}

/// Where a service that runs apart accepts links: as configured, else on loopback and the service's port. The gateway
/// accepts none.
pub(crate) fn mesh_address(config: &Config, service: Service) -> Option<String> {
    let port = service.mesh_port()?;
    let listen = &config.mesh.listen;
    Some(if listen.is_empty() { format!("127.0.0.1:{port}") } else { listen.clone() })
}

/// The services of this process that accept links, and where.
pub(crate) fn mesh_listeners(config: &Config, services: Services) -> impl Iterator<Item = (Service, String)> {
    let linked = services.iter().filter(move |service| services.accepts_links(*service));
    linked.filter_map(|service| Some((service, mesh_address(config, service)?)))
}

#[cfg(test)]
mod tests;
