//! What other tasks, perhaps of other threads, tell a link: a body has more to send, a reader took some.
//!
//! Bodies may leave the thread of their link, so this is the one part of a link that is locked. Calls whose bodies fit
//! one frame never come here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use troupe_wire::stream_id::StreamId;

use crate::body::Consumed;

/// The inbox. Each stream and each intake is in it at most once, so it is bounded by them.
#[derive(Default)]
pub(super) struct Signals {
    queue: Mutex<Vec<Signal>>,
    link: AtomicWaker,
}

pub(super) enum Signal {
    /// The body that this stream sends may have a piece.
    Outbound(StreamId),
    /// A reader took bytes, or is gone.
    Intake(Arc<Intake>),
}

impl Signals {
    pub(super) fn register(&self, link: &Waker) {
        self.link.register(link);
    }

    /// Swaps the waiting signals with `empty`.
    pub(super) fn take(&self, empty: &mut Vec<Signal>) {
        std::mem::swap(&mut *self.queue.lock(), empty);
    }

    fn push(&self, signal: Signal) {
        self.queue.lock().push(signal);
        self.link.wake();
    }
}

/// Wakes the link for one stream, so that it polls that stream's body and no other.
pub(super) struct OutboundWake {
    pub(super) signals: Arc<Signals>,
    pub(super) stream: StreamId,
    pub(super) queued: AtomicBool,
}

impl Wake for OutboundWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.signals.push(Signal::Outbound(self.stream));
        }
    }
}

/// What a reader has taken so far of one stream's bytes.
pub(super) struct Intake {
    signals: Arc<Signals>,
    /// The link's place for it.
    pub(super) key: usize,
    taken: AtomicU64,
    gone: AtomicBool,
    queued: AtomicBool,
}

impl Intake {
    pub(super) fn new(signals: Arc<Signals>, key: usize) -> Arc<Self> {
        Arc::new(Self {
            signals,
            key,
            taken: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            queued: AtomicBool::new(false),
        })
    }

    /// Total of bytes taken, and whether the reader is gone. Later changes signal again.
    pub(super) fn read(&self) -> (u64, bool) {
        self.queued.store(false, Ordering::SeqCst);
        // `gone` first: what was taken before the reader went is then in the total.
        let gone = self.gone.load(Ordering::SeqCst);
        (self.taken.load(Ordering::SeqCst), gone)
    }
}

/// The reader's end of an [`Intake`]; its drop says that the reader is gone.
pub(super) struct IntakeReader(pub(super) Arc<Intake>);

impl IntakeReader {
    fn signal(&self) {
        if !self.0.queued.swap(true, Ordering::SeqCst) {
            self.0.signals.push(Signal::Intake(Arc::clone(&self.0)));
        }
    }
}

impl Consumed for IntakeReader {
    fn consumed(&self, bytes: usize) {
        self.0.taken.fetch_add(bytes as u64, Ordering::SeqCst);
        self.signal();
    }

    /// The drop says it for every reader, also for one that leaves bytes behind after the end.
    fn abandoned(&self) {}
}

impl Drop for IntakeReader {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::SeqCst);
        self.signal();
    }
}
