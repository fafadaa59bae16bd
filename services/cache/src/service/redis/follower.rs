//! Follows the history of purges by a connection of its own, and says that this instance is there.
//!
//! The history is read by place: what was appended while there was no connection is read by the next one, and if what this
//! instance knows is not in it any more, everybody is told to doubt what they have. So a connection that ends loses nothing;
//! watchers are cut off all the same until the next one has shown that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, counter, gauge};
use tokio::time::timeout;
use troupe_contracts::cache::Uid;
use troupe_contracts::cache::purge::{Purge, Target};
use troupe_contracts::cache::watch::{Invalidation, Position};
use troupe_redis::redis::{RedisResult, Value, cmd, from_redis_value};
use troupe_redis::{Connection, Redis};

use super::scripts::CYCLE;
use super::{SERVICE_LEASE, Shared, doubts, epochs};
use crate::service::WATCH_LEASE;

/// How long a read waits for the next purge.
const BLOCK: Duration = Duration::from_millis(200);
/// Purges that are read at once.
const BATCH: usize = 512;
/// How often the instance says that it is there.
const CYCLES: Duration = Duration::from_millis(200);
/// An answer that takes so long is none: this is the time for which beats are answered without one.
const PATIENCE: Duration = Duration::from_millis(800);
/// Pauses before the next connection, from the shortest to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Longest pause between two looks at how far watchers are.
const LOOK: Duration = Duration::from_millis(50);
/// Pause between two looks at how full Redis is.
const MEMORY: Duration = Duration::from_secs(1);
/// The part of Redis' memory, in percent, beyond which no answers are stored: heartbeats and purges always have room.
const FULL: u64 = 80;

/// What it counts.
struct Meters {
    up: Gauge,
    losses: Counter,
    anew: Counter,
    full: Gauge,
}

/// Follows for as long as the thread lives.
pub(crate) async fn follow(redis: Redis, shared: Arc<Shared>) {
    tokio::join!(read_forever(&redis, &shared), acknowledge(&redis, &shared), doubts::resolve(&redis, &shared));
}

