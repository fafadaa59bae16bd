//! Purges in Redis: numbers by what they are about, and how far every instance of the service is with them.

use std::time::Duration;

use troupe_contracts::cache::purge::{Purge, Purged, Target};
use troupe_contracts::cache::watch::{Invalidation, Position};
use troupe_contracts::cache::{Born, LeaseName, Uid, Url};
use troupe_redis::redis::{Pipeline, RedisResult, pipe};
use troupe_redis::{Error, Redis};

use super::scripts::{APPEND, OTHERS};
use super::{SERVICE_LEASE, Shared};
use crate::service::convert::short_name;

/// Names that purges are remembered by, 100 bytes each; beyond that everything counts as purged.
const MAX_NAMES: usize = 1_000_000;
/// Beginnings of URLs that are remembered; a look-up that is not older than the last of them compares with each.
const MAX_PREFIXES: usize = 1_024;
/// Purges in the log.
pub(super) const LOG: usize = 16_384;

/// A purge that was appended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Appended {
    pub(super) at: Position,
    /// Other instances are there.
    pub(super) others: bool,
    /// How long to wait at least: the history is so young that instances may be there which it does not know of.
    pub(super) quiet: Duration,
}

/// How far other instances are.
#[derive(Debug)]
pub(super) enum Others {
    Waiting,
    Confirmed(Purged),
    /// The history that the purge is in is gone, and what it says of instances as well.
    Lost,
}

/// What Redis knows of purges that an answer has to be compared with.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    pub(super) born: Born,
    /// What was born before is gone.
    hard: u64,
    /// What was born before is stale.
    soft: u64,
    /// The last purge by a beginning of URLs.
    prefix: u64,
}

impl Epochs {
    /// Whether an answer that was born then is still there.
    pub(super) fn keeps(&self, born: Born) -> bool {
        born.generation == self.born.generation && born.seq >= self.hard
    }

    /// Whether it was made stale.
    pub(super) fn makes_stale(&self, born: Born) -> bool {
        born.seq < self.soft
    }

    /// Whether beginnings of URLs have to be compared with, which are somewhere else.
    pub(super) fn asks_for_prefixes(&self, born: Born) -> bool {
        born.seq < self.prefix
    }

    /// What is known a moment later, of other names. In another history nothing of this one is there any more; and where names
    /// were given up for being too many, what they said is in the numbers that count for all.
    pub(super) fn merge(&mut self, later: Option<Self>) {
        match later {
            Some(later) if later.born.generation == self.born.generation => {
                self.hard = self.hard.max(later.hard);
                self.soft = self.soft.max(later.soft);
                self.prefix = self.prefix.max(later.prefix);
            }
            _ => self.hard = u64::MAX,
        }
    }

    fn add(&mut self, marks: &[Option<String>]) {
        for (hard, soft) in marks.iter().flatten().filter_map(|text| mark(text)) {
            self.hard = self.hard.max(hard);
            self.soft = self.soft.max(soft);
        }
    }

    /// Compares a URL with beginnings, given by name and number in turns. Where there were some and none is left, Redis has evicted
    /// them: any may have been about it.
    fn add_prefixes(&mut self, url: &Url, prefixes: &[(String, String)]) {
        if prefixes.is_empty() {
            self.hard = self.hard.max(self.prefix);
        }
        let whole = prefix_field(url);
        let about = prefixes.iter().filter(|(prefix, _)| whole.starts_with(prefix.as_str()));
        self.add(&about.map(|(_, mark)| Some(mark.clone())).collect::<Vec<_>>());
    }
}

/// The numbers that every look-up needs.
pub(super) const NUMBERS: [&str; 5] = ["gen", "seq", "floor", "soft", "px"];

/// Asks for [`NUMBERS`], and those of `names`.
pub(super) fn ask(pipe: &mut Pipeline, shared: &Shared, names: &[LeaseName]) {
    let ask = pipe.cmd("HMGET").arg(&shared.keys.epochs).arg(&NUMBERS);
    for name in names {
        ask.arg(&name[..]);
    }
}

/// Reads the answer to [`ask`]; nothing without a history.
pub(super) fn read(answer: &[Option<String>]) -> Option<Epochs> {
    let number = |place: usize| answer.get(place)?.as_deref()?.parse::<u64>().ok();
    let mut epochs = Epochs {
        born: Born { generation: number(0)?, seq: number(1)? },
        hard: number(2)?,
        soft: number(3)?,
        prefix: number(4)?,
    };
    epochs.add(answer.get(5..)?);
    Some(epochs)
}

fn mark(text: &str) -> Option<(u64, u64)> {
    let (hard, soft) = text.split_once(':')?;
    Some((hard.parse().ok()?, soft.parse().ok()?))
}

/// The purges that are about every answer of a URL.
pub(super) fn names_of_url(url: &Url) -> [LeaseName; 2] {
    [host_name(&url.host), name_of_url(url)]
}

fn name_of_url(url: &Url) -> LeaseName {
    short_name(&[b"url", &[u8::from(url.https)], url.host.as_bytes(), url.target.as_bytes()])
}

