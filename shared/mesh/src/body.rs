//! Bodies: none, whole, or a stream of pieces with back-pressure.
//!
//! A body is never held whole unless it came in one piece. A stream is bounded in bytes: its writer waits while the
//! reader is behind, and a reader that goes away is seen by the writer at its next write.

mod pieces;
mod recall;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

pub use pieces::Pieces;
pub(crate) use recall::Recall;

/// Bytes a stream holds between its writer and its reader: two pieces of the size links send.
pub const STREAM_BUFFER: usize = 64 * 1024;
/// What a piece costs beside its bytes, so that a flood of one-byte pieces is bounded too.
const PIECE_OVERHEAD: usize = 64;

/// The body of a call or a reply.
#[derive(Debug, Default)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// A body at hand.
    Full(Bytes),
    /// A body on its way.
    Stream(BodyReader),
}

impl Body {
    /// A body at hand, or none when `bytes` is empty.
    pub fn full(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }

    /// Length in bytes, when it is known.
    pub fn len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Stream(reader) => reader.len,
        }
    }

    /// Whether there is certainly no body.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }

    /// The same body again, for a second try: of use as long as it [is whole](Self::is_whole). No bytes are copied.
    pub fn spare(&self) -> Self {
        match self {
            Self::Empty => Self::Empty,
            Self::Full(bytes) => Self::Full(bytes.clone()),
            Self::Stream(reader) => Self::Stream(reader.spare()),
        }
    }

    /// Whether reading it gives all of it: nothing of a stream was taken, here or by a reader it is the spare of.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Empty | Self::Full(_) => true,
            Self::Stream(reader) => !reader.shared.lock().taken,
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the writer went away before the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, BodyBroken>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// See [`Body::next`].
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(_) => match std::mem::take(self) {
                Self::Full(bytes) => Poll::Ready(Some(Ok(bytes))),
                _ => Poll::Ready(None),
            },
            Self::Stream(reader) => reader.poll_next(context),
        }
    }
}

/// The writer of a stream went away before its end: what was read is a part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body ended before it was complete")]
pub struct BodyBroken;

/// The reader of a stream went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader of the body is gone")]
pub struct ReaderGone;

/// Told of bytes as the application takes them: how a link grants its peer credit for what was really consumed.
pub trait Consumed: Send + Sync {
    /// The reader took a piece of `bytes` bytes.
    fn consumed(&self, bytes: usize);
    /// The reader was dropped before the end.
    fn abandoned(&self);
}

/// A stream bounded to [`STREAM_BUFFER`] bytes; `len` is the length where it is known beforehand.
pub fn channel(len: Option<u64>) -> (BodyWriter, BodyReader) {
    bounded(len, STREAM_BUFFER, None)
}

/// A stream whose writer is limited by credit of its own, told of each piece taken through `consumed`.
pub fn credited(len: Option<u64>, consumed: Arc<dyn Consumed>) -> (BodyWriter, BodyReader) {
    bounded(len, usize::MAX, Some(consumed))
}

fn bounded(len: Option<u64>, limit: usize, consumed: Option<Arc<dyn Consumed>>) -> (BodyWriter, BodyReader) {
    let shared = Arc::new(Mutex::new(Shared {
        pieces: VecDeque::new(),
        weight: 0,
        limit,
        end: End::Open,
        taken: false,
        readers: 1,
        reader_gone: false,
        reader: None,
        writer: None,
    }));
    let reader = BodyReader { shared: Arc::clone(&shared), consumed, on_end: None, len, took: false, done: false };
    (BodyWriter { shared }, reader)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Complete,
    Broken,
}

struct Shared {
    pieces: VecDeque<Bytes>,
    weight: usize,
    limit: usize,
    end: End,
    /// A piece was read, or the end.
    taken: bool,
    /// The reader and its spares.
    readers: usize,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The writing half of a stream. Dropped without [`BodyWriter::finish`], it breaks the stream.
pub struct BodyWriter {
    shared: Arc<Mutex<Shared>>,
}

impl BodyWriter {
    /// Adds a piece, waiting while the reader is behind.
    ///
    /// # Errors
    /// When the reader is gone.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), ReaderGone> {
        poll_fn(|context| self.poll_ready(context)).await?;
        self.push(piece)
    }

