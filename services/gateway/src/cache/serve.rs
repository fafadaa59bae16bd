//! From what is stored to an answer: whole, unmodified, or in parts.

use std::sync::Arc;

use bytes::Bytes;
use troupe_cache::cache_status::CacheStatus;
use troupe_cache::conditions::is_unmodified;
use troupe_cache::entry::Entry;
use troupe_cache::range::{self, Wanted};
use troupe_cache::time::Moment;
use troupe_mesh::body::Body;

use super::outcome::{CacheResult, Outcome};
use super::{Follower, now};
use crate::answer::{Answer, AnswerHead, Payload};
use crate::request::{Method, Request};

/// The names in `Cache-Status`.
pub(super) const NAME: &str = "troupe-l1";
const SECOND: &str = "troupe-l2";

/// What an answer of a cached route says beside its stored head.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The members of `Cache-Status`: nearest the origin first (RFC 9211 §2).
    pub(crate) status: String,
    /// `Age`, in seconds, of what comes out of the store.
    pub(crate) age: Option<u64>,
    /// What a network in front is told of what is stored: names and values.
    pub(crate) cdn: Vec<(&'static str, String)>,
}

/// How much of a stored response an answer is.
#[derive(Debug)]
pub(crate) enum Shape {
    /// 304: the client has it.
    Unmodified,
    /// 206 with one part: the value of `Content-Range`.
    Part(String),
    /// 416: the value of `Content-Range`.
    Nothing(String),
    /// 206 with several parts: the value of `Content-Type`.
    Parts(String),
}

impl Sent {
    /// What is said of `outcome`; `key` only to people who develop.
    pub(crate) fn new(outcome: &mut Outcome, entry: Option<&Entry>, key: Option<String>) -> Box<Self> {
        let now = now();
        let mut age = None;
        if let Some(entry) = entry {
            if outcome.status.hit || outcome.status.stored || outcome.result == CacheResult::Stale {
                outcome.status.ttl = Some(entry.fresh_for(now).div_euclid(1000));
            }
            age = said_age(entry, outcome, now);
            if let Some(second) = outcome.second.as_mut().filter(|second| second.hit) {
                second.ttl = outcome.status.ttl;
            }
        }
        outcome.status.key = key;
        let mut status = String::with_capacity(64);
        if let Some(second) = &outcome.second {
            second.write(SECOND, &mut status);
            status.push_str(", ");
        }
        outcome.status.write(NAME, &mut status);
        let cdn = match (entry, outcome.cdn_ttl) {
            (Some(entry), Some(ttl)) => said_to_cdn(entry, ttl, now),
            _ => Vec::new(),
        };
        Box::new(Self { status, age, cdn })
    }

    /// What is said where nothing stored was in play.
    pub(crate) fn of(status: &CacheStatus) -> Box<Self> {
        let mut text = String::with_capacity(48);
        status.write(NAME, &mut text);
        Box::new(Self { status: text, age: None, cdn: Vec::new() })
    }
}

/// What a network in front is told of `entry`, but for what the entry says itself. What it is told takes the place of the answer's
/// own `Cache-Control` there (RFC 9213 §2.2), so nothing is said of what we would not give to others ourselves: what is for one
/// client, has to be validated, or is stale.
pub(super) fn said_to_cdn(entry: &Entry, ttl: u64, now: Moment) -> Vec<(&'static str, String)> {
    let mut said = Vec::new();
    if entry.terms().no_cache || entry.fresh_for(now) <= 0 {
        return said;
    }
    for name in ["cdn-cache-control", "surrogate-control"] {
        if entry.head().field(name).is_none() {
            said.push((name, format!("max-age={ttl}")));
        }
    }
    // A name that could be taken for several is none to them.
    let plain = |group: &&str| !group.bytes().any(|byte| matches!(byte, b' ' | b',' | b'"'));
    let groups: Vec<&str> = entry.terms().groups.iter().map(|group| &**group).filter(plain).collect();
    for (name, between) in [("surrogate-key", " "), ("cache-tag", ",")] {
        if !groups.is_empty() && entry.head().field(name).is_none() {
            said.push((name, groups.join(between)));
        }
    }
    said
}

/// `Age` is the sign of what was not made for this request (RFC 9111 §5.1).
fn said_age(entry: &Entry, outcome: &Outcome, now: Moment) -> Option<u64> {
    let hit = outcome.status.hit || outcome.second.as_ref().is_some_and(|second| second.hit);
    let validated = outcome.status.forward_status == Some(304);
    let from_store = hit || validated || outcome.status.collapsed || outcome.result == CacheResult::Stale;
    // The time that this fetch took makes it no older than it is.
    let times = entry.terms().times;
    let came_old = entry.terms().initial_age.saturating_sub(times.received.since(times.requested)) >= 1000;
    (from_store || came_old).then(|| entry.age(now) / 1000)
}

/// The answer that a stored response, or one on its way into the store, is to a request.
pub(crate) fn answer(request: &Request, entry: &Arc<Entry>, follower: Option<Follower>) -> Answer {
    if is_unmodified(&request.head, entry) {
        return shaped(304, entry, Shape::Unmodified, Bytes::new());
    }
    if let Some(follower) = follower {
        // Its parts are not there yet; the whole is always a right answer to `Range` (RFC 9110 §14.2).
        return Answer::new(entry.status(), AnswerHead::Reply(entry.head().clone()), Payload::Follow(follower));
    }
    let body = entry.body();
    let wanted = match request.method {
        Method::Get => range::wanted(&request.head, entry),
        _ => Wanted::Whole,
    };
    match wanted {
        // A part is looked at before it is an answer (`lookup.rs`), and always holds what is wanted.
        Wanted::Whole | Wanted::Missing => {
            let payload = Payload::Body(Body::full(body.clone()));
            Answer::new(entry.status(), AnswerHead::Reply(entry.head().clone()), payload)
        }
        Wanted::One(part) => shaped(206, entry, Shape::Part(part.content_range(entry.total())), entry.part(part)),
        Wanted::Several(parts) => {
            let boundary = format!("{:032x}", fastrand::u128(..));
            let bytes = range::multipart(&parts, body, entry.head().field("content-type"), &boundary);
            shaped(206, entry, Shape::Parts(format!("multipart/byteranges; boundary={boundary}")), bytes)
        }
        Wanted::Nothing => shaped(416, entry, Shape::Nothing(format!("bytes */{}", body.len())), Bytes::new()),
    }
}

fn shaped(status: u16, entry: &Entry, shape: Shape, body: Bytes) -> Answer {
    Answer::new(status, AnswerHead::Shaped(entry.head().clone(), shape), Payload::Body(Body::full(body)))
}
