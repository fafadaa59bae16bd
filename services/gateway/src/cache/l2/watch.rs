//! The stream by which this process hears of purges, for as long as it lives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::time::{MissedTickBehavior, interval, timeout};
use troupe_cache::service::convert::selector;
use troupe_cache::store::Selector;
use troupe_contracts::cache::lease::Lease;
use troupe_contracts::cache::purge::Purge;
use troupe_contracts::cache::watch::{BadMessage, Invalidation, Messages, Tell, Told, Watch, Watcher, Watching, put};
use troupe_mesh::body::{self, Body, BodyWriter, ReaderGone};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::Port;
use troupe_node::threads::stop_requested;

use super::Tier;
use super::alone::{Alone, Services};
use super::orders::{self, Orders};
use crate::cache::Cache;

/// Pause between two beats.
const BEAT: Duration = Duration::from_millis(250);
/// Beats that are waited for at once; older ones would be worth nothing.
const BEATS: usize = 8;
/// How long the beginning of a stream may take.
const BEGINNING: Duration = Duration::from_secs(3);
/// A stream on which nothing comes for so long is another's turn.
const SILENCE: Duration = Duration::from_millis(1500);
/// Pauses before the next try, from the shortest to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The ports of the thread that watches.
#[derive(Debug, Clone)]
pub struct WatchPorts {
    /// For the stream itself.
    pub watch: Port<Watch>,
    /// For purges that are ordered here.
    pub purge: Port<Purge>,
    /// For leases that are given back.
    pub lease: Port<Lease>,
    /// The services that are linked, where there must be one.
    pub services: Option<Services>,
}

/// Follows what is purged, and carries out what is ordered. On a thread that does nothing else, so that nothing keeps it.
pub async fn follow(cache: Arc<Cache>, ports: WatchPorts, orders: Orders) {
    let Some(tier) = cache.tier.clone() else { return };
    let work = async {
        tokio::join!(
            orders::carry_out(&tier, orders, ports.purge, ports.lease),
            watch_forever(&cache, &tier, &ports.watch, Alone::new(ports.services)),
            notice(&tier),
        )
    };
    tokio::select! {
        _ = work => {}
        // The stream is given up in order, so that its link does not look broken.
        () = stop_requested() => {}
    }
}

async fn watch_forever(cache: &Cache, tier: &Tier, port: &Port<Watch>, mut alone: Alone) {
    let mut pause = PAUSES.0;
    loop {
        alone.wait(tier).await;
        match begin(tier, port).await {
            Ok((watching, signals)) => {
                pause = PAUSES.0;
                let why = Stream::new(cache, tier, watching, signals).run(&alone).await;
                tracing::debug!(why, "the stream from the cache service ended");
            }
            Err(failure) => {
                tracing::debug!(%failure, "no stream from the cache service");
                pause = (pause * 2).min(PAUSES.1);
            }
        }
        tokio::time::sleep(pause.mul_f32(0.5 + fastrand::f32())).await;
    }
}

/// Says when the process is cut off, and when it is not any more.
async fn notice(tier: &Tier) {
    let began = Instant::now();
    let (mut live, mut ever) = (false, false);
    loop {
        tokio::time::sleep(BEAT / 5).await;
        let now = tier.coherence.is_live();
        if now != live {
            live = now;
            tier.meters.live.set(if live { 1.0 } else { 0.0 });
            if live {
                tracing::info!("the cache service tells what is purged; what is stored may be given");
            } else {
                tier.meters.cuts.increment(1);
                tracing::warn!("cut off from the cache service: what is stored is validated before it is given");
            }
        }
        ever |= live;
        if !ever && began.elapsed() > Duration::from_secs(10) {
            ever = true;
            tracing::warn!(
                "no cache service has answered: nothing that is stored is given without being validated; start one \
                 (--service cache), or set cache.l2 = \"off\""
            );
        }
    }
}

async fn begin(tier: &Tier, port: &Port<Watch>) -> Result<(Watching, BodyWriter), Failure> {
    let (writer, reader) = body::channel(None);
    let about = Watcher { uid: tier.uid, name: tier.name.clone(), since: tier.coherence.position() };
    let call = Watch { about, signals: Body::Stream(reader) };
    let call = port.call(Envelope::new(call, Deadline::after(BEGINNING)));
    match timeout(BEGINNING, call).await {
        Ok(watching) => Ok((watching?, writer)),
        Err(_) => Err(Failure::new(Outcome::Deadline, Stage::Cache, "the stream did not begin in time")),
    }
}