fn host_name(host: &str) -> LeaseName {
    short_name(&[b"host", host.as_bytes()])
}

/// The purges that are about a group's members at a URL.
pub(super) fn names_of_group(group: &str, url: &Url) -> [LeaseName; 2] {
    [group_name(group, None), group_name(group, Some(url))]
}

fn group_name(group: &str, origin: Option<&Url>) -> LeaseName {
    match origin {
        None => short_name(&[b"group", group.as_bytes()]),
        Some(url) => short_name(&[b"group", group.as_bytes(), &[u8::from(url.https)], url.host.as_bytes()]),
    }
}

fn prefix_field(url: &Url) -> String {
    format!("{}://{}{}", if url.https { "https" } else { "http" }, url.host, url.target)
}

/// Appends a purge; nothing where there is no history to append to.
pub(super) async fn append(redis: &Redis, shared: &Shared, purge: &Purge) -> Result<Option<Appended>, Error> {
    appended(redis, shared, purge, None).await
}

/// Appends that `url` has a new version, for gateways that have the one before; nothing where a purge since `born` is about
/// what is new as well, by one of `names`.
pub(super) async fn replace(
    redis: &Redis,
    shared: &Shared,
    (url, source): (&Url, Uid),
    born: Born,
    names: &[LeaseName],
) -> Result<Option<Appended>, Error> {
    let purge = Purge { target: Target::Url(url.clone()), soft: false, source: Some(source) };
    appended(redis, shared, &purge, Some((born, names))).await
}

async fn appended(
    redis: &Redis,
    shared: &Shared,
    purge: &Purge,
    replaces: Option<(Born, &[LeaseName])>,
) -> Result<Option<Appended>, Error> {
    let nonce = fastrand::u64(..);
    let (kind, name): (&str, Vec<u8>) = match &purge.target {
        Target::Nothing => return Ok(None),
        Target::All => ("all", Vec::new()),
        Target::Url(url) => ("name", name_of_url(url).to_vec()),
        Target::Host(host) => ("name", host_name(host).to_vec()),
        Target::Group(group, origin) => ("name", group_name(group, origin.as_ref()).to_vec()),
        Target::Prefix(url) => ("prefix", prefix_field(url).into_bytes()),
    };
    let keys = &shared.keys;
    let record = record(purge);
    let answer: Vec<String> = redis
        .query(async |to| -> RedisResult<Vec<String>> {
            let mut call = APPEND.prepare_invoke();
            call.key(&keys.epochs).key(&keys.log).key(&keys.services).key(&keys.prefixes);
            call.arg(nonce).arg(&record[..]).arg(if purge.soft { "s" } else { "h" }).arg(kind).arg(&name[..]);
            call.arg(MAX_NAMES).arg(MAX_PREFIXES).arg(LOG).arg(&shared.me[..]);
            if let Some((born, names)) = replaces {
                call.arg(born.generation).arg(born.seq);
                names.iter().for_each(|name| {
                    call.arg(&name[..]);
                });
            }
            call.invoke_async(to).await
        })
        .await?;
    Ok(read_appended(&answer, nonce))
}

fn read_appended(answer: &[String], nonce: u64) -> Option<Appended> {
    let [generation, seq, age, others] = answer else { return None };
    let age = Duration::from_millis(age.parse().unwrap_or(0));
    Some(Appended {
        at: Position { generation: generation.parse().ok()?, seq: seq.parse().ok()?, nonce },
        others: others != "0",
        quiet: SERVICE_LEASE.saturating_sub(age),
    })
}

/// A purge as the log has it.
pub(super) fn record(purge: &Purge) -> Vec<u8> {
    // Only a type that serde cannot express fails here.
    postcard::to_allocvec(purge).unwrap_or_default()
}

/// Reads what [`record`] wrote. What nobody can read is a purge of everything.
pub(super) fn invalidation(at: Position, record: &[u8]) -> Invalidation {
    let all = || Purge { target: Target::All, soft: false, source: None };
    let Purge { target, soft, source } = postcard::from_bytes(record).unwrap_or_else(|_| all());
    Invalidation { at, target, soft, source }
}

/// How far the other instances are with a purge.
pub(super) async fn others(redis: &Redis, shared: &Shared, at: Position) -> Result<Others, Error> {
    let keys = &shared.keys;
    let answer: Vec<String> = redis
        .query(async |to| -> RedisResult<Vec<String>> {
            let mut call = OTHERS.prepare_invoke();
            call.key(&keys.services).key(&keys.acks).key(&keys.found).key(&keys.epochs);
            call.arg(&shared.me[..]).arg(at.seq);
            call.invoke_async(to).await
        })
        .await?;
    let number = |place: usize| answer.get(place).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    if number(0) != at.generation {
        return Ok(Others::Lost);
    }
    let done = answer.iter().skip(5).all(|ack| {
        let ack = mark(ack);
        ack.is_some_and(|(generation, applied)| generation == at.generation && applied >= at.seq)
    });
    if !done {
        return Ok(Others::Waiting);
    }
    let few = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Others::Confirmed(Purged {
        urls: number(1),
        responses: number(2),
        confirmed: few(number(3)),
        lapsed: few(number(4)),
    }))
}

