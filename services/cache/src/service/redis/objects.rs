//! Answers in Redis. What is long stands in several values, and is read and written some of them at a time.

use bytes::Bytes;
use troupe_contracts::cache::lookup::Lookup;
use troupe_contracts::cache::store::{About, Kept};
use troupe_contracts::cache::{Born, LeaseName, Url};
use troupe_mesh::body::{self, Body};
use troupe_redis::redis::{RedisResult, cmd, pipe};
use troupe_redis::{Error, Redis};

use super::epochs::{self, Epochs};
use super::scripts::STORE;
use super::value::{self, CHUNK, Meta, Value};
use super::{Shared, claims};
use crate::record;
use crate::service::convert::{short_name, url_name};
use crate::time::Moment;
use crate::vary::variant_of;

/// Parts of a body that are read or written at once: 1 MiB.
const BATCH: usize = 16;
/// Bytes from the beginning of a value in which what is known of an answer is.
const META: usize = 8 * 1024;

/// What a look-up finds.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) object: Option<Object>,
    pub(super) born: Born,
    /// What of the request the URL's variants are told apart by.
    pub(super) variant: Vec<u8>,
}

impl Found {
    /// Whether there is an answer that may be given as it is.
    pub(super) fn is_fresh(&self) -> bool {
        self.object.as_ref().is_some_and(|object| object.fresh)
    }
}

/// An answer that is there.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) age_ms: u64,
    pub(super) fresh: bool,
    pub(super) stale: bool,
    pub(super) record: Bytes,
    pub(super) body: Body,
}

/// A value with its time to live in milliseconds.
type Timed = (Option<Vec<u8>>, i64);

/// Looks a request up.
pub(super) async fn find(redis: &Redis, shared: &Shared, call: &Lookup) -> Result<Found, Error> {
    let url = url_name(&call.url, b"");
    let base = shared.keys.object(&url);
    let (first, epochs) = first_look(redis, shared, &call.url, &base).await?;
    let nothing = |born, variant| Found { object: None, born, variant };
    // Without a history nothing that is stored can be believed.
    let Some(mut epochs) = epochs else { return Ok(nothing(Born::default(), Vec::new())) };
    let (born, mut variant, mut timed) = (epochs.born, Vec::new(), first);
    let mut read = timed.0.take().and_then(value::read);
    if let Some(Value::Varies(names)) = &read {
        variant = variant_of(names.iter().map(String::as_str), &call.head);
        let key = shared.keys.variant(&url, &short_name(&[&variant]));
        timed = redis.query(async |to| pipe().get(&key).pttl(&key).query_async(to).await).await?;
        read = timed.0.take().and_then(value::read);
    }
    let Some(Value::Entry { meta, record, body }) = read else { return Ok(nothing(born, variant)) };
    let groups = meta.names.get(2..).unwrap_or_default();
    let rest = rest_of(&meta);
    if !groups.is_empty() || epochs.asks_for_prefixes(meta.born) {
        epochs.merge(epochs::more(redis, shared, &call.url, groups).await?);
    }
    if !epochs.keeps(meta.born) {
        return Ok(nothing(born, variant));
    }
    let resident = meta.keep_ms.saturating_sub(u64::try_from(timed.1).unwrap_or(0));
    let stale = epochs.makes_stale(meta.born);
    let body = match rest {
        0 => Body::full(body),
        parts => Body::Stream(stream(redis.clone(), parts, part_keys(shared, &url, &meta), (body, meta.len))),
    };
    let object = Object {
        age_ms: meta.age_ms.saturating_add(resident),
        fresh: !stale && meta.fresh_ms > resident,
        stale,
        record,
        body,
    };
    Ok(Found { object: Some(object), born, variant })
}

/// The numbers of purges and what stands under the URL's key: the numbers first, so that what is found is not older.
async fn first_look(redis: &Redis, shared: &Shared, url: &Url, base: &str) -> Result<(Timed, Option<Epochs>), Error> {
    let names = epochs::names_of_url(url);
    if redis.is_cluster() {
        // On different nodes, more often than not.
        let answer: (Vec<Option<String>>,) = redis
            .query(async |to| {
                let mut pipe = pipe();
                epochs::ask(&mut pipe, shared, &names);
                pipe.query_async(to).await
            })
            .await?;
        let timed = redis.query(async |to| pipe().get(base).pttl(base).query_async(to).await).await?;
        return Ok((timed, epochs::read(&answer.0)));
    }
    let (answer, value, ttl): (Vec<Option<String>>, Option<Vec<u8>>, i64) = redis
        .query(async |to| {
            let mut pipe = pipe();
            epochs::ask(&mut pipe, shared, &names);
            pipe.get(base).pttl(base);
            pipe.query_async(to).await
        })
        .await?;
    Ok(((value, ttl), epochs::read(&answer)))
}

/// How many parts of the body stand elsewhere.
fn rest_of(meta: &Meta) -> usize {
    usize::try_from(meta.len).unwrap_or(0).saturating_sub(1) / CHUNK
}

fn part_keys(shared: &Shared, url: &LeaseName, meta: &Meta) -> Vec<String> {
    (1..=rest_of(meta)).map(|number| shared.keys.chunk(url, meta.id, number)).collect()
}

