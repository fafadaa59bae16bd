//! Values that are not what was written.

use troupe_redis::redis::{RedisResult, cmd};

use super::*;
use crate::service::convert::url_name;
use crate::service::redis::value::{self, CHUNK, Meta};

/// Replaces what stands under a URL by the same with another length and body.
async fn damage(instance: &Instance, target: &str, len: u64, body: &[u8]) {
    let InRedis { redis, shared } = &instance.store;
    let key = shared.keys.object(&url_name(&url(target), b""));
    let found: Vec<u8> = redis.query(async |to| cmd("GET").arg(&key).query_async(to).await).await.unwrap();
    let Some(value::Value::Entry { meta, record, .. }) = value::read(found) else { panic!("{target}: no answer") };
    let damaged = value::entry(&Meta { len, ..meta }, 1, &record, body);
    let set = redis.query(async |to| -> RedisResult<()> {
        cmd("SET").arg(&key).arg(&damaged).arg("PX").arg(FRESH_MS).query_async(to).await
    });
    set.await.unwrap();
}

/// Each part of a body is named before it is read: a damaged length took all memory.
#[actix_rt::test]
async fn an_answer_that_says_to_be_longer_than_any_is_none_and_is_replaced() {
    let server = Server::start();
    let instance = Instance::over(&server).await;
    let longest = StoreConfig::default().max_object.bytes();
    for (target, len) in [("/a", longest + 1), ("/b", u64::MAX)] {
        assert_eq!(instance.fill(target, "first").await, Kept::Stored);
        damage(&instance, target, len, &vec![b'x'; CHUNK]).await;
        let right = instance.miss(target, &[]).await;
        server.command(&["CONFIG", "RESETSTAT"]);
        assert_eq!(instance.bring(right, target, &[], &[], "second").await, Kept::Stored);
        assert_eq!(instance.text(target, &[]).await.as_deref(), Some("second"));
        let said = server.command(&["INFO", "commandstats"]).text();
        assert!(!said.contains("cmdstat_unlink"), "its parts are not looked for: {said}");
    }
}

#[actix_rt::test]
async fn an_answer_whose_body_is_not_as_long_as_it_says_is_none() {
    let server = Server::start();
    let instance = Instance::over(&server).await;
    for (len, body) in [(6, "short"), (4, "short"), (0, "short"), (5, ""), (CHUNK as u64 + 1, "short")] {
        let target = format!("/{len}");
        assert_eq!(instance.fill(&target, "short").await, Kept::Stored);
        damage(&instance, &target, len, body.as_bytes()).await;
        instance.miss(&target, &[]).await;
    }
}
