//! The store in Redis, which all instances of the service share.
//!
//! | part | subject |
//! |---|---|
//! | `keys` | what stands there, under which names |
//! | `scripts` | what has to be done at once |
//! | `epochs` | purges: which answers they are about, without knowing them |
//! | `objects` | answers, their bodies in chunks |
//! | `claims` | leases |
//! | `doubts` | leases that nobody may know to have |
//! | `follower` | the history, read by a connection of its own |
//!
//! An answer is kept with the number of the last purge before it was fetched. A purge writes its own number under the name
//! of what it is about (a URL, a host, a group), whatever there is of it: so it costs the same with one answer and with a
//! million. Whoever looks up compares. Nothing tracks the answers themselves.

mod claims;
mod doubts;
mod epochs;
mod follower;
mod keys;
mod objects;
mod scripts;
mod value;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use troupe_contracts::cache::lease::{Ask, Lease};
use troupe_contracts::cache::lookup::{Looked, Lookup, Stored, Want};
use troupe_contracts::cache::purge::{Purge, Purged};
use troupe_contracts::cache::store::{About, Kept};
use troupe_contracts::cache::watch::Position;
use troupe_contracts::cache::{LeaseName, Leased, Uid};
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_redis::{Error, Redis};

use super::config::StoreConfig;
use super::convert::url_name;
use super::hub::Hub;
use claims::{Taken, Waiting};
use doubts::{Doubts, KnownBy};
pub(crate) use follower::follow;
use keys::Keys;

/// For how long an instance of the service counts as there after it said so: as long as it may answer beats without having
/// said it again, and as long as a gateway may give what it has after that.
const SERVICE_LEASE: Duration = Duration::from_secs(2);
/// Pause between two looks at how far other instances are.
const POLL: Duration = Duration::from_millis(3);

/// What all threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    hub: Arc<Hub>,
    keys: Keys,
    me: Uid,
    config: StoreConfig,
    waiting: Waiting,
    doubts: Doubts,
    /// Redis has no room for more answers.
    full: AtomicBool,
    /// It has no bound of its own, which was told.
    unbounded: AtomicBool,
}

/// One thread's way to it.
#[derive(Debug, Clone)]
pub(crate) struct InRedis {
    redis: Redis,
    shared: Arc<Shared>,
}

impl Shared {
    /// Nothing is known of the history yet.
    pub(crate) fn new(redis: &Redis, me: Uid, config: &StoreConfig) -> Self {
        Self {
            hub: Arc::new(Hub::unsure()),
            keys: Keys::new(redis.namespace()),
            me,
            config: config.clone(),
            waiting: Waiting::default(),
            doubts: Doubts::default(),
            full: AtomicBool::new(false),
            unbounded: AtomicBool::new(false),
        }
    }
}

