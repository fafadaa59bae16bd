//! An answer as it stands in Redis: `E`, the token of whoever stored it (16 digits), the length of what follows (`u32`), what
//! is known of it, its record, and the first part of its body.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use troupe_contracts::cache::{Born, LeaseName};

/// Bytes of a body in one value: a command's answer stays short, and so does the time for which Redis does nothing else.
pub(super) const CHUNK: usize = 64 * 1024;

/// What is known of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) born: Born,
    /// Drawn: names the further parts of its body.
    pub(super) id: u64,
    /// Its age when it was stored, in milliseconds; how long that is ago is what is missing of its time to live.
    pub(super) age_ms: u64,
    /// For how long it was fresh then.
    pub(super) fresh_ms: u64,
    /// For how long it is kept.
    pub(super) keep_ms: u64,
    pub(super) digest: u64,
    /// The body's length.
    pub(super) len: u64,
    pub(super) record_len: u32,
    /// Names of the purges that are about it: its host, its URL, its groups.
    pub(super) names: Vec<LeaseName>,
}

/// What stands under the key of a URL.
#[derive(Debug)]
pub(super) enum Value {
    Entry {
        meta: Meta,
        record: Bytes,
        body: Bytes,
    },
    /// Variants, by these fields.
    Varies(Vec<String>),
}

/// Writes an answer; `body` is its first part.
pub(super) fn entry(meta: &Meta, token: u64, record: &[u8], body: &[u8]) -> Vec<u8> {
    // Only a type that serde cannot express fails here.
    let known = postcard::to_allocvec(meta).unwrap_or_default();
    let mut value = Vec::with_capacity(21 + known.len() + record.len() + body.len());
    value.push(b'E');
    value.extend_from_slice(digits(token).as_bytes());
    value.extend_from_slice(&(known.len() as u32).to_le_bytes());
    value.extend_from_slice(&known);
    value.extend_from_slice(record);
    value.extend_from_slice(body);
    value
}

/// A token in digits, which compare as it does.
pub(super) fn digits(token: u64) -> String {
    format!("{token:016}")
}

/// Writes that variants differ by these fields.
pub(super) fn varies<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let names: Vec<&str> = names.collect();
    format!("V{}", names.join(",")).into_bytes()
}

/// Reads a value; `None` when it is nothing of ours.
pub(super) fn read(value: Vec<u8>) -> Option<Value> {
    let value = Bytes::from(value);
    match value.first()? {
        b'V' => {
            let names = std::str::from_utf8(value.get(1..)?).ok()?;
            Some(Value::Varies(names.split(',').map(str::to_owned).collect()))
        }
        b'E' => {
            let meta = meta(&value)?;
            let start = 21 + usize::try_from(u32::from_le_bytes(value.get(17..21)?.try_into().ok()?)).ok()?;
            let end = start.checked_add(usize::try_from(meta.record_len).ok()?)?;
            // The first part is all of a short body, and as long as any part of a long one.
            let first = usize::try_from(meta.len).map_or(CHUNK, |len| len.min(CHUNK));
            if end.checked_add(first)? != value.len() {
                return None;
            }
            Some(Value::Entry { record: value.slice(start..end), body: value.slice(end..), meta })
        }
        _ => None,
    }
}

/// What is known of an answer, from the beginning of its value.
pub(super) fn meta(value: &[u8]) -> Option<Meta> {
    if *value.first()? != b'E' {
        return None;
    }
    let len = usize::try_from(u32::from_le_bytes(value.get(17..21)?.try_into().ok()?)).ok()?;
    postcard::from_bytes(value.get(21..21usize.checked_add(len)?)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known() -> Meta {
        Meta {
            born: Born { generation: 1, seq: 2 },
            id: 3,
            age_ms: 4,
            fresh_ms: 5,
            keep_ms: 6,
            digest: 7,
            len: 4,
            record_len: 6,
            names: vec![[8; 16], [9; 16]],
        }
    }

    #[test]
    fn an_answer_survives_being_written() {
        let value = entry(&known(), 77, b"record", b"body");
        assert_eq!(meta(&value), Some(known()));
        let Some(Value::Entry { meta, record, body }) = read(value) else { panic!("not an answer") };
        assert_eq!((meta, &*record, &*body), (known(), &b"record"[..], &b"body"[..]));
        let Some(Value::Varies(names)) = read(varies(["accept", "x"].into_iter())) else { panic!("no variants") };
        assert_eq!(names, ["accept", "x"]);
    }

    #[test]
    fn tokens_compare_as_their_digits_do() {
        for (low, high) in [(1, 2), (9, 10), (1_732_000_000_000_000, 1_732_000_000_000_001)] {
            assert!(digits(low) < digits(high), "{low} {high}");
        }
    }

    proptest! {
        #[test]
        fn damaged_values_are_nothing_or_something_but_never_panic(at in 0usize..200, to in any::<u8>(), keep in 0usize..200) {
            let mut value = entry(&known(), 77, b"record", b"body");
            value.truncate(keep);
            if let Some(byte) = value.get_mut(at) { *byte = to; }
            let _ = meta(&value);
            let _ = read(value);
        }
    }
}
