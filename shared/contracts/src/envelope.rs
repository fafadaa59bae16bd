//! A head made of a short postcard part and, behind it, raw bytes.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// Writes `postcard length u16 | postcard | raw`.
pub(crate) fn put<T: Serialize>(value: &T, raw: &[u8], out: &mut BytesMut) {
    let at = out.len();
    out.put_u16_le(0);
    if let Err(error) = postcard::to_io(value, (&mut *out).writer()) {
        // Only a type that serde cannot express fails here, and a test encodes each of ours.
        debug_assert!(false, "{error}");
    }
    let len = (out.len() - at - 2) as u16;
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&len.to_le_bytes());
    }
    out.put_slice(raw);
}

/// Splits what [`put`] wrote, without copying.
pub(crate) fn split(head: &Bytes) -> Option<(&[u8], Bytes)> {
    let len = usize::from(u16::from_le_bytes(head.get(..2)?.try_into().ok()?));
    let meta = head.get(2..2 + len)?;
    Some((meta, head.slice(2 + len..)))
}

/// Reads a postcard part and refuses bytes behind its end.
pub(crate) fn read<'a, T: Deserialize<'a>>(meta: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(meta) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}
