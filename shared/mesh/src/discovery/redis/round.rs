//! One round: beat what is due, read what is watched, and say what has changed.

use std::time::Duration;

use tokio::time::Instant;
use troupe_redis::Error;

use super::keys::{BEAT, LEAVE, READ};
use super::record::{self, LONGEST_RECORD, State};
use super::{BEAT_EVERY, BEAT_LASTS, Joined, Meanwhile, POLL_EVERY, Shared, Watched, meters};
use crate::discovery::{Endpoints, MAX_ENDPOINTS};

/// What a round came to.
#[derive(Debug)]
pub(super) struct Done {
    /// The pause before the next one, before jitter.
    pub(super) pause: Duration,
    /// Whether Redis did not answer.
    pub(super) failed: bool,
    /// Whether it answers again after an outage.
    pub(super) recovered: bool,
}

/// Beats and reads. The first failure ends it: what is behind it would wait for the same.
pub(super) async fn run(shared: &Shared) -> Done {
    if shared.joined.borrow().is_empty() && shared.watched.borrow().is_empty() {
        return Done { pause: POLL_EVERY, failed: false, recovered: false };
    }
    let outcome = async {
        beat_all(shared).await?;
        read_all(shared).await
    };
    let outcome = outcome.await;
    let now = Instant::now();
    let done = match outcome {
        Ok(()) => {
            shared.meters.up.set(1.0);
            let outage = shared.health.borrow_mut().answered(now);
            if let Some(outage) = outage {
                let seconds = outage.as_secs_f64();
                tracing::info!(redis = shared.redis.place(), seconds, "redis is back");
            }
            Done { pause: POLL_EVERY, failed: false, recovered: outage.is_some() }
        }
        Err(error) => {
            shared.meters.up.set(0.0);
            shared.meters.failures.increment(1);
            let failed = shared.health.borrow_mut().failed();
            // Once per outage; the gauges tell the rest.
            if failed.news {
                let redis = shared.redis.place();
                tracing::warn!(redis, %error, "redis is away; the instances that are known stay in use");
            } else {
                tracing::debug!(%error, "redis did not answer");
            }
            for watched in shared.watched.borrow_mut().iter_mut() {
                watched.view.interrupted();
                if let Some(meanwhile) = watched.meanwhile.as_ref().map(Meanwhile::endpoints) {
                    watched.publish(meanwhile);
                }
            }
            // Who was away for longer than a beat lasts is registered anew at once.
            for joined in shared.joined.borrow_mut().iter_mut() {
                joined.due = None;
            }
            Done { pause: failed.pause, failed: true, recovered: false }
        }
    };
    for watched in shared.watched.borrow().iter() {
        meters::stale(&watched.service).set(shared.health.borrow().stale(now).as_secs_f64());
    }
    done
}

/// Says of every instance of this process that it stops.
pub(super) async fn leave(shared: &Shared) {
    let all = std::mem::take(&mut *shared.joined.borrow_mut());
    for joined in all {
        // What was never written needs no farewell; what is replaced is another's.
        let Some(address) = joined.address.as_ref().filter(|_| joined.written && !joined.replaced) else {
            continue;
        };
        let record = record::write(address, &joined.registration.name, State::Gone);
        let mut farewell = LEAVE.key(joined.keys.members());
        farewell
            .key(joined.keys.member(joined.registration.uid))
            .key(joined.keys.at(address))
            .arg(joined.registration.uid.to_string())
            .arg(record)
            .arg(millis(BEAT_LASTS))
            .arg(joined.keys.changes());
        let left = shared.redis.query(async |redis| farewell.invoke_async::<i64>(redis).await).await;
        if let Err(error) = left {
            tracing::debug!(%error, "redis was not told that this instance stops; its last beat ends by itself");
            return;
        }
    }
}

async fn beat_all(shared: &Shared) -> Result<(), Error> {
    let count = shared.joined.borrow().len();
    for index in 0..count {
        let due = |joined: &&Joined| joined.due.is_none_or(|due| due <= Instant::now());
        // None as well when the process has left meanwhile.
        let Some(joined) = shared.joined.borrow().get(index).filter(due).cloned() else {
            continue;
        };
        let beaten = match beat(shared, &joined).await {
            // Not Redis' fault; the others go on.
            Err(Error::Route(reason)) => nowhere(&joined, &reason),
            beaten => beaten?,
        };
        if let Some(joined) = shared.joined.borrow_mut().get_mut(index) {
            // A drain that began meanwhile is still to be said.
            let due = (joined.state == beaten.state).then(|| Instant::now() + BEAT_EVERY);
            *joined = Joined { state: joined.state, due, ..beaten };
        }
    }
    Ok(())
}

