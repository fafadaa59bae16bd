//! The one task of a link: reads, writes, and asks each second whether the peer lives.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval};
use troupe_wire::frame::{Header, Kind};

use super::Shared;
use super::core::{Core, LinkState};
use super::end::LinkEnd;
use super::reader::read_loop;
use super::streams::{CallState, Side};
use super::writer::write_loop;
use crate::failure::{Failure, Stage};

/// How often the link looks at its clocks.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// Ticks between two PINGs: one second.
const PING_TICKS: u32 = 4;
/// Silence after which the peer is dead. A living one answers a PING each second, so three were lost; with a tick's
/// delay the calls in flight end within four seconds.
const SILENCE: Duration = Duration::from_secs(3);
/// A tick this late means that this thread stood still, which is not the peer's fault.
const STALL: Duration = Duration::from_secs(1);
/// How long after a call's deadline the link ends it by itself. The callee, which can say what took the time, comes first.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

/// Runs the link to its end.
pub(super) async fn run<R, W>(shared: Rc<Shared>, reader: R, writer: W, buffer: BytesMut)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut stopped = StopGuard { shared: &shared, ended: false };
    let end = tokio::select! {
        biased;
        end = read_loop(&shared, reader, buffer) => end,
        end = write_loop(&shared, writer) => end,
        end = tick_loop(&shared) => end,
    };
    stopped.ended = true;
    shared.close(end);
}

/// Ends the link's calls also when its thread stops in mid-run.
struct StopGuard<'a> {
    shared: &'a Rc<Shared>,
    ended: bool,
}

impl Drop for StopGuard<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.close(LinkEnd::Stopped);
        }
    }
}

async fn tick_loop(shared: &Rc<Shared>) -> LinkEnd {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    // The first tick, which comes at once, pings: the round trip of the idle link is worth most.
    let mut count = PING_TICKS - 1;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let stalled = now.saturating_duration_since(last) > STALL;
        last = now;
        count = count.wrapping_add(1);
        let mut core = shared.core.borrow_mut();
        if let Some(end) = core.tick(now, count, stalled) {
            return end;
        }
        let given_up = core.give_up_standing();
        if given_up > 0 {
            core.held.memory().report(&shared.peer_name(), given_up);
        }
    }
}

impl Core {
    fn tick(&mut self, now: Instant, count: u32, stalled: bool) -> Option<LinkEnd> {
        if stalled {
            self.last_received = now;
        }
        let silence = now.saturating_duration_since(self.last_received);
        if silence > SILENCE {
            return Some(LinkEnd::Silent(silence));
        }
        self.ticks = self.ticks.wrapping_add(1);
        if count.is_multiple_of(PING_TICKS) {
            self.ping(now);
        }
        // Memory that other links gave back may allow a grant here.
        self.grant_link();
        self.expire(now);
        self.report_in_flight();
        None
    }

    /// Ends the calls whose callee has not answered in time, and those that waited for the socket in vain.
    fn expire(&mut self, now: Instant) {
        let mut cancelled = Vec::new();
        for (id, stream) in self.streams.iter_mut() {
            let Side::Call(call) = &mut stream.side else {
                continue;
            };
            let late = now.saturating_duration_since(call.deadline.instant());
            match call.state {
                CallState::Queued(_) if !late.is_zero() => {
                    call.end(CallState::Answered(Err(Failure::deadline(Stage::Link).not_started())));
                }
                CallState::Written if late > DEADLINE_GRACE => {
                    stream.outbound = None;
                    call.end(CallState::Answered(Err(Failure::deadline(Stage::Link))));
                    cancelled.push(id);
                }
                _ => continue,
            }
            self.metrics.expired.increment(1);
        }
        for id in cancelled {
            self.put_control(Header::new(Kind::Cancel, id));
        }
    }

    fn report_in_flight(&mut self) {
        let live = if self.state == LinkState::Down { 0 } else { self.streams.live() };
        self.metrics.in_flight.increment(f64::from(live) - f64::from(self.reported_in_flight));
        self.reported_in_flight = live;
    }
}

impl Shared {
    /// Ends everything that hangs on the link and says so once.
    fn close(&self, end: LinkEnd) {
        let (in_flight, end) = {
            let mut core = self.core.borrow_mut();
            let end = if core.is_finished() { LinkEnd::Finished } else { end };
            let in_flight = core.streams.live();
            core.close(end.clone());
            core.report_in_flight();
            (in_flight, end)
        };
        let peer = self.peer_name();
        match end {
            LinkEnd::Finished | LinkEnd::Stopped => tracing::debug!(%peer, reason = %end, "link ended"),
            LinkEnd::Closed if in_flight == 0 => tracing::info!(%peer, reason = %end, "link ended"),
            _ => tracing::warn!(%peer, reason = %end, in_flight, "link lost"),
        }
    }
}
