//! One watcher's stream: what it tells is noted, and it is told every purge, in order, and its beats' answers behind them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::watch::Receiver;
use tokio::time::timeout;
use troupe_contracts::cache::Uid;
use troupe_contracts::cache::watch::{BadMessage, Messages, Position, Tell, Told, Watch, Watching, put};
use troupe_mesh::body::{self, Body, BodyWriter};
use troupe_mesh::failure::{Failure, Outcome, Stage};

use super::hub::{Hub, News};

/// A watcher that says nothing for so long is gone; it says something four times a second.
const SILENCE: Duration = Duration::from_secs(10);
/// Bytes that are gathered before they are sent.
const PIECE: usize = 16 * 1024;

/// Begins to serve a watcher, on this thread; when its stream has ended comes what is to be done when it is `gone`.
pub(crate) fn begin(
    hub: &Arc<Hub>,
    watch: Watch,
    gone: impl Future<Output = ()> + 'static,
) -> Result<Watching, Failure> {
    let uid = watch.about.uid;
    let Some(from) = hub.join(uid, watch.about.since) else {
        let reason = "too many gateways watch the cache service";
        return Err(Failure::new(Outcome::Overloaded, Stage::Cache, reason).not_started());
    };
    let (writer, reader) = body::channel(None);
    let stream = Stream {
        told_sure: true,
        cursor: from,
        news: hub.news(),
        out: BytesMut::new(),
        messages: Messages::default(),
        member: Member { hub: Arc::clone(hub), uid },
    };
    tracing::info!(gateway = watch.about.name, "a gateway watches");
    actix_rt::spawn(async move {
        stream.run(watch.signals, writer).await;
        tracing::info!(gateway = watch.about.name, "a gateway does not watch any more");
        gone.await;
    });
    Ok(Watching { from, news: Body::Stream(reader) })
}

struct Stream {
    member: Member,
    /// The last purge that was told.
    cursor: Position,
    /// Whether the watcher believes that it hears everything.
    told_sure: bool,
    news: Receiver<()>,
    messages: Messages,
    out: BytesMut,
}

/// A watcher's place at the hub while its stream is open.
struct Member {
    hub: Arc<Hub>,
    uid: Uid,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.hub.leave(&self.uid);
    }
}

impl Stream {
    async fn run(mut self, mut signals: Body, mut writer: BodyWriter) {
        loop {
            tokio::select! {
                piece = timeout(SILENCE, signals.next()) => {
                    let Ok(Some(Ok(piece))) = piece else { return };
                    if self.heard(&piece).is_err() {
                        tracing::warn!("a watcher sends what is no message; its stream ends");
                        return;
                    }
                }
                changed = self.news.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            if self.member.hub.is_over() {
                writer.finish();
                return;
            }
            self.tell();
            if !self.out.is_empty() && writer.write(self.out.split().freeze()).await.is_err() {
                return;
            }
            while self.more() {
                if writer.write(self.out.split().freeze()).await.is_err() {
                    return;
                }
            }
        }
    }

    fn heard(&mut self, piece: &Bytes) -> Result<(), BadMessage> {
        let mut beats = Vec::new();
        self.messages.add(piece);
        while let Some(tell) = self.messages.take::<Tell>()? {
            let Member { hub, uid } = &self.member;
            match tell {
                Tell::Beat { number, generation, applied } => {
                    if hub.beat(uid, generation, applied) {
                        beats.push(number);
                    }
                }
                Tell::Applied { generation, seq, urls, responses } => {
                    hub.applied(uid, generation, seq, (urls, responses));
                }
            }
        }
        // Its lease is longer from here on, so whatever was purged before is told before it learns of that.
        while !beats.is_empty() && self.tell() {}
        for number in beats {
            self.told_sure = true;
            put(&Told::Beat(number), &mut self.out);
        }
        Ok(())
    }

    /// Adds what is new to what is sent; whether there may be more.
    fn tell(&mut self) -> bool {
        let hub = &self.member.hub;
        if self.told_sure && !hub.is_sure(Instant::now()) {
            self.told_sure = false;
            put(&Told::Unsure, &mut self.out);
        }
        match hub.after(self.cursor) {
            News::Purges(purges) => {
                for purge in &purges {
                    self.cursor = purge.at;
                    if !put(&Told::Gone(purge.as_ref().clone()), &mut self.out) {
                        // Longer than any URL that came in by a request: whoever cannot be told what, is told to doubt all.
                        put(&Told::Anew(purge.at), &mut self.out);
                    }
                }
                !purges.is_empty()
            }
            News::Anew(position) => {
                self.cursor = position;
                put(&Told::Anew(position), &mut self.out);
                true
            }
        }
    }

    /// The same, piece by piece.
    fn more(&mut self) -> bool {
        while self.out.len() < PIECE && self.tell() {}
        !self.out.is_empty()
    }
}
