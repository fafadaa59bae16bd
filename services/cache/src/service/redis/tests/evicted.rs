//! A Redis that takes what it likes, as `allkeys-lru` does.

use super::*;

async fn purge(instance: &Instance, prefix: &str) {
    let purge = Purge { target: Target::Prefix(url(prefix)), soft: false, source: None };
    instance.store.purge(purge).await.unwrap();
}

fn take_prefixes(server: &Server, instance: &Instance) {
    assert_eq!(server.command(&["DEL", &instance.store.shared.keys.prefixes]).number(), 1);
}

/// It was there again.
#[actix_rt::test]
async fn what_a_prefix_purged_is_gone_though_redis_forgets_the_prefix() {
    let server = Server::start();
    let instance = Instance::over(&server).await;
    assert_eq!(instance.fill("/a/old", "old").await, Kept::Stored);
    purge(&instance, "/a/").await;
    assert_eq!(instance.fill("/a/young", "young").await, Kept::Stored);
    take_prefixes(&server, &instance);
    assert_eq!(instance.text("/a/old", &[]).await, None);
    assert_eq!(instance.text("/a/young", &[]).await.as_deref(), Some("young"));
}

#[actix_rt::test]
async fn the_next_prefix_does_not_hide_that_others_are_forgotten() {
    let server = Server::start();
    let instance = Instance::over(&server).await;
    assert_eq!(instance.fill("/a/old", "old").await, Kept::Stored);
    purge(&instance, "/a/").await;
    assert_eq!(instance.fill("/a/young", "young").await, Kept::Stored);
    take_prefixes(&server, &instance);
    purge(&instance, "/b/").await;
    assert_eq!(instance.text("/a/old", &[]).await, None);
    assert_eq!(instance.text("/a/young", &[]).await.as_deref(), Some("young"));
}
