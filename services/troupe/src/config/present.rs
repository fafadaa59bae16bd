//! What the configuration names and the machine has to have.

use std::path::Path;

use troupe_cache::service::config::SecondTier;
use troupe_gateway::cache::config::CdnPreset;
use troupe_mesh::config::Discovery;
use troupe_node::config::Problem;

use super::Config;
use super::document::bare_or_quoted;
use crate::services::{Service, Services};

/// The shortest pre-shared key, in bytes: what HMAC-SHA-256 takes whole.
const SHORTEST_KEY: u64 = 32;

/// Finds what is missing for `services`.
pub(super) fn check(config: &Config, services: Services) -> Vec<Problem> {
    let mut problems = Vec::new();
    if services.contains(Service::PhpPool) {
        for (name, pool) in &config.php {
            let key = |key: &str| format!("php.{}.{key}", bare_or_quoted(name));
            if troupe_php_pool::owner::look_up(&pool.user).is_err() {
                let message = format!("there is no user {} for pool `{name}`", pool.user);
                problems.push(Problem::new(key("user"), message).help("name one of /etc/passwd, or write uid:gid"));
            }
            if !pool.root.is_dir() {
                let message =
                    format!("there is no directory {} for the functions of pool `{name}`", pool.root.display());
                problems.push(
                    Problem::new(key("root"), message).help("`troupe init DIR` writes a first function to start from"),
                );
            }
        }
    }
    let key_file = &config.mesh.key_file;
    if services.is_apart() && !key_file.as_os_str().is_empty() {
        problems.extend(secret("mesh.key_file", key_file, SHORTEST_KEY));
    }
    let cached = config.cache.l2 == SecondTier::Redis && services.contains(Service::Cache);
    if cached || services.is_apart() && config.mesh.discovery == Discovery::Redis {
        let redis = &config.redis;
        for (key, path) in [
            ("redis.password_file", &redis.password_file),
            ("redis.sentinel_password_file", &redis.sentinel_password_file),
        ] {
            if !path.as_os_str().is_empty() {
                problems.extend(secret(key, path, 1));
            }
        }
    }
    let cdn = &config.cache.cdn;
    let tells = services.contains(Service::Gateway) || services.contains(Service::Cache);
    if tells && cdn.preset != CdnPreset::None && !cdn.token_file.as_os_str().is_empty() {
        problems.extend(secret("cache.cdn.token_file", &cdn.token_file, 1));
    }
    let token_file = &config.admin.token_file;
    if !token_file.as_os_str().is_empty() {
        problems.extend(secret("admin.token_file", token_file, 1));
    }
    problems
}

fn secret(key: &str, path: &Path, least: u64) -> Option<Problem> {
    match std::fs::metadata(path) {
        Err(error) => Some(Problem::new(key, format!("{} cannot be read: {error}", path.display()))),
        Ok(file) if !file.is_file() => Some(Problem::new(key, format!("{} is not a file", path.display()))),
        Ok(file) if file.len() < least => {
            let message = format!("{} has {} bytes; a key has {least} or more", path.display(), file.len());
            Some(Problem::new(key, message))
        }
        Ok(_) => None,
    }
}