/// Says how far this instance is, and what its gateways found in purges of others.
pub(super) async fn acknowledge(
    redis: &Redis,
    shared: &Shared,
    ack: &str,
    found: &[(u64, Purged)],
) -> Result<(), Error> {
    let keys = &shared.keys;
    redis
        .query(async |to| -> RedisResult<()> {
            let mut pipe = pipe();
            // What was found before it is said that there is nothing more to come.
            for (seq, purged) in found {
                let all = [
                    ("u", purged.urls),
                    ("r", purged.responses),
                    ("c", purged.confirmed.into()),
                    ("l", purged.lapsed.into()),
                ];
                for (what, number) in all.into_iter().filter(|(_, number)| *number > 0) {
                    pipe.cmd("HINCRBY").arg(&keys.found).arg(format!("{seq}:{what}")).arg(number).ignore();
                }
            }
            if !found.is_empty() {
                pipe.cmd("PEXPIRE").arg(&keys.found).arg(SERVICE_LEASE.as_millis() as u64 * 10).ignore();
            }
            pipe.cmd("HSET").arg(&keys.acks).arg(&shared.me[..]).arg(ack).ignore();
            pipe.query_async(to).await
        })
        .await
}

/// The numbers again, those of further `names`, and the beginnings of URLs that were purged: all at one moment.
pub(super) async fn more(
    redis: &Redis,
    shared: &Shared,
    url: &Url,
    names: &[LeaseName],
) -> Result<Option<Epochs>, Error> {
    let (answer, prefixes): (Vec<Option<String>>, Vec<(String, String)>) = redis
        .query(async |to| {
            let mut pipe = pipe();
            pipe.atomic();
            ask(&mut pipe, shared, names);
            pipe.cmd("HGETALL").arg(&shared.keys.prefixes);
            pipe.query_async(to).await
        })
        .await?;
    let mut epochs = read(&answer);
    if let Some(epochs) = &mut epochs {
        epochs.add_prefixes(url, &prefixes);
    }
    Ok(epochs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str, target: &str) -> Url {
        Url { https: false, host: host.to_owned(), target: target.to_owned() }
    }

    #[test]
    fn an_answer_is_compared_with_every_purge_that_may_be_about_it() {
        let answer = |marks: &[&str]| {
            let numbers = ["7", "100", "10", "20", "30"].iter().chain(marks).map(|text| Some((*text).to_owned()));
            read(&numbers.collect::<Vec<_>>()).unwrap()
        };
        let born = |seq| Born { generation: 7, seq };
        let epochs = answer(&[]);
        assert_eq!(epochs.born, born(100));
        assert!(epochs.keeps(born(10)) && !epochs.keeps(born(9)) && !epochs.keeps(Born { generation: 8, seq: 99 }));
        assert!(epochs.makes_stale(born(19)) && !epochs.makes_stale(born(20)));
        assert!(epochs.asks_for_prefixes(born(29)) && !epochs.asks_for_prefixes(born(30)));
        let mut epochs = answer(&["50:0", "0:60", "nonsense"]);
        assert!(epochs.keeps(born(50)) && !epochs.keeps(born(49)) && epochs.makes_stale(born(59)));
        let prefixes = [("http://a/news/".to_owned(), "70:0".to_owned()), ("http://b/".to_owned(), "90:0".to_owned())];
        epochs.add_prefixes(&url("a", "/news/1"), &prefixes);
        assert!(epochs.keeps(born(70)) && !epochs.keeps(born(69)));
        assert!(read(&[None, None]).is_none(), "no history");
        let mut merged = answer(&[]);
        merged.merge(Some(answer(&["80:90"])));
        assert!(merged.keeps(born(80)) && !merged.keeps(born(79)) && merged.makes_stale(born(89)));
        merged.merge(None);
        assert!(!merged.keeps(born(u64::MAX - 1)), "the history ended in between");
    }

    #[test]
    fn names_of_different_purges_differ() {
        let mut names = vec![host_name("a"), name_of_url(&url("a", "/")), name_of_url(&url("a", "/b"))];
        names.extend(names_of_group("a", &url("a", "/")));
        names.extend(names_of_group("b", &url("a", "/")));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(names_of_group("a", &url("a", "/x"))[1], names_of_group("a", &url("a", "/y"))[1], "an origin's");
    }

    #[test]
    fn records_survive_and_what_cannot_be_read_is_everything() {
        let at = Position { generation: 1, seq: 2, nonce: 3 };
        let purge = Purge { target: Target::Url(url("a", "/")), soft: true, source: Some([1; 16]) };
        let read = invalidation(at, &record(&purge));
        assert_eq!((read.target, read.soft, read.source), (purge.target, true, purge.source));
        assert_eq!(invalidation(at, b"\xff\xff").target, Target::All);
    }
}