impl InRedis {
    pub(crate) fn new(redis: Redis, shared: Arc<Shared>) -> Self {
        Self { redis, shared }
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    pub(crate) async fn look_up(&self, call: Lookup) -> Result<Looked, Failure> {
        let claims = call.want != Want::Stored;
        let mut found = objects::find(&self.redis, &self.shared, &call, claims).await.map_err(|error| away(&error))?;
        if let Some(taken) = found.taken {
            return Ok(Looked { found: None, leased: taken.settle(), born: found.born });
        }
        let mut taken = Taken { leased: Leased::No, claim: None };
        if claims && (call.want == Want::Refresh || !found.is_fresh()) {
            taken = match claims::take(&self.redis, &self.shared, url_name(&call.url, &found.variant)).await {
                Ok(taken) => taken,
                // Without room for a lease each fetches for itself.
                Err(error) if is_full(&error) => taken,
                Err(error) => return Err(away(&error)),
            };
        }
        if let Leased::Granted { name, token } = taken.leased {
            // Whoever had the lease before may have brought the answer between the look and the grant.
            let again = objects::find(&self.redis, &self.shared, &call, false).await;
            found = again.map_err(|error| away(&error))?;
            if call.want == Want::Answer && found.is_fresh() {
                let _ = self.give(name, token, false).await;
                self.shared.waiting.over(name);
                taken.leased = Leased::No;
            }
        }
        let found_at = found.object.map(|object| Stored {
            age_ms: object.age_ms,
            stale: object.stale,
            record: object.record,
            body: object.body,
        });
        Ok(Looked { found: found_at, leased: taken.settle(), born: found.born })
    }

    pub(crate) async fn store(&self, about: About, record: Bytes, body: Bytes) -> Result<Kept, Failure> {
        let kept = match self.shared.full.load(Ordering::Relaxed) {
            true => Ok(Kept::NoRoom),
            false => objects::keep(&self.redis, &self.shared, &about, &record, body).await,
        };
        // Whoever waits looks again, and fetches for itself where nothing was kept.
        if !matches!(kept, Ok(Kept::Stored)) {
            let _ = self.give(about.lease, about.token, false).await;
        }
        self.shared.waiting.over(about.lease);
        match kept {
            Ok(kept) => Ok(kept),
            Err(error) if is_full(&error) => {
                // In a cluster that is one node, and nobody looks whether it has room again.
                self.shared.full.fetch_or(!self.redis.is_cluster(), Ordering::Relaxed);
                Ok(Kept::NoRoom)
            }
            Err(error) => Err(away(&error)),
        }
    }

    pub(crate) async fn lease(&self, call: Lease) -> Result<Leased, Failure> {
        match call.ask {
            Ask::Await { millis } => {
                let wait = Duration::from_millis(millis.into());
                Ok(claims::wait(&self.redis, &self.shared, call.name, wait).await)
            }
            Ask::Give { token, apart } => {
                let given = self.give(call.name, token, apart).await;
                self.shared.waiting.over(call.name);
                given.map(|()| Leased::Over).map_err(|error| away(&error))
            }
        }
    }

    /// Ends a lease: now, or as soon as Redis answers.
    async fn give(&self, name: LeaseName, token: u64, apart: bool) -> Result<(), Error> {
        let given = claims::give(&self.redis, &self.shared, name, token, apart).await;
        if given.is_err() {
            self.shared.doubts.add(name, KnownBy::Token(token));
        }
        given
    }

    /// Writes a purge and waits until no gateway gives what it is about: until each has confirmed it to the instance that
    /// it watches and that has told the others, or may give nothing any more.
    pub(crate) async fn purge(&self, call: Purge) -> Result<Purged, Failure> {
        let appended = epochs::append(&self.redis, &self.shared, &call).await.map_err(|error| away(&error))?;
        let Some(appended) = appended else {
            let reason = "the history in redis is about to begin anew";
            return Err(Failure::new(Outcome::Unreachable, Stage::Cache, reason).not_started());
        };
        let since = Instant::now();
        let counted = self.shared.hub.counted(appended.at.seq);
        let standing = self.shared.hub.confirmed(appended.at).await;
        let mut purged = counted.purged(standing);
        if appended.others {
            self.others_confirm(appended.at, &mut purged).await?;
        }
        // What a flush took with it are also the leases of other instances: none is longer than this.
        tokio::time::sleep(appended.quiet.saturating_sub(since.elapsed())).await;
        Ok(purged)
    }

    async fn others_confirm(&self, at: Position, purged: &mut Purged) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            match epochs::others(&self.redis, &self.shared, at).await {
                Ok(epochs::Others::Confirmed(found)) => {
                    purged.urls = purged.urls.saturating_add(found.urls);
                    purged.responses = purged.responses.saturating_add(found.responses);
                    purged.confirmed = purged.confirmed.saturating_add(found.confirmed);
                    purged.lapsed = purged.lapsed.saturating_add(found.lapsed);
                    return Ok(());
                }
                Ok(epochs::Others::Waiting) => {}
                Ok(epochs::Others::Lost) => {
                    let reason = "redis lost the history of purges meanwhile";
                    return Err(Failure::new(Outcome::Broken, Stage::Cache, reason));
                }
                // Their leases run out whether redis says so or not, by this clock a little later.
                Err(_) if since.elapsed() > SERVICE_LEASE * 2 => return Ok(()),
                Err(_) => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Redis has no room for what it was asked to keep.
fn is_full(error: &Error) -> bool {
    matches!(error, Error::Command(error) if error.code() == Some("OOM"))
}

/// Redis did not do what it was asked.
fn away(error: &Error) -> Failure {
    Failure::new(Outcome::Unreachable, Stage::Cache, "the store of the cache does not answer")
        .with_detail(error.to_string())
}
