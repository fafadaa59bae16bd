//! A reply that comes in pieces: a task of this thread moves them, as fast as the reader takes them.
//!
//! What holds a process for long is bounded twice. A *stream* (the function said `flush()`, or returned a generator) has one of
//! the pool's places for streams from its start. Any other reply in pieces is only long, or was finished early: it needs no
//! place at first, but counts as a stream once it has lasted longer than a call may take, be it that the function goes on
//! printing or that its reader is slow; without a place it is cut then. A function that runs on when its reader has had
//! everything may do so for the time of a call.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::time::Sleep;
use troupe_contracts::invoke::Reply;
use troupe_mesh::body::{self, Body, BodyWriter};
use troupe_mesh::failure::{Failure, Outcome, Stage};

use crate::call::{RETRY_AFTER, end, error, failed, gone_failure, record, request_id, times};
use crate::feed::Feed;
use crate::local::{Counted, Local};
use crate::process::{Fate, Gone};
use crate::protocol::{FrameHeader, FromPhp};
use crate::reply::{self, BodyLength};
use crate::request::Request;
use crate::turn::{Turn, Word};

/// Answers with the head that came; the rest follows.
pub(crate) fn reply(
    turn: Turn,
    header: FrameHeader,
    request: Request,
    feed: Option<Pin<Box<Feed>>>,
) -> Result<Reply, Failure> {
    let local = Rc::clone(&turn.local);
    local.withdraw_seat(turn.slot());
    let times = times(&turn, &request, header.micros, Instant::now());
    let Some(hold) = Hold::begin(&local, header.finite) else {
        give_up(turn, feed.as_deref());
        let reason = "too many streams are open";
        return Err(Failure {
            retry_after: Some(RETRY_AFTER),
            ..Failure::new(Outcome::Overloaded, Stage::PhpPool, reason)
        }
        .after(times));
    };
    let taken = turn.take(&header, |lines| reply::head(&local, lines, header.status, BodyLength::Open));
    let Some(((head, length), first)) = taken else {
        return Err(gone_failure(turn, Gone::Closed).after(times));
    };
    let (writer, reader) = body::channel(length);
    let load = local.pool.load();
    // What answers a HEAD tells the length of a body that never comes.
    let left = if request.call.head.method() == "HEAD" { None } else { length };
    let counted = local.count();
    let status = header.status;
    let pump = Pump { turn, writer: Some(writer), left, status, request, feed, hold, _counted: counted };
    actix_rt::spawn(pump.run(first));
    Ok(Reply { head, load, times, body: Body::Stream(reader) })
}

struct Pump {
    turn: Turn,
    /// `None` once the reply is complete.
    writer: Option<BodyWriter>,
    /// Bytes that may still come, when PHP announced a length.
    left: Option<u64>,
    status: u16,
    request: Request,
    feed: Option<Pin<Box<Feed>>>,
    hold: Hold,
    _counted: Counted,
}

/// Why a reply is not sent to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Nobody reads it any more.
    ReaderGone,
    /// It has become a stream, and there are too many.
    Crowded,
}

impl Pump {
    async fn run(mut self, first: Bytes) {
        if let Err(cut) = self.write(first).await {
            return self.end_early(cut);
        }
        loop {
            if self.writer.is_some() {
                self.turn.set_due(Instant::now() + self.turn.local.pool.limits.timeout);
            }
            let word = match self.next().await {
                Ok(word) => word,
                Err(cut) => return self.end_early(cut),
            };
            let header = match word {
                Word::Frame(header) => header,
                Word::Gone(gone) => {
                    failed(&self.turn, &self.request);
                    gone_failure(self.turn, gone);
                    return;
                }
                Word::Due => {
                    failed(&self.turn, &self.request);
                    return self.turn.kill(Fate::TimedOut);
                }
            };
            let recycle = header.recycle || self.feed.as_ref().is_some_and(|feed| !feed.is_done());
            match header.kind {
                FromPhp::Data => {
                    let piece = self.turn.take(&header, |_| ()).map(|((), piece)| piece).unwrap_or_default();
                    if let Err(cut) = self.write(piece).await {
                        return self.end_early(cut);
                    }
                }
                FromPhp::Done => {
                    let _ = self.turn.take(&header, |_| ());
                    self.complete();
                }
                FromPhp::End => {
                    let _ = self.turn.take(&header, |_| ());
                    record(&self.turn.local, &self.request, header.micros, self.status >= 500);
                    self.complete();
                    return end(self.turn, recycle, Instant::now());
                }
                FromPhp::Error => {
                    record(&self.turn.local, &self.request, header.micros, true);
                    // It is logged; the reader sees the stream break, unless it has all of it already.
                    let _ = error(&self.turn, &header, &self.request);
                    return end(self.turn, recycle, Instant::now());
                }
                FromPhp::Ready | FromPhp::Reply | FromPhp::Head | FromPhp::Expired => {
                    return self.turn.kill(Fate::Protocol);
                }
            }
        }
    }

