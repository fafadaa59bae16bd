//! Pieces of a body that is gathered whole.

use bytes::{Bytes, BytesMut};

/// Pieces put together. Nearly always there is one, which stays as it came; the bound is the caller's.
#[derive(Debug, Default)]
pub struct Pieces {
    first: Bytes,
    rest: BytesMut,
}

impl Pieces {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the next piece.
    pub fn add(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.extend_from_slice(&piece);
        }
    }

    /// Takes all of them out as one.
    pub fn take(&mut self) -> Bytes {
        let first = std::mem::take(&mut self.first);
        if self.rest.is_empty() {
            return first;
        }
        let mut whole = BytesMut::with_capacity(first.len() + self.rest.len());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&self.rest);
        self.rest.clear();
        whole.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_piece_stays_as_it_came_and_several_become_one() {
        let mut pieces = Pieces::default();
        assert!(pieces.is_empty());
        let piece = Bytes::from(vec![1; 100]);
        pieces.add(piece.clone());
        assert_eq!(pieces.len(), 100);
        assert_eq!(pieces.take().as_ptr(), piece.as_ptr());
        for piece in ["", "a", "bc", "", "d"] {
            pieces.add(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!((pieces.len(), &*pieces.take()), (4, b"abcd".as_slice()));
        assert!(pieces.is_empty());
        assert_eq!(pieces.take(), Bytes::new());
    }
}
