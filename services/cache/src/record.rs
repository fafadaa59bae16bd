//! A stored response as bytes, for tiers that are elsewhere: everything but its body and its age, which is told apart
//! because clocks differ.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use troupe_wire::head::ResponseHead;

use crate::entry::Entry;
use crate::freshness::{Source, Times};
use crate::storing::Terms;
use crate::time::Moment;
use crate::vary::Selection;

/// First byte of a record; another means another encoding, which is read as nothing stored.
const VERSION: u8 = 1;
/// How long a response is of use past its freshness when all it is good for is to be validated, in milliseconds.
const TO_VALIDATE: u64 = 60_000;

/// The terms as they are written. Times are relative to the moment at which the record is read.
#[derive(Serialize, Deserialize)]
struct Meta<'a> {
    lifetime: u64,
    source: u8,
    no_cache: bool,
    must_revalidate: bool,
    stale_while_revalidate: u64,
    stale_if_error: u64,
    fetch: u64,
    own_control: Option<&'a [u8]>,
    #[serde(borrow)]
    groups: Vec<&'a str>,
    #[serde(borrow)]
    selection: Vec<Selected<'a>>,
}

/// Name, value as it came and value in normal form of a field that the response was selected by.
type Selected<'a> = (&'a str, Option<&'a [u8]>, Option<&'a [u8]>);

/// Sources by the number that they are written as.
const SOURCES: [Source; 6] =
    [Source::Route, Source::SharedMaxAge, Source::MaxAge, Source::Expires, Source::Heuristic, Source::Nobody];

/// Writes a response: version, length of the terms (`u32`), terms, head.
pub fn encode(entry: &Entry) -> Bytes {
    let terms = entry.terms();
    let source = SOURCES.iter().position(|source| *source == terms.source).unwrap_or(SOURCES.len() - 1);
    let meta = Meta {
        lifetime: terms.lifetime,
        source: source as u8,
        no_cache: terms.no_cache,
        must_revalidate: terms.must_revalidate,
        stale_while_revalidate: terms.stale_while_revalidate,
        stale_if_error: terms.stale_if_error,
        fetch: terms.times.received.since(terms.times.requested),
        own_control: entry.own_control().map(|control| &**control),
        groups: terms.groups.iter().map(|group| &**group).collect(),
        selection: terms.selection.parts().collect(),
    };
    // Only a type that serde cannot express fails here, and a test writes one of each.
    let meta = postcard::to_allocvec(&meta).unwrap_or_default();
    let mut record = Vec::with_capacity(5 + meta.len() + entry.head().as_bytes().len());
    record.push(VERSION);
    record.extend_from_slice(&(meta.len() as u32).to_le_bytes());
    record.extend_from_slice(&meta);
    record.extend_from_slice(entry.head().as_bytes());
    record.into()
}

/// Reads what [`encode`] wrote, `age` milliseconds old at `now`; `None` when it is something else.
pub fn decode(record: &Bytes, body: Bytes, age: u64, now: Moment) -> Option<Entry> {
    let (meta, head) = split(record)?;
    let fetched = Moment::from_millis(now.millis().saturating_sub(meta.fetch));
    let terms = Terms {
        times: Times { requested: fetched, received: now },
        initial_age: age,
        lifetime: meta.lifetime,
        source: *SOURCES.get(usize::from(meta.source))?,
        no_cache: meta.no_cache,
        must_revalidate: meta.must_revalidate,
        stale_while_revalidate: meta.stale_while_revalidate,
        stale_if_error: meta.stale_if_error,
        withheld: Vec::new(),
        selection: Selection::of_parts(meta.selection.into_iter()),
        groups: meta.groups.into_iter().map(Box::from).collect(),
    };
    // Memory of their own: the record is a part of what came with it.
    let head = ResponseHead::decode(Bytes::copy_from_slice(head)).ok()?;
    Some(Entry::restored(terms, head, meta.own_control.map(Bytes::copy_from_slice), body))
}