    /// The next frame.
    async fn next(&mut self) -> Result<Word, Cut> {
        let Self { turn, writer, feed, hold, .. } = self;
        poll_fn(|context| {
            if let Some(feed) = feed {
                feed.as_mut().poll(turn, context);
            }
            if let Poll::Ready(word) = turn.poll_next(context) {
                return Poll::Ready(Ok(word));
            }
            // Who has had everything may leave, and the function runs on.
            let Some(writer) = writer else { return Poll::Pending };
            if std::pin::pin!(writer.closed()).poll(context).is_ready() {
                return Poll::Ready(Err(Cut::ReaderGone));
            }
            hold.poll_spent(&turn.local, context).map(|()| Err(Cut::Crowded))
        })
        .await
    }

    /// Gives a piece to the reader, who may be slow.
    async fn write(&mut self, mut piece: Bytes) -> Result<(), Cut> {
        let Self { turn, writer: Some(writer), left, hold, .. } = self else {
            return Ok(());
        };
        if let Some(left) = left {
            // More than was announced would be read as the next response.
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
        }
        poll_fn(|context| match writer.poll_ready(context) {
            Poll::Ready(taken) => Poll::Ready(taken.map_err(|_| Cut::ReaderGone)),
            Poll::Pending => {
                // Calls behind this one would wait for its reader.
                turn.clear_behind();
                hold.poll_spent(&turn.local, context).map(|()| Err(Cut::Crowded))
            }
        })
        .await?;
        writer.push(piece).map_err(|_| Cut::ReaderGone)?;
        if *left == Some(0) {
            self.complete();
        }
        Ok(())
    }

    /// No more of the reply will come. It ends for its reader, who then need not wait for the function to end; that may take
    /// as long as a call.
    fn complete(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        if self.left.is_none_or(|left| left == 0) {
            writer.finish();
        }
        self.hold = Hold::RunsOn;
        self.turn.set_due(Instant::now() + self.turn.local.pool.limits.timeout);
    }

    fn end_early(self, cut: Cut) {
        if cut == Cut::Crowded {
            self.turn.local.pool.metrics.overloaded.increment(1);
            tracing::warn!(
                pool = %self.turn.local.pool.name,
                function = %self.request.call.function,
                request_id = request_id(&self.request.call),
                after = ?self.turn.local.pool.limits.timeout,
                "cut a long reply: it took as long as a stream, and more streams are open than max_streams allows"
            );
        }
        give_up(self.turn, self.feed.as_deref());
    }
}

/// Lets a function go whose reply nobody reads: it finds that out at its next write. One that is still being sent its body ends at
/// once, since what has come of that would look like all of it.
fn give_up(turn: Turn, feed: Option<&Feed>) {
    match feed {
        Some(feed) if !feed.is_done() => turn.kill(Fate::Cancelled),
        _ => turn.discard(Fate::StreamGone),
    }
}

/// By what right a reply in pieces holds its process.
enum Hold {
    /// It is one of the streams the pool may have open.
    Stream { _place: StreamPlace },
    /// It is no stream until then.
    Reply(Pin<Box<Sleep>>),
    /// Its function runs on behind it.
    RunsOn,
}

impl Hold {
    /// `None`: too many streams are open.
    fn begin(local: &Rc<Local>, finite: bool) -> Option<Self> {
        if finite {
            return Some(Self::Reply(Box::pin(tokio::time::sleep(local.pool.limits.timeout))));
        }
        Some(Self::Stream { _place: StreamPlace::enter(local)? })
    }

    /// Makes a stream of a reply that has lasted too long for one; ready when there is no place for it.
    fn poll_spent(&mut self, local: &Rc<Local>, context: &mut Context<'_>) -> Poll<()> {
        let Self::Reply(until) = self else { return Poll::Pending };
        ready!(until.as_mut().poll(context));
        match StreamPlace::enter(local) {
            Some(place) => {
                *self = Self::Stream { _place: place };
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

/// One of the streams a pool may have open.
struct StreamPlace(Rc<Local>);

impl StreamPlace {
    fn enter(local: &Rc<Local>) -> Option<Self> {
        local.pool.enter_stream().then(|| Self(Rc::clone(local)))
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.pool.leave_stream();
    }
}
