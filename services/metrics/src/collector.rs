//! The actor around the core: takes snapshots, closes each second, answers those who look.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use bytes::Bytes;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::{oneshot, watch};
use troupe_contracts::snapshot::{Act, Outcome, Snapshot, Taken};
use troupe_node::metrics::Metrics;

use crate::cluster::{Cluster, Refused};
use crate::pages::html::Parts;
use crate::pages::span::Span;
use crate::pages::{events, html};

/// A second of history.
const EVERY: Duration = Duration::from_secs(1);
/// People who wait for what came of their order; one more is refused.
const MAX_WAITING: usize = 64;

/// What each second publishes to the dashboards that are open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Published {
    /// Number of the second.
    pub(crate) tick: u64,
    /// The event that tells it; empty while nobody looks.
    pub(crate) event: Bytes,
}

/// What collector and pages share.
#[derive(Debug, Default)]
pub(crate) struct Viewers {
    open: AtomicUsize,
    refused: AtomicU64,
}

impl Viewers {
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many found no room.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts one in, unless there are `most` already.
    pub(crate) fn enter(&self, most: usize) -> bool {
        let one_more = |count| (count < most).then_some(count + 1);
        let entered = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        if !entered {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        entered
    }

    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The actor. The core outlives it, so that a restart does not forget the history.
pub(crate) struct Collector {
    cluster: Rc<RefCell<Cluster>>,
    metrics: Metrics,
    published: Rc<watch::Sender<Published>>,
    viewers: Arc<Viewers>,
    meters: Rc<Meters>,
    /// Whoever waits for what came of an order, by its number.
    waiting: BTreeMap<u64, oneshot::Sender<Outcome>>,
    /// The parts of the page as dashboards have them, and of which second they are.
    told: Option<(u64, Parts)>,
}

pub(crate) struct Meters {
    received: Counter,
    no_instance: Counter,
    no_series: Counter,
    no_viewer: Counter,
    up: Gauge,
    lost: Gauge,
    series: Gauge,
    viewers: Gauge,
    merge: Gauge,
}

/// A part of an instance's reading.
#[derive(Message)]
#[rtype(result = "Taken")]
pub(crate) struct Take(pub(crate) Snapshot);

/// Has a balancer do something with a worker; what came of it is sent to `reply`.
#[derive(Message)]
#[rtype(result = "Result<(), Refused>")]
pub(crate) struct Give {
    pub(crate) act: Act,
    /// The instance whose balancer it is.
    pub(crate) balancer: String,
    /// The worker, as that balancer names it.
    pub(crate) worker: String,
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// Asks for the merged view in Prometheus text.
#[derive(Message)]
#[rtype(result = "String")]
pub(crate) struct Render;

/// Asks for the moment and the seconds before it.
#[derive(Message)]
#[rtype(result = "Sight")]
pub(crate) struct Look(pub(crate) Looks);

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    /// The page.
    Page(Span),
    /// The stream of events.
    Stream(Span),
}

/// What a dashboard begins with.
#[derive(Debug)]
pub(crate) struct Sight {
    /// Number of the newest second.
    pub(crate) tick: u64,
    /// The event that tells it all.
    pub(crate) event: Bytes,
    /// The page that shows it without a script.
    pub(crate) page: String,
}

impl Collector {
    pub(crate) fn new(
        cluster: Rc<RefCell<Cluster>>,
        metrics: Metrics,
        published: Rc<watch::Sender<Published>>,
        viewers: Arc<Viewers>,
        meters: Rc<Meters>,
    ) -> Self {
        Self { cluster, metrics, published, viewers, meters, waiting: BTreeMap::new(), told: None }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let mut cluster = self.cluster.borrow_mut();
        cluster.tick(now, since_1970());
        let tick = cluster.ticks();
        let event = match self.viewers.count() {
            0 => Bytes::new(),
            _ => {
                let frames: Vec<_> = cluster.history().last(html::LATELY).cloned().collect();
                let before = self.told.as_ref().map(|(_, parts)| parts);
                let parts = Parts::new(&cluster.view(now), &frames, before);
                // Whoever has heard of the second before has its parts; to whom that was not told nothing is known.
                let event = match &self.told {
                    Some((told, before)) if told + 1 == tick => {
                        events::delta(tick, parts.changed_since(before), &frames)
                    }
                    _ => events::delta(tick, parts.all().into(), &frames),
                };
                self.told = Some((tick, parts));
                event
            }
        };
        self.meters.update(&cluster, &self.viewers, now);
        self.published.send_replace(Published { tick: cluster.ticks(), event });
    }
}

impl Meters {
    pub(crate) fn new() -> Self {
        let refused = |what| counter!("troupe_metrics_refused_total", "what" => what);
        let instances = |state| gauge!("troupe_metrics_instances", "state" => state);
        Self {
            received: counter!("troupe_metrics_snapshots_received_total"),
            no_instance: refused("instance"),
            no_series: refused("series"),
            no_viewer: refused("viewer"),
            up: instances("up"),
            lost: instances("lost"),
            series: gauge!("troupe_metrics_series"),
            viewers: gauge!("troupe_metrics_viewers"),
            merge: gauge!("troupe_metrics_merge_seconds"),
        }
    }

    fn update(&self, cluster: &Cluster, viewers: &Viewers, since: Instant) {
        let ((up, lost), (instances, series)) = (cluster.counts(since), cluster.refused());
        self.up.set(up as f64);
        self.lost.set(lost as f64);
        self.no_instance.absolute(instances);
        self.no_series.absolute(series);
        self.no_viewer.absolute(viewers.refused());
        self.series.set(cluster.series() as f64);
        self.viewers.set(viewers.count() as f64);
        self.merge.set(since.elapsed().as_secs_f64());
    }
}

impl Actor for Collector {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.run_interval(EVERY, |collector, _| collector.tick());
    }
}

impl Handler<Take> for Collector {
    type Result = actix::MessageResult<Take>;