fn split(record: &Bytes) -> Option<(Meta<'_>, &[u8])> {
    if *record.first()? != VERSION {
        return None;
    }
    let len = u32::from_le_bytes(record.get(1..5)?.try_into().ok()?);
    let end = usize::try_from(len).ok()?.checked_add(5)?;
    let meta = postcard::from_bytes(record.get(5..end)?).ok()?;
    Some((meta, record.get(end..)?))
}

impl Entry {
    /// For how many milliseconds from now on it is of use to anybody: fresh, stale where that is allowed, or to be
    /// validated.
    pub fn keep_for(&self, now: Moment) -> u64 {
        let terms = self.terms();
        let validatable = self.status() == 200 && (self.tag().is_some() || self.last_modified().is_some());
        let stale = terms.stale_while_revalidate.max(terms.stale_if_error);
        let stale = if validatable { stale.max(TO_VALIDATE) } else { stale };
        let fresh = if terms.no_cache { 0 } else { self.fresh_for(now) };
        u64::try_from(fresh.saturating_add(i64::try_from(stale).unwrap_or(i64::MAX))).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::heads::{get, response};
    use crate::policy::Policy;
    use crate::storing::judge;

    const NOW: Moment = Moment::from_secs(784_111_777);

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let head = response(200, fields);
        let times = Times { requested: Moment::from_millis(NOW.millis() - 70), received: NOW };
        let request = get("/", &[("Accept-Language", "de, EN")]);
        Entry::new(judge(&request, &head, times, &Policy::new()).unwrap(), &head, Bytes::from_static(b"body"))
    }

    #[test]
    fn a_record_is_the_response_again_but_for_its_age() {
        let stored = entry(&[
            ("Troupe-Cache-Control", "max-age=60, stale-while-revalidate=5, stale-if-error=9"),
            ("ETag", "\"a\""),
            ("Vary", "Accept-Language, X-None"),
            ("Surrogate-Key", "one two"),
        ]);
        let later = NOW.after(std::time::Duration::from_secs(1000));
        let read = decode(&encode(&stored), stored.body().clone(), 10_000, later).unwrap();
        assert_eq!((read.head().as_bytes(), read.body()), (stored.head().as_bytes(), stored.body()));
        let (terms, before) = (read.terms(), stored.terms());
        assert_eq!((&terms.selection, &terms.groups), (&before.selection, &before.groups));
        assert_eq!((terms.lifetime, terms.source), (before.lifetime, before.source));
        assert_eq!((terms.stale_while_revalidate, terms.stale_if_error), (5000, 9000));
        assert_eq!(terms.times.received.since(terms.times.requested), 70);
        assert_eq!((read.age(later), read.fresh_for(later)), (10_000, 50_000));
        assert_eq!(read.own_control(), stored.own_control());
        assert!(read.own_control().is_some());
        assert_eq!(encode(&read), encode(&stored));
    }

    #[test]
    fn it_is_kept_as_long_as_it_is_of_use() {
        // It came after 70 ms, which count as age.
        assert_eq!(entry(&[("Cache-Control", "max-age=10, stale-if-error=5")]).keep_for(NOW), 15_000 - 70);
        assert_eq!(entry(&[("Cache-Control", "max-age=10"), ("ETag", "\"a\"")]).keep_for(NOW), 70_000 - 70);
        assert_eq!(entry(&[("Cache-Control", "max-age=10, no-cache"), ("ETag", "\"a\"")]).keep_for(NOW), 60_000);
        let old = NOW.after(std::time::Duration::from_secs(60));
        assert_eq!(entry(&[("Cache-Control", "max-age=10, stale-if-error=5")]).keep_for(old), 0);
    }

    proptest! {
        #[test]
        fn damaged_records_are_nothing_or_something_but_never_panic(at in 0usize..300, to in any::<u8>(), keep in 0usize..300) {
            let mut record = encode(&entry(&[("Cache-Control", "max-age=10"), ("Vary", "Accept-Language")])).to_vec();
            record.truncate(keep);
            if let Some(byte) = record.get_mut(at) { *byte = to; }
            let _ = decode(&record.into(), Bytes::new(), 0, NOW);
        }
    }
}
