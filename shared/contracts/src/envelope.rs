//! A head made of a short postcard part and, behind it, raw bytes.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// A postcard part up to here is put together on the stack: to append each of its bytes to what may have to grow costs twice as much.
const SHORT: usize = 256;

/// Writes `postcard length u16 | postcard | raw`.
pub(crate) fn put<T: Serialize>(value: &T, raw: &[u8], out: &mut BytesMut) {
    let mut short = [0; SHORT];
    match postcard::to_slice(value, &mut short) {
        Ok(meta) => {
            out.reserve(2 + meta.len() + raw.len());
            out.put_u16_le(meta.len() as u16);
            out.put_slice(meta);
        }
        Err(_) => put_long(value, out),
    }
    out.put_slice(raw);
}

fn put_long<T: Serialize>(value: &T, out: &mut BytesMut) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_parts_are_written_alike() {
        for length in [0, 1, SHORT - 3, SHORT - 2, SHORT - 1, SHORT, 5_000] {
            let meta = "x".repeat(length);
            let (mut out, mut long) = (BytesMut::new(), BytesMut::new());
            put(&meta, b"raw", &mut out);
            put_long(&meta, &mut long);
            assert_eq!((&out[..long.len()], &out[long.len()..]), (&long[..], &b"raw"[..]));
            let head = out.freeze();
            let (read_meta, raw) = split(&head).unwrap();
            assert_eq!((read::<&str>(read_meta), &raw[..]), (Some(&*meta), &b"raw"[..]));
        }
    }
}