/// It is not known where the instance is: what was tried is tried again at the next beat.
fn nowhere(joined: &Joined, reason: &str) -> Joined {
    if !joined.nowhere {
        let service = joined.registration.service.as_str();
        tracing::warn!(
            service,
            reason,
            "cannot register in redis: the address to advertise is not known; set mesh.advertise"
        );
    }
    Joined { nowhere: true, ..joined.clone() }
}

async fn beat(shared: &Shared, joined: &Joined) -> Result<Joined, Error> {
    let Joined { registration, keys, .. } = joined;
    // At each beat anew: a network that was away may come back with another address for this machine.
    let address = match (registration.advertise.resolve(&shared.redis).await, &joined.address) {
        (Ok(address), _) => address,
        (Err(_), Some(known)) => known.clone(),
        (Err(error), None) => return Err(error),
    };
    let stays = joined.written && joined.address.as_ref() == Some(&address);
    let mut beat = BEAT.key(keys.members());
    beat.key(keys.member(registration.uid))
        .key(keys.at(&address))
        .arg(registration.uid.to_string())
        .arg(record::write(&address, &registration.name, joined.state))
        .arg(millis(BEAT_LASTS))
        .arg(if stays { "stay" } else { "join" })
        .arg(keys.changes());
    let owned = shared.redis.query(async |redis| beat.invoke_async::<i64>(redis).await).await? == 1;
    let service = registration.service.as_str();
    if owned && !stays {
        tracing::info!(service, address = %address, uid = %registration.uid, "registered in redis");
    }
    if !owned && !joined.replaced {
        tracing::warn!(
            service,
            address = %address,
            "another process has registered with this address after this one; set mesh.advertise where both serve"
        );
    }
    Ok(Joined {
        address: Some(address),
        written: joined.written || owned,
        replaced: !owned,
        nowhere: false,
        ..joined.clone()
    })
}

async fn read_all(shared: &Shared) -> Result<(), Error> {
    let count = shared.watched.borrow().len();
    for index in 0..count {
        let Some(keys) = shared.watched.borrow().get(index).map(|watched| watched.keys.clone()) else {
            continue;
        };
        let mut read = READ.key(keys.members());
        read.arg(millis(BEAT_LASTS)).arg(MAX_ENDPOINTS).arg(LONGEST_RECORD).arg(keys.member_prefix());
        let found: Vec<Vec<u8>> = shared.redis.query(async |redis| read.invoke_async(redis).await).await?;
        publish(shared, index, &found);
    }
    Ok(())
}

fn publish(shared: &Shared, index: usize, found: &[Vec<u8>]) {
    let mut all = shared.watched.borrow_mut();
    let Some(watched) = all.get_mut(index) else {
        return;
    };
    let service = watched.service.as_str();
    let mut members = Vec::with_capacity(found.len() / 2);
    let mut refused = None;
    let rejected = meters::rejected(service);
    for pair in found.chunks_exact(2).take(MAX_ENDPOINTS) {
        let [uid, text] = pair else { continue };
        match record::read(uid, text) {
            Ok(member) => members.push(member),
            Err(error) => {
                rejected.increment(1);
                refused = Some(error);
            }
        }
    }
    // Once while there are some: they are there again at each poll.
    if let Some(error) = refused.as_ref().filter(|_| !watched.refused) {
        tracing::warn!(service, %error, "something in redis is no instance of a service; it is left out");
    }
    watched.refused = refused.is_some();
    let mut endpoints = watched.view.polled(members, Instant::now());
    if let Some(meanwhile) = watched.meanwhile.as_ref().map(Meanwhile::endpoints) {
        if endpoints.is_empty() {
            endpoints = meanwhile;
        } else {
            watched.meanwhile = None;
        }
    }
    for (state, count) in ["up", "draining", "missing"].into_iter().zip(watched.view.counts()) {
        meters::instances(service, state).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }
    watched.publish(endpoints);
}

impl Watched {
    fn publish(&self, endpoints: Endpoints) {
        self.published.send_if_modified(|known| {
            let changed = *known != endpoints;
            if changed {
                let service = self.service.as_str();
                tracing::info!(service, instances = endpoints.len(), "the set of instances changed");
                *known = endpoints;
            }
            changed
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