async fn read_forever(redis: &Redis, shared: &Shared) {
    let meters = Meters {
        up: gauge!("troupe_cache_redis_up"),
        losses: counter!("troupe_cache_redis_losses_total"),
        anew: counter!("troupe_cache_histories_total"),
        full: gauge!("troupe_cache_redis_full"),
    };
    let mut pause = PAUSES.0;
    let mut away: Option<Instant> = None;
    loop {
        let error = match redis.alone(BLOCK + PATIENCE).await {
            Ok(connection) => {
                let mut reader = Reader { connection, redis, shared, meters: &meters, cycled: None, looked: None };
                match reader.cycle().await {
                    Ok(()) => {
                        pause = PAUSES.0;
                        meters.up.set(1.0);
                        if let Some(since) = away.take() {
                            tracing::info!(seconds = since.elapsed().as_secs_f32(), "redis is back for the cache");
                        }
                        reader.run().await
                    }
                    Err(error) => error,
                }
            }
            Err(error) => error.to_string(),
        };
        // Never silently: until the next connection has shown that nothing was missed, nobody is told that all is well.
        shared.hub.lose();
        meters.up.set(0.0);
        meters.losses.increment(1);
        if away.is_none() {
            away = Some(Instant::now());
            tracing::warn!(error, "redis is away for the cache: gateways validate what they have stored");
        }
        tokio::time::sleep(pause.mul_f32(0.5 + fastrand::f32())).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

struct Reader<'a> {
    connection: Connection,
    redis: &'a Redis,
    shared: &'a Shared,
    meters: &'a Meters,
    cycled: Option<Instant>,
    looked: Option<Instant>,
}

impl Reader<'_> {
    /// Runs until the connection ends; why it did.
    async fn run(&mut self) -> String {
        loop {
            let step = async {
                self.read(BLOCK).await?;
                if self.cycled.is_none_or(|cycled| cycled.elapsed() >= CYCLES) {
                    self.cycle().await?;
                }
                Ok(())
            };
            if let Err(error) = step.await {
                return error;
            }
            if !self.redis.is_cluster() && self.looked.is_none_or(|looked| looked.elapsed() >= MEMORY) {
                self.looked = Some(Instant::now());
                if let Err(error) = self.look_at_memory().await {
                    return error;
                }
            }
        }
    }

    /// Says that the instance is there, and that all is well once it knows all that was appended before.
    async fn cycle(&mut self) -> Result<(), String> {
        let (shared, keys) = (self.shared, &self.shared.keys);
        let known = shared.hub.position();
        let (began, nonce) = (Instant::now(), fastrand::u64(..));
        let begin = epochs::record(&Purge { target: Target::Nothing, soft: false, source: None });
        let asked = async {
            let mut call = CYCLE.prepare_invoke();
            call.key(&keys.epochs).key(&keys.log).key(&keys.services).key(&keys.acks).key(&keys.prefixes);
            call.arg(&shared.me[..]).arg(SERVICE_LEASE.as_millis() as u64).arg(shared.hub.ack());
            call.arg(fastrand::u64(1..1 << 53)).arg(nonce).arg(&begin[..]);
            call.arg(known.generation).arg(known.seq).arg(known.nonce);
            call.invoke_async(&mut self.connection).await
        };
        let (_, last, state, _): (String, u64, String, u64) = in_time(asked).await?;
        if state != "same" {
            self.begin_anew(last).await?;
        }
        while shared.hub.position().seq < last {
            if self.read(Duration::ZERO).await? == 0 {
                // It is not there to be read: another has begun a history meanwhile, which the next cycle finds.
                return Ok(());
            }
        }
        // Beats that are answered until then let gateways give what they have for no longer than the lease lasts.
        shared.hub.is_well_until(began + SERVICE_LEASE - WATCH_LEASE);
        self.cycled = Some(began);
        Ok(())
    }

    /// Takes the whole log for the history.
    async fn begin_anew(&mut self, last: u64) -> Result<(), String> {
        let (shared, keys) = (self.shared, &self.shared.keys);
        let asked = async {
            let generation: Option<u64> =
                cmd("HGET").arg(&keys.epochs).arg("gen").query_async(&mut self.connection).await?;
            let log: Value = cmd("XRANGE").arg(&keys.log).arg("-").arg("+").query_async(&mut self.connection).await?;
            Ok((generation, log))
        };
        let (generation, log) = in_time(asked).await?;
        let generation = generation.ok_or_else(|| "the history vanished".to_owned())?;
        let log: Vec<_> = entries(log, generation, &shared.me).into_iter().map(|(purge, _)| purge).collect();
        if log.last().is_none_or(|newest| newest.at.seq < last) {
            return Err("the log of purges is shorter than the history".to_owned());
        }
        self.meters.anew.increment(1);
        tracing::info!(generation, "the history of purges is read from its beginning; gateways doubt what they have");
        shared.hub.replace(log);
        Ok(())
    }

    /// Reads what follows; how many purges.
    async fn read(&mut self, wait: Duration) -> Result<usize, String> {
        let (shared, keys) = (self.shared, &self.shared.keys);
        let known = shared.hub.position();
        let mut ask = cmd("XREAD");
        ask.arg("COUNT").arg(BATCH);
        if !wait.is_zero() {
            ask.arg("BLOCK").arg(wait.as_millis() as u64);
        }
        ask.arg("STREAMS").arg(&keys.log).arg(format!("{}-0", known.seq));
        let answer: Value = in_time(ask.query_async(&mut self.connection)).await?;
        // Streams by name; nothing, where nothing came in time.
        let log = match answer {
            Value::Map(mut streams) => streams.pop().map_or(Value::Nil, |(_, log)| log),
            _ => Value::Nil,
        };
        let purges = entries(log, known.generation, &shared.me);
        let count = purges.len();
        shared.hub.append(purges);
        Ok(count)
    }

    async fn look_at_memory(&mut self) -> Result<(), String> {
        let text: String = in_time(cmd("INFO").arg("memory").query_async(&mut self.connection)).await?;
        let figure =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
        let (used, most) = (figure("used_memory:"), figure("maxmemory:"));
        if most == 0 && !self.shared.unbounded.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                used,
                "redis has no maxmemory: its answers are bounded by their lifetimes alone; set one, and maxmemory-policy noeviction"
            );
        }
        let full = most > 0 && used > most / 100 * FULL;
        if self.shared.full.swap(full, Ordering::Relaxed) != full {
            tracing::warn!(full, used, most, "the room for answers in redis");
        }
        self.meters.full.set(if full { 1.0 } else { 0.0 });
        Ok(())
    }
}

async fn in_time<T>(asked: impl Future<Output = RedisResult<T>>) -> Result<T, String> {
    match timeout(BLOCK + PATIENCE, asked).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Reads a list of `[id, [n, nonce, r, record, s, service]]`, and whether this instance made each. What is none is left out;
/// the cycle finds that it is missing.
fn entries(log: Value, generation: u64, me: &Uid) -> Vec<(Invalidation, bool)> {
    let Ok(log) = from_redis_value::<Vec<(String, Vec<Vec<u8>>)>>(log) else { return Vec::new() };
    let entry = |(id, fields): (String, Vec<Vec<u8>>)| {
        let seq = id.split('-').next()?.parse().ok()?;
        let [_, nonce, _, record, _, service] = fields.as_slice() else { return None };
        let nonce = std::str::from_utf8(nonce).ok()?.parse().ok()?;
        Some((epochs::invalidation(Position { generation, seq, nonce }, record), service == me))
    };
    log.into_iter().filter_map(entry).collect()
}

/// Tells the other instances how far the watchers of this one are.
async fn acknowledge(redis: &Redis, shared: &Shared) {
    let mut done = shared.hub.done();
    let mut said = String::new();
    loop {
        // Watchers that lapse say nothing.
        let _ = timeout(LOOK, done.changed()).await;
        let ack = shared.hub.ack();
        if ack == said {
            continue;
        }
        let found = shared.hub.take_found();
        // What could not be said is said with the next cycle.
        if epochs::acknowledge(redis, shared, &ack, &found).await.is_ok() {
            said = ack;
        }
    }
}
