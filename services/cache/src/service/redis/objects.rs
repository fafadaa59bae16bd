//! Answers in Redis. What is long stands in several values, and is read and written some of them at a time.

use bytes::Bytes;
use troupe_contracts::cache::lookup::Lookup;
use troupe_contracts::cache::store::{About, Kept};
use troupe_contracts::cache::{Born, LeaseName, Url};
use troupe_mesh::body::{self, Body};
use troupe_redis::redis::{RedisResult, cmd, pipe};
use troupe_redis::{Error, Redis};

use super::claims::{self, Taken};
use super::doubts::Claim;
use super::epochs::{self, Epochs};
use super::scripts::{LOOK, STORE};
use super::value::{self, CHUNK, Meta, Value};
use super::{Shared, is_full};
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
pub(super) struct Found<'a> {
    pub(super) object: Option<Object>,
    pub(super) born: Born,
    /// What of the request the URL's variants are told apart by.
    pub(super) variant: Vec<u8>,
    /// Who is to fetch it, where nothing was there and that was asked for.
    pub(super) taken: Option<Taken<'a>>,
}

impl Found<'_> {
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

/// What [`LOOK`] gives back.
type Claimed = (Vec<Option<String>>, Option<Vec<u8>>, i64, Option<String>);

/// What is looked at first.
struct First<'a> {
    /// What stands under the URL's key.
    timed: Timed,
    epochs: Option<Epochs>,
    taken: Option<Taken<'a>>,
}

/// Looks a request up. With `claim`, the lease is taken with the same round trip where nothing is there.
pub(super) async fn find<'a>(
    redis: &Redis,
    shared: &'a Shared,
    call: &Lookup,
    claim: bool,
) -> Result<Found<'a>, Error> {
    let url = url_name(&call.url, b"");
    let base = shared.keys.object(&url);
    // All keys of a script are on one node.
    let first = match claim && !redis.is_cluster() {
        true => look_and_claim(redis, shared, &call.url, (&url, &base)).await?,
        false => look(redis, shared, &call.url, &base).await?,
    };
    let First { timed: first, epochs, taken } = first;
    let nothing = |born, variant| Found { object: None, born, variant, taken };
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
    if !is_possible(shared, &meta) {
        return Ok(nothing(born, variant));
    }
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
    Ok(Found { object: Some(object), born, variant, taken: None })
}

/// The numbers of purges and what stands under the URL's key: the numbers first, so that what is found is not older.
async fn look<'a>(redis: &Redis, shared: &'a Shared, url: &Url, base: &str) -> Result<First<'a>, Error> {
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
        return Ok(First { timed, epochs: epochs::read(&answer.0), taken: None });
    }
    let (answer, value, ttl): (Vec<Option<String>>, Option<Vec<u8>>, i64) = redis
        .query(async |to| {
            let mut pipe = pipe();
            epochs::ask(&mut pipe, shared, &names);
            pipe.get(base).pttl(base);
            pipe.query_async(to).await
        })
        .await?;
    Ok(First { timed: (value, ttl), epochs: epochs::read(&answer), taken: None })
}

/// The same, and the lease where nothing is there.
async fn look_and_claim<'a>(
    redis: &Redis,
    shared: &'a Shared,
    url: &Url,
    (name, base): (&LeaseName, &str),
) -> Result<First<'a>, Error> {
    let names = epochs::names_of_url(url);
    let claim = Claim::new(shared, *name);
    let looked: Result<Claimed, _> = redis
        .query(async |to| {
            let mut call = LOOK.prepare_invoke();
            call.key(&shared.keys.epochs).key(base);
            call.key(shared.keys.lease(name)).key(shared.keys.withdrawn(name, claim.nonce()));
            call.arg(claims::time(shared)).arg(claims::nonce(claim.nonce())).arg(&epochs::NUMBERS);
            for name in &names {
                call.arg(&name[..]);
            }
            call.invoke_async(to).await
        })
        .await;
    match looked {
        Ok((answer, value, ttl, taken)) => {
            let taken = match taken {
                Some(taken) => Some(claims::read(claim, *name, &taken)),
                None => {
                    claim.settle();
                    None
                }
            };
            Ok(First { timed: (value, ttl), epochs: epochs::read(&answer), taken })
        }
        Err(error) => match claims::failed(claim, error) {
            // There is no room for a lease; looking takes none.
            error if is_full(&error) => look(redis, shared, url, base).await,
            error => Err(error),
        },
    }
}