    /// Ready when a piece would be taken without waiting.
    ///
    /// # Errors
    /// When the reader is gone.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ReaderGone>> {
        let mut shared = self.shared.lock();
        if shared.reader_gone {
            return Poll::Ready(Err(ReaderGone));
        }
        if shared.weight < shared.limit {
            return Poll::Ready(Ok(()));
        }
        shared.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Adds a piece whatever waits already: for writers that hold credit for it.
    ///
    /// # Errors
    /// When the reader is gone.
    pub fn push(&mut self, piece: Bytes) -> Result<(), ReaderGone> {
        let reader = {
            let mut shared = self.shared.lock();
            if shared.reader_gone {
                return Err(ReaderGone);
            }
            if piece.is_empty() {
                return Ok(());
            }
            shared.weight += piece.len() + PIECE_OVERHEAD;
            shared.pieces.push_back(piece);
            shared.reader.take()
        };
        if let Some(waker) = reader {
            waker.wake();
        }
        Ok(())
    }

    /// Ends the stream: what was written is the whole body.
    pub fn finish(self) {
        self.end(End::Complete);
    }

    /// Resolves when the reader is gone.
    pub async fn closed(&mut self) {
        poll_fn(|context| {
            let mut shared = self.shared.lock();
            if shared.reader_gone {
                return Poll::Ready(());
            }
            shared.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn end(&self, end: End) {
        let reader = {
            let mut shared = self.shared.lock();
            if shared.end == End::Open {
                shared.end = end;
            }
            shared.reader.take()
        };
        if let Some(waker) = reader {
            waker.wake();
        }
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.end(End::Broken);
    }
}

/// The reading half of a stream.
pub struct BodyReader {
    shared: Arc<Mutex<Shared>>,
    consumed: Option<Arc<dyn Consumed>>,
    on_end: Option<OnEnd>,
    len: Option<u64>,
    /// It is this reader that has taken what was taken.
    took: bool,
    done: bool,
}

/// What is to happen when a body has ended; see [`BodyReader::on_end`].
pub type OnEnd = Box<dyn FnOnce() + Send>;

impl BodyReader {
    /// Calls `then` once, when the end of the body was read or the reader is dropped before: how whoever passes a body
    /// on learns that it is through, without standing in its way. What was registered before is called first.
    pub fn on_end(&mut self, then: OnEnd) {
        self.on_end = Some(match self.on_end.take() {
            None => then,
            Some(before) => Box::new(move || {
                before();
                then();
            }),
        });
    }

    /// A second reader, which takes over if this one goes before it has taken anything. What is to happen at the end stays
    /// with this one.
    fn spare(&self) -> Self {
        self.shared.lock().readers += 1;
        Self {
            shared: Arc::clone(&self.shared),
            consumed: self.consumed.clone(),
            on_end: None,
            len: self.len,
            took: false,
            done: false,
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the writer went away before the end, or when another reader has taken a part of it.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyBroken>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let (piece, writer) = {
            let mut shared = self.shared.lock();
            if shared.taken && !self.took {
                self.done = true;
                return Poll::Ready(Some(Err(BodyBroken)));
            }
            match shared.pieces.pop_front() {
                Some(piece) => {
                    (shared.taken, self.took) = (true, true);
                    shared.weight -= piece.len() + PIECE_OVERHEAD;
                    (piece, shared.writer.take())
                }
                None if shared.end == End::Open => {
                    shared.reader = Some(context.waker().clone());
                    return Poll::Pending;
                }
                None => {
                    (shared.taken, self.took, self.done) = (true, true, true);
                    let broken = shared.end == End::Broken;
                    drop(shared);
                    self.ended();
                    return Poll::Ready(broken.then_some(Err(BodyBroken)));
                }
            }
        };
        if let Some(waker) = writer {
            waker.wake();
        }
        if let Some(consumed) = &self.consumed {
            consumed.consumed(piece.len());
        }
        Poll::Ready(Some(Ok(piece)))
    }

    fn ended(&mut self) {
        if let Some(then) = self.on_end.take() {
            then();
        }
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let (writer, abandoned) = {
            let mut shared = self.shared.lock();
            shared.readers -= 1;
            // A spare may still take over, as long as it would get all of it.
            if shared.reader_gone || (shared.readers > 0 && !self.took) {
                (None, false)
            } else {
                shared.reader_gone = true;
                shared.pieces.clear();
                shared.weight = 0;
                (shared.writer.take(), shared.end == End::Open && !self.done)
            }
        };
        if let Some(waker) = writer {
            waker.wake();
        }
        if let (Some(consumed), true) = (&self.consumed, abandoned) {
            consumed.abandoned();
        }
        self.ended();
    }
}

impl std::fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyReader").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn noop() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_and_the_end_is_told_apart_from_a_break() {
        let (mut writer, reader) = channel(None);
        let mut body = Body::Stream(reader);
        writer.write(Bytes::from_static(b"a")).await.unwrap();
        writer.write(Bytes::from_static(b"b")).await.unwrap();
        writer.finish();
        assert_eq!(body.next().await, Some(Ok(Bytes::from_static(b"a"))));
        assert_eq!(body.next().await, Some(Ok(Bytes::from_static(b"b"))));
        assert_eq!(body.next().await, None);

        let (mut writer, reader) = channel(None);
        let mut body = Body::Stream(reader);
        writer.write(Bytes::from_static(b"a")).await.unwrap();
        drop(writer);
        assert_eq!(body.next().await, Some(Ok(Bytes::from_static(b"a"))));
        assert_eq!(body.next().await, Some(Err(BodyBroken)));
        assert_eq!(body.next().await, None);
    }

    #[test]
    fn a_writer_waits_for_a_slow_reader_and_sees_it_leave() {
        let (mut writer, mut reader) = channel(None);
        writer.push(Bytes::from(vec![0; STREAM_BUFFER])).unwrap();
        assert!(writer.poll_ready(&mut noop()).is_pending());
        assert!(reader.poll_next(&mut noop()).is_ready());
        assert!(writer.poll_ready(&mut noop()).is_ready());
        drop(reader);
        assert_eq!(writer.poll_ready(&mut noop()), Poll::Ready(Err(ReaderGone)));
        assert_eq!(writer.push(Bytes::from_static(b"x")), Err(ReaderGone));
    }

    #[test]
    fn the_end_is_told_once_whether_it_was_read_or_not() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = |name: &'static str| -> OnEnd {
            let told = Arc::clone(&told);
            Box::new(move || told.lock().push(name))
        };
        let (writer, mut reader) = channel(None);
        reader.on_end(tell("first"));
        reader.on_end(tell("second"));
        assert!(reader.poll_next(&mut noop()).is_pending());
        assert!(told.lock().is_empty());
        writer.finish();
        assert!(reader.poll_next(&mut noop()).is_ready());
        assert_eq!(*told.lock(), ["first", "second"]);
        drop(reader);
        assert_eq!(told.lock().len(), 2);

        let (_writer, mut reader) = channel(None);
        reader.on_end(tell("dropped"));
        drop(reader);
        assert_eq!(told.lock().last(), Some(&"dropped"));
    }

