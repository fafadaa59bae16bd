//! Which thread numbers are taken. actix replaces a thread that died; the new one takes the old one's number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The numbers of all threads.
#[derive(Debug)]
pub(crate) struct Seats(Vec<AtomicBool>);

/// A number that is taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    index: usize,
}

impl Seats {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self((0..count).map(|_| AtomicBool::new(false)).collect()))
    }

    /// Takes the lowest free number; the last one twice rather than none.
    pub(crate) fn take(self: &Arc<Self>) -> Seat {
        let free = self.0.iter().position(|seat| !seat.swap(true, Ordering::AcqRel));
        Seat { seats: Arc::clone(self), index: free.unwrap_or(self.0.len().saturating_sub(1)) }
    }

    /// Whether no thread is left.
    pub(crate) fn are_free(&self) -> bool {
        self.0.iter().all(|seat| !seat.load(Ordering::Acquire))
    }
}

impl Seat {
    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(seat) = self.seats.0.get(self.index) {
            seat.store(false, Ordering::Release);
        }
    }
}
