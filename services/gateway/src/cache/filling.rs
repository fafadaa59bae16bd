//! A response on its way into the store, and those who read it meanwhile, on whatever thread.
//!
//! All pieces are kept until the last reader is through: they are the entry to be. A response that turns out too large
//! for the store is no entry any more; then only what the slowest reader still needs is kept, and the fetch waits for it, for as
//! long as the others bear it (`patience.rs`).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use slab::Slab;
use troupe_cache::entry::Entry;
use troupe_mesh::body::{BodyBroken, STREAM_BUFFER};

use super::patience::Patience;

/// How far behind the slowest reader may always be: by a piece or two nobody is slow, only a moment late.
const LEAST_WINDOW: usize = 4 * STREAM_BUFFER;

/// A response whose body is on its way.
#[derive(Debug)]
pub(crate) struct Filling {
    /// The head and the terms; its body is empty.
    pub(super) entry: Arc<Entry>,
    /// The body's length, when it is known.
    len: Option<u64>,
    body: Mutex<Pieces>,
}

#[derive(Debug)]
struct Pieces {
    pieces: VecDeque<Bytes>,
    /// Pieces that were let go.
    gone: usize,
    /// Bytes of the pieces that are kept.
    bytes: usize,
    end: End,
    readers: Slab<Reader>,
    /// Whoever fills, when it waits for the readers.
    filler: Option<Waker>,
    /// Pieces that all have read are let go, and the slowest reader may be so many bytes behind.
    window: Option<usize>,
}

/// What whoever fills finds with the readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// One would read on, and nobody is in its way.
    Left,
    /// All have enough to read.
    Full,
    /// One would read on; another is too far behind.
    HeldUp,
    /// Nobody reads.
    Unread,
}

#[derive(Debug, Default)]
struct Reader {
    /// The number of the next piece to read.
    at: usize,
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Complete,
    Broken,
}

/// A reader of a response on its way.
#[derive(Debug)]
pub(crate) struct Follower {
    filling: Arc<Filling>,
    reader: usize,
}

impl Filling {
    pub(super) fn new(entry: Arc<Entry>, len: Option<u64>) -> Arc<Self> {
        let body = Pieces {
            pieces: VecDeque::new(),
            gone: 0,
            bytes: 0,
            end: End::Open,
            readers: Slab::new(),
            filler: None,
            window: None,
        };
        Arc::new(Self { entry, len, body: Mutex::new(body) })
    }

    /// A reader from the beginning; `None` when the beginning is gone.
    pub(super) fn follow(self: &Arc<Self>) -> Option<Follower> {
        let mut body = self.body.lock();
        if body.gone > 0 {
            return None;
        }
        let reader = body.readers.insert(Reader::default());
        drop(body);
        Some(Follower { filling: Arc::clone(self), reader })
    }

    /// Adds a piece.
    pub(super) fn push(&self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let wakers = {
            let mut body = self.body.lock();
            body.bytes += piece.len();
            body.pieces.push_back(piece);
            body.let_go();
            body.wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// It will be no entry: what all have read is let go from now on. `held` bytes are reserved for it, and as far may the slowest
    /// reader be behind.
    pub(super) fn pass(&self, held: usize) {
        let mut body = self.body.lock();
        body.window = Some(held.max(LEAST_WINDOW));
        body.let_go();
    }

    /// Ready while readers have room for more; false when none is left.
    pub(super) async fn room(&self, patience: &mut Patience) -> bool {
        loop {
            match self.turn_from(Room::Full).await {
                Room::Left => return true,
                Room::Unread => return false,
                Room::Full | Room::HeldUp => {}
            }
            let longest = patience.begin(Instant::now());
            match tokio::time::timeout(longest, self.turn_from(Room::HeldUp)).await {
                Ok(_) => patience.end(Instant::now()),
                Err(_) => {
                    self.leave_behind();
                    // Those who are left did nothing: all who were in the way have gone.
                    *patience = Patience::new(Instant::now());
                }
            }
        }
    }

    /// What is found as soon as it is something else than `found`.
    async fn turn_from(&self, found: Room) -> Room {
        poll_fn(|context| {
            let mut body = self.body.lock();
            match body.room() {
                room if room != found => Poll::Ready(room),
                _ => {
                    body.filler = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Goes on without the slowest. To them it breaks off; who asks again is not made to wait for others by then.
    fn leave_behind(&self) {
        let mut body = self.body.lock();
        while body.room() == Room::HeldUp {
            let Some(slowest) = body.readers.iter().map(|(_, reader)| reader.at).min() else { break };
            // Their numbers are nobody else's from now on: with the beginning gone no reader comes.
            body.readers.retain(|_, reader| reader.at > slowest);
            body.let_go();
        }
    }

    /// The whole body in memory of its own.
    pub(super) fn whole(&self) -> Bytes {
        let body = self.body.lock();
        let mut whole = BytesMut::with_capacity(body.bytes);
        for piece in &body.pieces {
            whole.extend_from_slice(piece);
        }
        whole.freeze()
    }

    /// Ends it.
    pub(super) fn finish(&self, complete: bool) {
        let wakers = {
            let mut body = self.body.lock();
            if body.end == End::Open {
                body.end = if complete { End::Complete } else { End::Broken };
            }
            body.wakers()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Pieces {
    fn let_go(&mut self) {
        if self.window.is_none() {
            return;
        }
        let slowest = self.readers.iter().map(|(_, reader)| reader.at).min().unwrap_or(usize::MAX);
        while self.gone < slowest {
            let Some(piece) = self.pieces.pop_front() else { break };
            self.bytes -= piece.len();
            self.gone += 1;
        }
        if let Some(waker) = self.filler.take() {
            waker.wake();
        }
    }

    fn room(&self) -> Room {
        let Some(fastest) = self.readers.iter().map(|(_, reader)| reader.at).max() else { return Room::Unread };
        let unread: usize = self.pieces.iter().skip(fastest.saturating_sub(self.gone)).map(Bytes::len).sum();
        match self.window {
            _ if unread >= STREAM_BUFFER => Room::Full,
            Some(window) if self.bytes >= window => Room::HeldUp,
            _ => Room::Left,
        }
    }

    fn wakers(&mut self) -> Vec<Waker> {
        self.readers.iter_mut().filter_map(|(_, reader)| reader.waker.take()).collect()
    }
}

impl Follower {
    /// The body's length, when it is known.
    pub(crate) fn len(&self) -> Option<u64> {
        self.filling.len
    }

    /// The next piece; `None` at the end.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>> {
        let mut guard = self.filling.body.lock();
        let body = &mut *guard;
        // It was left behind: what it has is not the whole.
        let Some(reader) = body.readers.get_mut(self.reader) else { return Poll::Ready(Some(Err(BodyBroken))) };
        let piece = reader.at.checked_sub(body.gone).and_then(|at| body.pieces.get(at)).cloned();
        match (piece, body.end) {
            (Some(piece), _) => {
                reader.at += 1;
                body.let_go();
                Poll::Ready(Some(Ok(piece)))
            }
            (None, End::Complete) => Poll::Ready(None),
            (None, End::Broken) => Poll::Ready(Some(Err(BodyBroken))),
            (None, End::Open) => {
                match &mut reader.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => reader.waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut body = self.filling.body.lock();
        body.readers.try_remove(self.reader);
        body.let_go();
    }
}

#[cfg(test)]
mod tests;
