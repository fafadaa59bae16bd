//! Answers that are fetched before anybody asks for them: at start, by a schedule, and those that will be asked for, shortly before they
//! expire. All of it is done by one of the gateway's threads, as if a client asked.

mod predict;

use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use metrics::counter;
use troupe_mesh::deadline::Deadline;
use troupe_wire::head::{RequestHead, RequestHeadBuilder, RequestParts, Scheme, Version};

use super::thread::Thread;
use crate::answer::Payload;
use crate::cache::config::WarmConfig;
use crate::cache::{Outcome, Response, Timeouts};
use crate::front::Plan;
use crate::path;
use crate::request::{BodyFrame, Method, REQUEST_ID, Request, Sampling, Trace};

pub(crate) use predict::{Noted, Predictor};

/// How often is looked what expires.
const LOOK: Duration = Duration::from_secs(1);
/// Times that a URL is fetched at start, where the first ones fail: workers may need a moment longer than the gateway.
const ATTEMPTS: u32 = 5;
/// The pause between them, longer each time.
const PAUSE: Duration = Duration::from_secs(1);
/// Shares of a lifetime: what has less left than one is fetched anew.
const LATE_SHARE: u64 = 10;
/// And what has less left than this, however short-lived.
const LATE: Duration = Duration::from_secs(2);

/// How a fetch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Warmed {
    /// It was fetched.
    Fetched,
    /// It was there, and fresh.
    Fresh,
    /// It could not be had, or may not be stored.
    Failed,
}

/// Why something is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Start,
    Schedule,
    Predicted,
}

/// Warms the cache of the gateway that `thread` belongs to, until that is gone.
pub(super) async fn run(thread: Weak<Thread>, config: WarmConfig, predictor: Option<Arc<Predictor>>) {
    let warming = Warming { thread, config };
    let predicted = async {
        if let Some(predictor) = &predictor {
            warming.predicted(predictor).await;
        }
    };
    let listed = async {
        warming.all(Why::Start).await;
        warming.scheduled().await;
    };
    futures_util::future::join(predicted, listed).await;
}

struct Warming {
    thread: Weak<Thread>,
    config: WarmConfig,
}

impl Warming {
    /// All URLs of the configuration.
    async fn all(&self, why: Why) {
        let fetched = stream::iter(&self.config.urls).map(|url| self.one(url, why));
        let ends = fetched.buffer_unordered(self.config.concurrency.max(1) as usize).collect::<Vec<_>>().await;
        if !ends.is_empty() {
            let count = |end| ends.iter().filter(|one| **one == end).count();
            let (fetched, fresh, failed) = (count(Warmed::Fetched), count(Warmed::Fresh), count(Warmed::Failed));
            tracing::info!(fetched, fresh, failed, why = why.as_str(), "the cache is warm");
        }
    }

    async fn one(&self, url: &str, why: Why) -> Warmed {
        let mut end = Warmed::Failed;
        for attempt in 1..=ATTEMPTS {
            let (Some(thread), Some(request)) = (self.thread.upgrade(), ask(url)) else { break };
            end = fetch(&thread, &request, why).await;
            if end != Warmed::Failed || why != Why::Start || attempt == ATTEMPTS {
                break;
            }
            drop(thread);
            tokio::time::sleep(PAUSE * attempt).await;
        }
        if end == Warmed::Failed {
            tracing::warn!(
                url,
                why = why.as_str(),
                "a URL could not be fetched into the cache: no route caches it, its function fails, or its answer must not be stored"
            );
        }
        counted(why, end)
    }

    /// All URLs again, each time that the schedule names.
    async fn scheduled(&self) {
        let Some(cron) = self.config.schedule.cron() else { return };
        while self.thread.strong_count() > 0 {
            let now = chrono::Local::now();
            // A pattern may name a day that never comes.
            let Ok(next) = cron.find_next_occurrence(&now, false) else { return };
            tokio::time::sleep((next - now).to_std().unwrap_or(LOOK)).await;
            self.all(Why::Schedule).await;
        }
    }