struct Stream<'a> {
    cache: &'a Cache,
    tier: &'a Tier,
    news: Body,
    signals: BodyWriter,
    messages: Messages,
    out: BytesMut,
    /// Beats that are not answered yet, with when they were sent.
    beats: VecDeque<(u32, Instant)>,
    number: u32,
}

impl<'a> Stream<'a> {
    fn new(cache: &'a Cache, tier: &'a Tier, watching: Watching, signals: BodyWriter) -> Self {
        if tier.coherence.position() != Some(watching.from) {
            doubt(cache, tier);
            tier.coherence.set_position(watching.from);
        }
        Self {
            cache,
            tier,
            news: watching.news,
            signals,
            messages: Messages::default(),
            out: BytesMut::new(),
            beats: VecDeque::new(),
            number: 0,
        }
    }

    /// Runs until the stream ends; why it did.
    async fn run(mut self, alone: &Alone) -> &'static str {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                piece = self.news.next() => match piece {
                    Some(Ok(piece)) => {
                        heard = Instant::now();
                        if self.told(&piece).is_err() {
                            return "it cannot be read";
                        }
                    }
                    Some(Err(_)) => return "it broke off",
                    None => return "the service ended it",
                },
                _ = beat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return "nothing came";
                    }
                    if alone.is_contested() {
                        return "there are several services";
                    }
                    self.beat();
                }
            }
            if self.send().await.is_err() {
                return "the service does not listen";
            }
        }
    }

    fn beat(&mut self) {
        let Some(at) = self.tier.coherence.position() else { return };
        self.number = self.number.wrapping_add(1);
        if self.beats.len() >= BEATS {
            self.beats.pop_front();
        }
        // Noted before it is sent: the lease counts from here.
        self.beats.push_back((self.number, Instant::now()));
        put(&Tell::Beat { number: self.number, generation: at.generation, applied: at.seq }, &mut self.out);
    }

    async fn send(&mut self) -> Result<(), ReaderGone> {
        if self.out.is_empty() {
            return Ok(());
        }
        let piece = self.out.split().freeze();
        // One that does not take what it is sent answers no beats either.
        timeout(SILENCE, self.signals.write(piece)).await.unwrap_or(Err(ReaderGone))
    }

    fn told(&mut self, piece: &Bytes) -> Result<(), BadMessage> {
        self.messages.add(piece);
        while let Some(told) = self.messages.take::<Told>()? {
            match told {
                Told::Gone(purge) => self.gone(purge),
                Told::Beat(number) => {
                    if let Some(place) = self.beats.iter().position(|(beat, _)| *beat == number)
                        && let Some((_, sent)) = self.beats.drain(..=place).next_back()
                    {
                        self.tier.meters.beats.increment(1);
                        self.tier.coherence.extend(sent);
                    }
                }
                Told::Unsure => self.tier.coherence.cut(),
                Told::Anew(position) => {
                    doubt(self.cache, self.tier);
                    self.tier.coherence.set_position(position);
                }
            }
        }
        Ok(())
    }

    /// Takes out what was purged, and says so.
    fn gone(&mut self, purge: Invalidation) {
        let own = purge.source == Some(self.tier.uid);
        let found = match selector(&purge.target).filter(|_| !own) {
            Some(selector) => self.cache.purge(&selector, purge.soft),
            None => Default::default(),
        };
        self.tier.meters.purges_heard.increment(1);
        self.tier.coherence.set_position(purge.at);
        let (urls, responses) = (found.urls as u64, found.responses as u64);
        let applied = Tell::Applied { generation: purge.at.generation, seq: purge.at.seq, urls, responses };
        put(&applied, &mut self.out);
    }
}

/// Something was missed: nothing that is stored is fresh any more, and nothing that is on its way.
fn doubt(cache: &Cache, tier: &Tier) {
    tier.coherence.cut();
    tier.meters.doubts.increment(1);
    cache.purge(&Selector::All, true);
}