    #[test]
    fn a_spare_takes_over_only_from_a_reader_that_has_taken_nothing() {
        let (mut writer, reader) = channel(None);
        let mut body = Body::Stream(reader);
        let mut spare = body.spare();
        writer.push(Bytes::from_static(b"a")).unwrap();
        assert!(spare.is_whole());
        drop(body);
        assert!(writer.push(Bytes::from_static(b"b")).is_ok(), "the spare may still read");
        assert_eq!(spare.poll_next(&mut noop()), Poll::Ready(Some(Ok(Bytes::from_static(b"a")))));
        drop(spare);
        assert_eq!(writer.push(Bytes::from_static(b"c")), Err(ReaderGone));

        let (mut writer, reader) = channel(None);
        body = Body::Stream(reader);
        let mut spare = body.spare();
        writer.push(Bytes::from_static(b"a")).unwrap();
        assert!(body.poll_next(&mut noop()).is_ready());
        assert!(!spare.is_whole());
        assert_eq!(spare.poll_next(&mut noop()), Poll::Ready(Some(Err(BodyBroken))));
        drop(spare);
        assert!(writer.push(Bytes::from_static(b"b")).is_ok(), "a spare that goes is not missed");
        let _spare = body.spare();
        drop(body);
        assert_eq!(writer.push(Bytes::from_static(b"c")), Err(ReaderGone), "nobody could read all of it any more");
    }

    #[test]
    fn a_flood_of_tiny_pieces_is_bounded_too() {
        let (mut writer, _reader) = channel(None);
        let mut taken = 0;
        while writer.poll_ready(&mut noop()).is_ready() {
            writer.push(Bytes::from_static(b"x")).unwrap();
            taken += 1;
        }
        assert!(taken <= STREAM_BUFFER / PIECE_OVERHEAD + 1, "{taken}");
    }
}
