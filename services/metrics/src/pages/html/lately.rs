//! Figures of the moment.

use crate::cluster::{COLUMNS, Frame};

/// Seconds over which they are taken: fewer flicker.
pub(crate) const LATELY: usize = 5;

/// Means over the last [`LATELY`] seconds.
pub(super) struct Lately<'a>(&'a [Frame]);

impl<'a> Lately<'a> {
    /// Of these seconds, the newest last.
    pub(super) fn new(frames: &'a [Frame]) -> Self {
        Self(frames.get(frames.len().saturating_sub(LATELY)..).unwrap_or_default())
    }

    /// The mean of a column; NaN of nothing.
    pub(super) fn of(&self, id: &str) -> f32 {
        let Some(place) = COLUMNS.iter().position(|column| column.id == id) else { return f32::NAN };
        let values = self.0.iter().filter_map(|frame| frame.values.get(place)).copied();
        let (sum, count) =
            values.filter(|value| value.is_finite()).fold((0f32, 0u8), |(sum, count), v| (sum + v, count + 1));
        if count == 0 { f32::NAN } else { sum / f32::from(count) }
    }
}