    fn handle(&mut self, Take(snapshot): Take, _: &mut Self::Context) -> Self::Result {
        self.meters.received.increment(1);
        let mut cluster = self.cluster.borrow_mut();
        let taken = cluster.take(snapshot, Instant::now());
        for outcome in cluster.outcomes() {
            // Nobody: it was given before a restart, or whoever gave it has left.
            if let Some(reply) = self.waiting.remove(&outcome.id) {
                let _ = reply.send(outcome);
            }
        }
        actix::MessageResult(taken)
    }
}

impl Handler<Give> for Collector {
    type Result = actix::MessageResult<Give>;

    fn handle(&mut self, Give { act, balancer, worker, reply }: Give, _: &mut Self::Context) -> Self::Result {
        self.waiting.retain(|_, reply| !reply.is_closed());
        if self.waiting.len() >= MAX_WAITING {
            return actix::MessageResult(Err(Refused::Away("too many orders are under way".to_owned())));
        }
        let given = self.cluster.borrow_mut().order(act, &balancer, &worker, Instant::now());
        tracing::info!(act = act.as_str(), balancer, worker, given = given.is_ok(), "an operator's order");
        actix::MessageResult(given.map(|id| {
            self.waiting.insert(id, reply);
        }))
    }
}

impl Handler<Render> for Collector {
    type Result = String;

    fn handle(&mut self, _: Render, _: &mut Self::Context) -> String {
        self.cluster.borrow().render(self.metrics.registry().descriptions(), Instant::now())
    }
}

impl Handler<Look> for Collector {
    type Result = actix::MessageResult<Look>;

    fn handle(&mut self, Look(at): Look, _: &mut Self::Context) -> Self::Result {
        let (cluster, now) = (self.cluster.borrow(), Instant::now());
        let tick = cluster.ticks();
        let (Looks::Page(span) | Looks::Stream(span)) = at;
        let frames: Vec<_> = cluster.history().last(span.seconds()).cloned().collect();
        let (mut event, mut page) = (Bytes::new(), String::new());
        match at {
            Looks::Page(span) => page = html::page(&cluster.view(now), &frames, span),
            Looks::Stream(_) => {
                // The same for all who begin within a second: what follows says what has changed since.
                let told = match self.told.take().filter(|(told, _)| *told == tick) {
                    Some(told) => told,
                    None => (tick, Parts::new(&cluster.view(now), &frames, None)),
                };
                event = events::snapshot(tick, &told.1, &frames);
                self.told = Some(told);
            }
        }
        actix::MessageResult(Sight { tick, event, page })
    }
}

fn since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dashboard_that_finds_no_seat_is_counted() {
        let (metrics, viewers) = (Metrics::detached(), Viewers::default());
        let meters = metrics::with_local_recorder(metrics.registry(), Meters::new);
        assert!(viewers.enter(1) && !viewers.enter(1) && !viewers.enter(1));
        meters.update(&Cluster::new(), &viewers, Instant::now());
        let text = metrics.render();
        assert!(text.contains("troupe_metrics_refused_total{what=\"viewer\"} 2\n"), "{text}");
        viewers.leave();
        assert!(viewers.enter(1), "one has left");
    }
}