/// Reads the further parts of a body as they are wanted. One that is gone by now breaks it.
fn stream(redis: Redis, parts: usize, keys: Vec<String>, (first, len): (Bytes, u64)) -> body::BodyReader {
    let (mut writer, reader) = body::channel(Some(len));
    actix_rt::spawn(async move {
        if writer.write(first).await.is_err() {
            return;
        }
        let mut left = parts;
        for batch in keys.chunks(BATCH) {
            let ask = cmd("MGET").arg(batch).to_owned();
            let values: Result<Vec<Option<Vec<u8>>>, _> = redis.query(async |to| ask.query_async(to).await).await;
            for value in values.unwrap_or_default() {
                let Some(value) = value else { return };
                if writer.write(Bytes::from(value)).await.is_err() {
                    return;
                }
                left = left.saturating_sub(1);
            }
        }
        if left == 0 {
            writer.finish();
        }
    });
    reader
}

/// Keeps an answer.
pub(super) async fn keep(
    redis: &Redis,
    shared: &Shared,
    about: &About,
    record: &Bytes,
    body: Bytes,
) -> Result<Kept, Error> {
    let keep_ms = about.keep_ms.min(shared.config.max_ttl.get().as_millis() as u64);
    // The record is read for what it says of variants and groups.
    let Some(entry) = record::decode(record, Bytes::new(), about.age_ms, Moment::default()) else {
        return Ok(Kept::NoRoom);
    };
    if keep_ms == 0 {
        return Ok(Kept::NoRoom);
    }
    if claims::is_fenced(redis, shared, about.lease, about.token).await? {
        return Ok(Kept::Fenced);
    }
    let terms = entry.terms();
    let mut names = epochs::names_of_url(&about.url).to_vec();
    names.extend(terms.groups.iter().flat_map(|group| epochs::names_of_group(group, &about.url)));
    let url = url_name(&about.url, b"");
    let base = shared.keys.object(&url);
    let (target, varies) = match terms.selection.is_empty() {
        true => (base.clone(), Vec::new()),
        false => {
            let variant = short_name(&[&terms.selection.variant()]);
            (shared.keys.variant(&url, &variant), value::varies(terms.selection.names()))
        }
    };
    let mut born = about.born;
    let before = known(redis, &target).await?;
    if before.as_ref().is_some_and(|(meta, fresh)| *fresh && meta.digest != about.digest) {
        // What gateways have of the version before is fresh to them, and not what the URL stands for any more.
        match epochs::replace(redis, shared, (&about.url, about.source), born, &names).await? {
            Some(appended) => born = Born { generation: appended.at.generation, seq: appended.at.seq },
            None => return Ok(Kept::Raced),
        }
    }
    let meta = Meta {
        born,
        id: fastrand::u64(..),
        age_ms: about.age_ms,
        fresh_ms: about.fresh_ms,
        keep_ms,
        digest: about.digest,
        len: body.len() as u64,
        record_len: u32::try_from(record.len()).unwrap_or(u32::MAX),
        names,
    };
    // The parts first: whoever finds the answer finds them.
    let parts: Vec<(String, &[u8])> =
        part_keys(shared, &url, &meta).into_iter().zip(body.chunks(CHUNK).skip(1)).collect();
    for batch in parts.chunks(BATCH) {
        redis
            .query(async |to| -> RedisResult<()> {
                let mut pipe = pipe();
                for (key, part) in batch {
                    pipe.cmd("SET").arg(key).arg(*part).arg("PX").arg(keep_ms).ignore();
                }
                pipe.query_async(to).await
            })
            .await?;
    }
    let first = body.get(..body.len().min(CHUNK)).unwrap_or_default();
    let whole = value::entry(&meta, about.token, record, first);
    let stored: u32 = redis
        .query(async |to| {
            let mut call = STORE.prepare_invoke();
            call.key(&target).key(&base).arg(value::digits(about.token)).arg(&whole[..]).arg(keep_ms).arg(&varies[..]);
            call.invoke_async(to).await
        })
        .await?;
    if stored == 0 {
        return Ok(Kept::Fenced);
    }
    if let Some((before, _)) = before.filter(|(meta, _)| rest_of(meta) > 0) {
        let gone = cmd("UNLINK").arg(part_keys(shared, &url, &before)).to_owned();
        // Otherwise they end with their time to live.
        let _ = redis.query(async |to| gone.query_async::<u64>(to).await).await;
    }
    claims::give(redis, shared, about.lease, about.token, false).await?;
    Ok(Kept::Stored)
}

/// What is known of the answer that is there, and whether it is fresh.
async fn known(redis: &Redis, key: &str) -> Result<Option<(Meta, bool)>, Error> {
    let (value, ttl): (Vec<u8>, i64) = redis
        .query(async |to| {
            let mut pipe = pipe();
            pipe.cmd("GETRANGE").arg(key).arg(0).arg(META).pttl(key);
            pipe.query_async(to).await
        })
        .await?;
    Ok(value::meta(&value).map(|meta| {
        let resident = meta.keep_ms.saturating_sub(u64::try_from(ttl).unwrap_or(0));
        let fresh = meta.fresh_ms > resident;
        (meta, fresh)
    }))
}