/// Whether a body may be as long as it is said to be. What is damaged says anything, and each of its parts is named in memory.
fn is_possible(shared: &Shared, meta: &Meta) -> bool {
    meta.len <= shared.config.max_object.bytes()
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
    let mut meta = Meta {
        born: about.born,
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
    // All keys of a script are on one node.
    let lease = (!redis.is_cluster()).then(|| shared.keys.lease(&about.lease));
    if lease.is_none() && claims::is_fenced(redis, shared, about.lease, about.token).await? {
        return Ok(Kept::Fenced);
    }
    let place = Place { target, base, varies, lease };
    let first = body.get(..body.len().min(CHUNK)).unwrap_or_default();
    let mut written = place.write(redis, about.token, (&meta, record, first), Over::Nothing).await?;
    if let Written::Known(known, left) = written {
        let before = value::meta(&known).filter(|meta| is_possible(shared, meta));
        let resident = |before: &Meta| before.keep_ms.saturating_sub(u64::try_from(left).unwrap_or(0));
        if before.as_ref().is_some_and(|before| before.digest != about.digest && before.fresh_ms > resident(before)) {
            // What gateways have of the version before is fresh to them, and not what the URL stands for any more.
            let replaced = epochs::replace(redis, shared, (&about.url, about.source), meta.born, &meta.names).await?;
            let Some(appended) = replaced else { return Ok(Kept::Raced) };
            meta.born = Born { generation: appended.at.generation, seq: appended.at.seq };
        }
        written = place.write(redis, about.token, (&meta, record, first), Over::Anything).await?;
        if let (Written::Stored, Some(before)) = (&written, before.filter(|meta| rest_of(meta) > 0)) {
            let gone = cmd("UNLINK").arg(part_keys(shared, &url, &before)).to_owned();
            // Otherwise they end with their time to live.
            let _ = redis.query(async |to| gone.query_async::<u64>(to).await).await;
        }
    }
    if !matches!(written, Written::Stored) {
        return Ok(Kept::Fenced);
    }
    if place.lease.is_none() {
        claims::give(redis, shared, about.lease, about.token, false).await?;
    }
    Ok(Kept::Stored)
}

/// Where an answer is stored.
struct Place {
    target: String,
    /// What stands under the URL's key, where its variants have keys of their own.
    base: String,
    /// What is said there.
    varies: Vec<u8>,
    /// The lease that ends with it, where it is on the same node.
    lease: Option<String>,
}

/// What may be written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Nothing,
    Anything,
}

/// What became of a write.
enum Written {
    Stored,
    /// A later holder of the lease has stored one.
    Fenced,
    /// There is one: its beginning, and its time to live in milliseconds.
    Known(Vec<u8>, i64),
}

impl Place {
    async fn write(
        &self,
        redis: &Redis,
        token: u64,
        (meta, record, body): (&Meta, &[u8], &[u8]),
        over: Over,
    ) -> Result<Written, Error> {
        let value = value::entry(meta, token, record, body);
        let wanted = if over == Over::Nothing { META } else { 0 };
        let (code, known, left): (u32, Vec<u8>, i64) = redis
            .query(async |to| {
                let mut call = STORE.prepare_invoke();
                call.key(&self.target).key(&self.base);
                if let Some(lease) = &self.lease {
                    call.key(lease);
                }
                call.arg(value::digits(token)).arg(&value[..]).arg(meta.keep_ms).arg(&self.varies[..]).arg(wanted);
                call.invoke_async(to).await
            })
            .await?;
        Ok(match code {
            1 => Written::Stored,
            2 => Written::Known(known, left),
            _ => Written::Fenced,
        })
    }
}
