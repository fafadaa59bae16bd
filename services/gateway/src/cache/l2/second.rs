//! The fetch path's part: what the second tier makes of a miss.

use std::sync::Arc;

use troupe_cache::cache_status::{CacheStatus, Forward};
use troupe_cache::entry::Entry;
use troupe_cache::reuse::{Reuse, decide};
use troupe_contracts::cache::Leased;
use troupe_contracts::cache::lookup::Want;
use troupe_mesh::deadline::Deadline;

use super::orders::is_untold;
use crate::cache::fetch::Parts;
use crate::cache::lookup::Lack;
use crate::cache::now;

/// How often a request looks again after such a wait.
const ROUNDS: usize = 3;

/// What comes of asking the second tier.
#[derive(Debug)]
pub(in crate::cache) enum Second {
    /// The answer; stale, it is answered while it is refreshed.
    Answer(Arc<Entry>, Reuse),
    /// It has to be fetched, by this gateway for all or by each for itself.
    Fetch,
    /// It has to be fetched, and nobody is to wait for it.
    Apart,
}

impl Parts {
    /// Asks the second tier, before a fetch for `lack`: what it says goes into `lack`.
    pub(in crate::cache) async fn second_tier(&self, lack: &mut Lack, deadline: Deadline) -> Second {
        let Some(l2) = &self.l2 else { return Second::Fetch };
        // Who wants it from the origin neither takes what is stored nor waits for what others fetch.
        let mut want = if lack.forward == Forward::Request { Want::Refresh } else { Want::Answer };
        for _ in 0..ROUNDS {
            let began = self.cache.store.stamp();
            let untold = l2.tier.untold.now();
            let asked = l2.look_up(&self.caching, &self.miss.key, &self.call.head, want);
            let answered = match self.clock.count(|spent| &mut spent.l2, asked).await {
                Ok(answered) => answered,
                Err(why) => {
                    lack.second = Some(said(lack, Some(why)));
                    return Second::Fetch;
                }
            };
            lack.second = Some(said(lack, None));
            if answered.grant.is_some() {
                lack.grant.set(answered.grant);
            }
            let mut outdated = false;
            if let Some(entry) = answered.entry.filter(|entry| !is_untold(&untold, &self.miss.key, entry)) {
                let reuse = decide(&self.miss.asked, &entry, now(), &self.caching.policy);
                let by_request = matches!(reuse, Reuse::Validate { by_request: true, .. });
                if by_request {
                    lack.forward = Forward::Request;
                }
                outdated = by_request || lack.is_ahead_of(&entry);
                if lack.forward != Forward::Request && !outdated && is_answer(reuse) {
                    self.cache.put(&self.caching, &self.miss.key, &self.call.head, Arc::clone(&entry), began);
                    return Second::Answer(entry, reuse);
                }
                lack.learn(entry, reuse);
            }
            let name = match answered.leased {
                Leased::Held { name } if lack.forward != Forward::Request => name,
                Leased::Apart => return Second::Apart,
                // Fresh there, it is what other gateways are given: what takes its place has to be brought there, which takes the right to.
                Leased::No if outdated && want == Want::Answer => {
                    want = Want::Refresh;
                    continue;
                }
                _ => return Second::Fetch,
            };
            // As long as the other may fetch, or half of the time that is left: the other half is for a fetch of its own.
            let waited = l2.wait(name, l2.tier.lease.min(deadline.remaining() / 2));
            match self.clock.count(|spent| &mut spent.lease, waited).await {
                Leased::Over => {}
                Leased::Apart => return Second::Apart,
                _ => return Second::Fetch,
            }
        }
        Second::Fetch
    }

    /// What the second tier has for a request that nothing is to be fetched for, if it answers it.
    pub(in crate::cache) async fn only_stored(&self, lack: &mut Lack) -> Option<(Arc<Entry>, Reuse)> {
        let l2 = self.l2.as_ref()?;
        let (began, untold) = (self.cache.store.stamp(), l2.tier.untold.now());
        let asked = l2.look_up(&self.caching, &self.miss.key, &self.call.head, Want::Stored);
        let answered = self.clock.count(|spent| &mut spent.l2, asked).await;
        lack.second = Some(said(lack, answered.as_ref().err().copied()));
        let told = |entry: &Arc<Entry>| !is_untold(&untold, &self.miss.key, entry);
        let entry = answered.ok()?.entry.filter(|entry| told(entry) && !lack.is_ahead_of(entry))?;
        let reuse = decide(&self.miss.asked, &entry, now(), &self.caching.policy);
        is_answer(reuse).then(|| {
            self.cache.put(&self.caching, &self.miss.key, &self.call.head, Arc::clone(&entry), began);
            (entry, reuse)
        })
    }

    /// Asks for the right to refresh `entry`. Whether to fetch; where somebody has fetched already, that is stored here.
    pub(in crate::cache) async fn may_refresh(&self, entry: &Entry, lack: &mut Lack) -> bool {
        let Some(l2) = &self.l2 else { return true };
        let (began, untold) = (self.cache.store.stamp(), l2.tier.untold.now());
        let Ok(answered) = l2.look_up(&self.caching, &self.miss.key, &self.call.head, Want::Refresh).await else {
            return true;
        };
        // Another does, and what it brings is found there when this one is stale.
        if let Leased::Held { .. } = answered.leased {
            return false;
        }
        let told = |theirs: &Arc<Entry>| !is_untold(&untold, &self.miss.key, theirs);
        let newer = |theirs: &Arc<Entry>| is_newer(theirs, entry) && !lack.is_ahead_of(theirs);
        if let Some(theirs) = answered.entry.filter(|theirs| told(theirs) && newer(theirs)) {
            self.cache.put(&self.caching, &self.miss.key, &self.call.head, theirs, began);
            return false;
        }
        // Where there is no right to be had, as in a Redis that is full, each gateway looks after what it has.
        lack.grant.set(answered.grant);
        true
    }
}

/// Whether it answers a request as it is.
fn is_answer(reuse: Reuse) -> bool {
    matches!(reuse, Reuse::Fresh | Reuse::Stale | Reuse::WhileRevalidating)
}

/// Whether one is fresh for clearly longer than the other.
fn is_newer(theirs: &Entry, ours: &Entry) -> bool {
    let now = now();
    theirs.fresh_for(now) > ours.fresh_for(now).max(0).saturating_add(1000)
}

fn said(lack: &Lack, detail: Option<&'static str>) -> CacheStatus {
    CacheStatus { forward: Some(lack.forward), detail, ..CacheStatus::default() }
}