    /// What was asked for often, before it expires.
    async fn predicted(&self, predictor: &Predictor) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(thread) = self.thread.upgrade() else { return };
            let late = predictor.wanted(Instant::now()).into_iter().filter(|head| {
                thread.front.freshness(head).is_some_and(|(left, lifetime)| {
                    left > Duration::ZERO && left < (lifetime / LATE_SHARE as u32).max(LATE)
                })
            });
            let fetches = stream::iter(late).map(|head| {
                let thread = Rc::clone(&thread);
                async move { counted(Why::Predicted, fetch(&thread, &request(head), Why::Predicted).await) }
            });
            fetches
                .buffer_unordered(self.config.concurrency.max(1) as usize)
                .for_each(|_| std::future::ready(()))
                .await;
        }
    }
}

/// Fetches what `request` asks for; what is fresh only where it is to be fetched anew.
async fn fetch(thread: &Thread, request: &Request, why: Why) -> Warmed {
    let mut planned = match thread.front.plan_warming(request, why != Why::Start) {
        Plan::Hit(_) => return Warmed::Fresh,
        Plan::Answer(_) => return Warmed::Failed,
        Plan::Call(planned) => planned,
    };
    let super::thread::Timeouts { request: whole, stream_idle, .. } = thread.timeouts();
    let timeouts = Timeouts { deadline: Deadline::after(whole), request: whole, stream_idle };
    match thread.front.fetch(request, &mut planned, timeouts) {
        Some(fetching) => drain(fetching.await).await,
        None => Warmed::Failed,
    }
}

/// Reads what was fetched to its end: it is in the store then, or will never be.
async fn drain(outcome: Outcome) -> Warmed {
    let stored = outcome.status.stored || outcome.status.hit;
    let Response::Stored(_, follower) = outcome.response else { return Warmed::Failed };
    if let Some(follower) = follower {
        let mut body = Payload::Follow(follower);
        while let Some(piece) = poll_fn(|context| body.poll_next(context)).await {
            if piece.is_err() {
                return Warmed::Failed;
            }
        }
    }
    if stored { Warmed::Fetched } else { Warmed::Failed }
}

/// The request for a URL, as a client would make it; `None` for what is no URL.
fn ask(url: &str) -> Option<Request> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let path = path::normalise(if path.is_empty() { "/" } else { path }).ok()?;
    let target = [&*path, query].concat();
    let parts = RequestParts {
        version: Version::Http11,
        scheme,
        method: "GET",
        target: &target,
        authority,
        remote_addr: "127.0.0.1",
        remote_port: "0",
        local_addr: "127.0.0.1",
        local_port: "0",
    };
    let mut builder = RequestHeadBuilder::default();
    builder.field(REQUEST_ID, format!("{:032x}", fastrand::u128(..)).as_bytes()).ok()?;
    Some(request(builder.finish(&parts).ok()?))
}

/// The request that asks for what `head` asked for.
fn request(head: RequestHead) -> Request {
    Request {
        id: head.field(REQUEST_ID).map(|id| head.as_bytes().slice_ref(id)).unwrap_or_default(),
        received: Instant::now(),
        method: Method::Get,
        body: BodyFrame::None,
        trace: Trace::new(None, fastrand::u64(..), Sampling::default()),
        prefers_html: false,
        websocket: false,
        head,
    }
}

fn counted(why: Why, end: Warmed) -> Warmed {
    counter!("troupe_gateway_cache_warmed_total", "why" => why.as_str(), "result" => end.as_str()).increment(1);
    end
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Schedule => "schedule",
            Self::Predicted => "predicted",
        }
    }
}

impl Warmed {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Fresh => "fresh",
            Self::Failed => "failed",
        }
    }
}
