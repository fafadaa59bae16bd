//! How a link takes back what it has given to a reader that does not take it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{BodyWriter, End, Shared};

/// The way to a stream's pieces for who has to account for them, also when its writer has finished.
pub(crate) struct Recall {
    shared: Arc<Mutex<Shared>>,
}

impl Recall {
    pub(crate) fn of(writer: &BodyWriter) -> Self {
        Self { shared: Arc::clone(&writer.shared) }
    }

    /// Drops the pieces that wait. The reader meets a break, also of a body that was complete.
    pub(crate) fn recall(&self) {
        let reader = {
            let mut shared = self.shared.lock();
            shared.pieces.clear();
            shared.weight = 0;
            shared.end = End::Broken;
            shared.reader.take()
        };
        if let Some(waker) = reader {
            waker.wake();
        }
    }
}
