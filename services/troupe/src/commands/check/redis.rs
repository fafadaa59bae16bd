//! Does Redis answer, and will it keep what membership writes there?

use troupe_cache::service::config::SecondTier;
use troupe_mesh::config::Discovery;
use troupe_node::config::RedisMode;
use troupe_redis::redis::cmd;
use troupe_redis::{Error, Redis};

use super::Finding;
use crate::config::Config;
use crate::failure::CommandError;
use crate::redis;
use crate::services::{Service, Services};

/// Policies under which keys that are written every two seconds are the last to go.
const SAFE: [&str; 3] = ["noeviction", "allkeys-lru", "volatile-lru"];

pub(super) fn check(config: &Config, services: Services) -> Result<Vec<Finding>, CommandError> {
    let found = services.is_apart() && config.mesh.discovery == Discovery::Redis;
    let cached = config.cache.l2 == SecondTier::Redis && services.contains(Service::Cache);
    if !found && !cached {
        return Ok(Vec::new());
    }
    let client = redis::open(&config.redis)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::failed(format!("cannot start a runtime: {error}")))?;
    Ok(runtime.block_on(ask(&client, config.redis.mode)))
}

async fn ask(redis: &Redis, mode: RedisMode) -> Vec<Finding> {
    let place = redis.place();
    if let Err(error) = redis.query(async |to| cmd("PING").query_async::<String>(to).await).await {
        let help = "services start without it, and find each other once it is there";
        return vec![Finding::warn("redis", format!("{place} does not answer: {error}"), help)];
    }
    let mut findings = vec![Finding::ok("redis", format!("{place} answers"))];
    // The nodes of a cluster have settings of their own each.
    if mode != RedisMode::Cluster {
        let memory = redis.query(async |to| cmd("INFO").arg("memory").query_async::<String>(to).await).await;
        findings.extend(judge(memory));
    }
    findings
}

/// What is said of its memory. A server that does not tell is nothing to warn of: managed ones may not.
fn judge(memory: Result<String, Error>) -> Option<Finding> {
    let memory = memory.ok()?;
    let value = |name: &str| memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let policy = value("maxmemory_policy")?.trim();
    let bounded = value("maxmemory").is_some_and(|bytes| bytes.trim() != "0");
    if !bounded || SAFE.contains(&policy) {
        return None;
    }
    let said = format!("its maxmemory-policy is {policy}, which may throw away who is registered");
    Some(Finding::warn("redis", said, format!("set one of {}", SAFE.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_takes_what_is_fresh_is_warned_of() {
        let memory =
            |max: &str, policy: &str| Ok(format!("used_memory:1\r\nmaxmemory:{max}\r\nmaxmemory_policy:{policy}\r\n"));
        for (max, policy, warned) in [
            ("0", "allkeys-random", false),
            ("1048576", "noeviction", false),
            ("1048576", "allkeys-lru", false),
            ("1048576", "volatile-ttl", true),
            ("1048576", "allkeys-random", true),
            ("1048576", "volatile-lfu", true),
        ] {
            assert_eq!(judge(memory(max, policy)).is_some(), warned, "{max} {policy}");
        }
        assert!(judge(Ok(String::new())).is_none());
    }
}
