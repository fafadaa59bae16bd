//! Replies that are parts (206): kept as parts, joined to those that are there, and never given for the whole.

use bytes::Bytes;
use troupe_cache::entry::Entry;
use troupe_cache::freshness::Times;
use troupe_cache::partial::Span;
use troupe_cache::store::Stamp;
use troupe_cache::storing::judge_part;
use troupe_contracts::invoke::Reply;
use troupe_mesh::body::Body;

use super::fetch::Fetch;
use super::flight::{Leader, Settled};
use super::lookup::Lack;
use super::others::settle;
use super::outcome::{CacheResult, Outcome, Response};

impl Fetch {
    /// A part, which the origin gives where it was asked for one. Those who wait asked for something else.
    pub(super) fn part(
        &self,
        leader: Option<Leader<'_>>,
        lack: &Lack,
        reply: Reply,
        times: Times,
        began: Stamp,
    ) -> Outcome {
        settle(leader, Settled::Apart);
        // Nor is it for other gateways, which ask for parts of their own.
        drop(lack.grant.take());
        let answered = |response| Outcome::forwarded(response, lack.forward, CacheResult::Miss);
        let (request, policy) = self.judged_by();
        let terms = match judge_part(request, &reply.head, times, policy) {
            Ok(terms) => terms,
            Err(refusal) => return answered(Response::Reply(reply)).because(refusal.as_str()),
        };
        let bytes = match &reply.body {
            Body::Stream(_) => return self.fill(None, lack, terms, reply, began, answered),
            // A copy: what came is a part of a larger buffer, which would be kept with it.
            Body::Full(bytes) => Bytes::copy_from_slice(bytes),
            Body::Empty => Bytes::new(),
        };
        if Span::of(&reply.head).is_none_or(|span| span.len() != bytes.len()) {
            return answered(Response::Reply(reply)).because("size");
        }
        let stored = self.store(Entry::new(terms, &reply.head, bytes), began);
        answered(Response::Reply(reply)).stored(stored)
    }
}
