//! A reply that comes in pieces: a task of this thread moves them, as fast as the reader takes them.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use troupe_contracts::invoke::Reply;
use troupe_mesh::body::{self, Body, BodyWriter};
use troupe_mesh::failure::{Failure, Outcome, Stage};

use crate::call::{RETRY_AFTER, end, error, failed, gone_failure, record, times};
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
    let times = times(&turn, &request, header.micros);
    let Some(place) = StreamPlace::enter(&local) else {
        turn.discard(Fate::StreamGone);
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
    let pump = Pump { turn, writer, left: length, status: header.status, request, feed, _place: place };
    actix_rt::spawn(pump.run(first));
    Ok(Reply { head, load, times, body: Body::Stream(reader) })
}

struct Pump {
    turn: Turn,
    writer: BodyWriter,
    /// Bytes that may still come, when PHP announced a length.
    left: Option<u64>,
    status: u16,
    request: Request,
    feed: Option<Pin<Box<Feed>>>,
    _place: StreamPlace,
}

impl Pump {
    async fn run(mut self, first: Bytes) {
        if !self.write(first).await {
            return self.turn.discard(Fate::StreamGone);
        }
        loop {
            self.turn.set_due(Instant::now() + self.turn.local.pool.limits.timeout);
            let Some(word) = self.next().await else {
                return self.turn.discard(Fate::StreamGone);
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
                    if !self.write(piece).await {
                        return self.turn.discard(Fate::StreamGone);
                    }
                }
                FromPhp::End => {
                    let _ = self.turn.take(&header, |_| ());
                    record(&self.turn.local, &self.request, header.micros, self.status >= 500);
                    if self.left.is_none_or(|left| left == 0) {
                        self.writer.finish();
                    }
                    return end(self.turn, recycle);
                }
                FromPhp::Error => {
                    record(&self.turn.local, &self.request, header.micros, true);
                    // It is logged; the reader sees the stream break.
                    let _ = error(&self.turn, &header, &self.request);
                    return end(self.turn, recycle);
                }
                FromPhp::Ready | FromPhp::Reply | FromPhp::Head | FromPhp::Expired => {
                    return self.turn.kill(Fate::Protocol);
                }
            }
        }
    }

    /// The next frame; `None` when the reader has gone.
    async fn next(&mut self) -> Option<Word> {
        let Self { turn, writer, feed, .. } = self;
        poll_fn(|context| {
            if let Some(feed) = feed {
                feed.as_mut().poll(turn, context);
            }
            if let Poll::Ready(word) = turn.poll_next(context) {
                return Poll::Ready(Some(word));
            }
            std::pin::pin!(writer.closed()).poll(context).map(|()| None)
        })
        .await
    }

    /// Gives a piece to the reader, who may be slow; false when it has gone.
    async fn write(&mut self, mut piece: Bytes) -> bool {
        if let Some(left) = &mut self.left {
            // More than was announced would be read as the next response.
            piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= piece.len() as u64;
        }
        self.writer.write(piece).await.is_ok()
    }
}

/// One of the streams a pool may have open.
struct StreamPlace {
    local: Rc<Local>,
    _counted: Counted,
}

impl StreamPlace {
    fn enter(local: &Rc<Local>) -> Option<Self> {
        local.pool.enter_stream().then(|| Self { local: Rc::clone(local), _counted: local.count() })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.local.pool.leave_stream();
    }
}
