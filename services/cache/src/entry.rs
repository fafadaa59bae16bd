//! A stored response: its head as it is sent, its body, and the terms on which it is used.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use troupe_wire::head::{RequestHead, ResponseHead, ResponseHeadBuilder};

use crate::fields::{Head, is_nominated, is_unstored};
use crate::freshness::Times;
use crate::partial::{self, Span};
use crate::policy::Policy;
use crate::range::Part;
use crate::storing::{Refusal, Terms, judge};
use crate::targeted;
use crate::time::{Moment, http_date};
use crate::validators::EntityTag;

/// What a group takes besides its name, twice: in the entry, and in the index, where one that few are in has a table of its own.
const GROUP: usize = 256;

/// What an entry takes in memory beside its head, body, selection and groups.
const OVERHEAD: usize = size_of::<Entry>() + 2 * size_of::<usize>();
/// Bytes that a written head may have beyond the head: the status line and the length.
pub const WRITTEN: usize = 96;

/// A stored response. It is immutable but for one mark and what is made of its head once, so that all threads share it
/// without a lock.
#[derive(Debug)]
pub struct Entry {
    head: ResponseHead,
    body: Bytes,
    terms: Terms,
    /// The field that speaks to this cache alone, which is not sent on but holds when a 304 does not repeat it.
    own_control: Option<Bytes>,
    /// Since when it counts as stale whatever its age, in milliseconds since 1970; 0: it does not.
    stale_since: AtomicU64,
    /// The head as it is sent.
    written: OnceLock<Bytes>,
}

impl Entry {
    /// Stores `head` and `body` on `terms`. The body is kept as it is: it should own its memory alone.
    pub fn new(terms: Terms, head: &ResponseHead, body: Bytes) -> Self {
        let own_control = joined(head, targeted::OWN);
        let head = stored(head, &terms, |builder| builder.finish(head.status()));
        Self::restored(terms, head, own_control, body)
    }

    /// The same with a copy of `body`, in one piece of memory with the head.
    pub fn copied(terms: Terms, head: &ResponseHead, body: &[u8]) -> Self {
        let own_control = joined(head, targeted::OWN);
        let (head, body) = stored(head, &terms, |builder| builder.finish_with(head.status(), body));
        Self::restored(terms, head, own_control, body)
    }

    /// Puts together what was stored elsewhere: a head that was stored already, and the rest of [`Entry::new`].
    pub(crate) fn restored(terms: Terms, head: ResponseHead, own_control: Option<Bytes>, body: Bytes) -> Self {
        Self { head, body, terms, own_control, stale_since: AtomicU64::new(0), written: OnceLock::new() }
    }

    /// The field that speaks to this cache alone.
    pub(crate) fn own_control(&self) -> Option<&Bytes> {
        self.own_control.as_ref()
    }

    /// The head without the fields that are not stored (§3.1), with a `Date`.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// The body, whole.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The head as `write` writes it, which is done once. It may take [`WRITTEN`] bytes more than the head does.
    pub fn written(&self, write: impl FnOnce(&Self) -> Bytes) -> &Bytes {
        self.written.get_or_init(|| write(self))
    }

    /// Which part of a response it is, where it is not the whole.
    pub fn span(&self) -> Option<Span> {
        let span = if self.status() == 206 { Span::of(&self.head) } else { None };
        span.filter(|span| span.len() == self.body.len())
    }

    /// Bytes of the whole response.
    pub fn total(&self) -> usize {
        self.span().map_or(self.body.len(), |span| span.total)
    }

    /// The bytes of a part that it holds.
    pub fn part(&self, part: Part) -> Bytes {
        match self.span() {
            Some(span) => partial::bytes(&self.body, span, part),
            None => part.of(&self.body),
        }
    }

    /// The terms on which it is used.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// Its age in milliseconds (§4.2.3, `current_age`).
    pub fn age(&self, now: Moment) -> u64 {
        self.terms.initial_age.saturating_add(now.since(self.terms.times.received))
    }

    /// Milliseconds for which it is still fresh; negative once it is stale.
    pub fn fresh_for(&self, now: Moment) -> i64 {
        let left = i64::try_from(self.terms.lifetime).unwrap_or(i64::MAX);
        let left = left.saturating_sub(i64::try_from(self.age(now)).unwrap_or(i64::MAX));
        match self.stale_since.load(Ordering::Relaxed) {
            0 => left,
            since => left.min(-i64::try_from(now.millis().saturating_sub(since)).unwrap_or(i64::MAX)).min(0),
        }
    }

    /// Makes it stale from now on: what a soft purge does. It can still be validated, and used where stale may be.
    pub fn make_stale(&self, now: Moment) {
        let _ = self.stale_since.compare_exchange(0, now.millis().max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether it was made stale.
    pub fn is_made_stale(&self) -> bool {
        self.stale_since.load(Ordering::Relaxed) != 0
    }

    /// The same for the same content: status, body, and the validators that stand for it. Not for use against an enemy,
    /// who could only have copies kept that he made himself.
    pub fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (self.status(), &self.body).hash(&mut hasher);
        for name in ["content-type", "content-encoding", "etag"] {
            self.head.field(name).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Its entity tag.
    pub fn tag(&self) -> Option<EntityTag<'_>> {
        EntityTag::of(&self.head)
    }

    /// The `Last-Modified` field and the second it names.
    pub fn last_modified(&self) -> Option<(&[u8], u64)> {
        let value = self.head.field("last-modified")?;
        http_date(value).map(|seconds| (value, seconds))
    }

    /// Whether a 304 answers for this entry (§4.3.4): its validators, where it has any, are this entry's.
    pub fn is_meant_by(&self, unmodified: &ResponseHead) -> bool {
        match (EntityTag::of(unmodified), self.tag()) {
            (Some(theirs), Some(ours)) if theirs.weak => theirs.weak_eq(&ours),
            (Some(theirs), Some(ours)) => theirs.strong_eq(&ours),
            (Some(_), None) => false,
            (None, _) => match (unmodified.field("last-modified").and_then(http_date), self.last_modified()) {
                (Some(theirs), Some((_, ours))) => theirs == ours,
                (Some(_), None) => false,
                (None, _) => true,
            },
        }
    }

    /// The head as a 304 updates it (§3.2): its fields replace ours, save those that are not stored and `Content-Length`.
    /// Our `Date` goes even where it has none: it was made when it came (RFC 9110 §6.6.1), and by our date what it has just
    /// confirmed would be as old as before.
    pub fn updated_head(&self, unmodified: &ResponseHead) -> ResponseHead {
        let mut builder = ResponseHeadBuilder::default();
        let replaces = |name: &str| !is_unstored(name.as_bytes()) && !is_nominated(unmodified, name.as_bytes());
        let goes = |name: &str| name.eq_ignore_ascii_case("date") || replaces(name) && unmodified.has(name);
        for (name, value) in self.head.fields().filter(|(name, _)| !goes(name)) {
            let _ = builder.field(name.as_bytes(), value);
        }
        for (name, value) in unmodified.fields().filter(|(name, _)| replaces(name)) {
            let _ = builder.field(name.as_bytes(), value);
        }
        // These say how old it is and how to keep it; what is stored is stripped of them again.
        for name in ["age", targeted::OWN] {
            for value in unmodified.values(name) {
                let _ = builder.field(name.as_bytes(), value);
            }
        }
        if let (Some(own), false) = (&self.own_control, unmodified.has(targeted::OWN)) {
            let _ = builder.field(targeted::OWN.as_bytes(), own);
        }
        builder.finish(self.head.status())
    }

    /// The entry as a 304 to `request` refreshes it (§4.3.4).
    ///
    /// # Errors
    /// When the response as updated may not be stored any more.
    pub fn refreshed(
        &self,
        request: &RequestHead,
        unmodified: &ResponseHead,
        times: Times,
        policy: &Policy,
    ) -> Result<Self, Refusal> {
        let head = self.updated_head(unmodified);
        Ok(Self::new(judge(request, &head, times, policy)?, &head, self.body.clone()))
    }

    /// The same with the fields of `head` that are not kept for others: they are for whoever asked, who gets them with this
    /// answer or never (§5.2.2.4, §5.2.2.7). `None` where there are none.
    pub fn with_withheld(&self, head: &ResponseHead) -> Option<Self> {
        if !self.terms.withheld.iter().any(|name| head.has(name)) {
            return None;
        }
        // Nobody may give it to anybody else, who is behind us neither.
        let terms = Terms { withheld: Vec::new(), no_cache: true, ..self.terms.clone() };
        Some(Self::new(terms, head, self.body.clone()))
    }

    /// Bytes that it takes in memory.
    pub fn weight(&self) -> usize {
        let groups: usize = self.terms.groups.iter().map(|group| GROUP + 2 * group.len()).sum();
        // The head counts twice: once as it is kept, once as it will be written.
        OVERHEAD
            + 2 * self.head.as_bytes().len()
            + WRITTEN
            + self.body.len()
            + self.terms.selection.weight()
            + groups
            + self.own_control.as_ref().map_or(0, Bytes::len)
    }
}

/// What `finish` makes of the fields that are stored (§3.1), with a `Date` where there is none (RFC 9110 §6.6.1).
fn stored<T>(head: &ResponseHead, terms: &Terms, finish: impl FnOnce(&mut ResponseHeadBuilder) -> T) -> T {
    thread_local! {
        // It keeps its buffers.
        static BUILDER: RefCell<ResponseHeadBuilder> = RefCell::default();
    }
    let withheld = |name: &[u8]| terms.withheld.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
    let nominates = head.has("connection");
    BUILDER.with_borrow_mut(|builder| {
        builder.start();
        let mut dated = false;
        for (name, value) in head.raw_fields() {
            if is_unstored(name) || withheld(name) || nominates && is_nominated(head, name) {
                continue;
            }
            dated |= name.eq_ignore_ascii_case(b"date");
            // It came in one head, so it fits another.
            let _ = builder.field(name, value);
        }
        if !dated {
            let _ = terms.times.received.with_http_date(|date| builder.field(b"date", date.as_bytes()));
        }
        finish(builder)
    })
}

fn joined(head: &ResponseHead, name: &str) -> Option<Bytes> {
    let values: Vec<&[u8]> = head.values(name).collect();
    (!values.is_empty()).then(|| values.join(&b", "[..]).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::{get, response};

    const NOW: Moment = Moment::from_secs(784_111_777);

    fn times(now: Moment) -> Times {
        Times { requested: now, received: now }
    }

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let (request, head) = (get("/", &[]), response(200, fields));
        let terms = judge(&request, &head, times(NOW), &Policy::new()).unwrap();
        Entry::new(terms, &head, Bytes::from_static(b"body"))
    }

    fn names(head: &ResponseHead) -> Vec<String> {
        head.fields().map(|(name, _)| name.to_ascii_lowercase()).collect()
    }

    /// §3.1: hop-by-hop fields, those that `Connection` names, and those that the response withholds are not stored.
    #[test]
    fn what_is_not_stored() {
        let stored = entry(&[
            ("Cache-Control", "max-age=9, private=\"x-user\", no-cache=\"Set-Cookie\""),
            ("Connection", "x-hop, close"),
            ("X-Hop", "1"),
            ("Keep-Alive", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Proxy-Authenticate", "x"),
            ("Proxy-Authentication-Info", "x"),
            ("Trailer", "x"),
            ("Set-Cookie", "a=1"),
            ("X-User", "me"),
            ("Age", "3"),
            ("X-Request-Id", "1"),
            ("X-Kept", "1"),
        ]);
        assert_eq!(names(stored.head()), ["cache-control", "x-kept", "date"]);
    }

    /// RFC 9110 §6.6.1: a response without `Date` gets one when it is stored.
    #[test]
    fn a_date_is_added() {
        assert_eq!(
            entry(&[("Cache-Control", "max-age=9")]).head().field("date"),
            Some(&b"Sun, 06 Nov 1994 08:49:37 GMT"[..])
        );
        let dated = entry(&[("Cache-Control", "max-age=9"), ("Date", "Sun, 06 Nov 1994 08:49:30 GMT")]);
        assert_eq!(dated.head().values("date").count(), 1);
    }

    /// §4.2.3: resident time is added to the age on arrival.
    #[test]
    fn it_ages() {
        let stored = entry(&[("Cache-Control", "max-age=10"), ("Age", "4")]);
        assert_eq!((stored.age(NOW), stored.fresh_for(NOW)), (4000, 6000));
        let later = NOW.after(std::time::Duration::from_secs(7));
        assert_eq!((stored.age(later), stored.fresh_for(later)), (11_000, -1000));
        // A clock that was set back does not make it older than it came, nor overflow.
        assert_eq!(stored.age(Moment::from_millis(0)), 4000);
        assert!(stored.fresh_for(Moment::from_millis(u64::MAX)) < 0);
    }

    /// §3.2 and §4.3.4: a 304 replaces the fields it names, but not the length, and freshness is computed anew.
    #[test]
    fn a_304_updates_the_head() {
        let stored = entry(&[
            ("Cache-Control", "max-age=1"),
            ("ETag", "\"a\""),
            ("X-Old", "1"),
            ("X-Same", "1"),
            ("Content-Type", "text/plain"),
        ]);
        let later = NOW.after(std::time::Duration::from_secs(100));
        let unmodified = response(
            304,
            &[
                ("ETag", "\"a\""),
                ("cache-control", "max-age=50"),
                ("X-Same", "2"),
                ("X-Same", "3"),
                ("X-New", "1"),
                ("Content-Length", "0"),
                ("Connection", "X-Old"),
                ("X-Old", "9"),
                ("Date", "Sun, 06 Nov 1994 08:51:17 GMT"),
            ],
        );
        let fresh = stored.refreshed(&get("/", &[]), &unmodified, times(later), &Policy::new()).unwrap();
        assert_eq!((fresh.status(), fresh.fresh_for(later)), (200, 50_000));
        assert_eq!(fresh.head().values("x-same").collect::<Vec<_>>(), [b"2", b"3"]);
        assert_eq!((fresh.head().field("x-old"), fresh.head().field("x-new")), (Some(&b"1"[..]), Some(&b"1"[..])));
        assert_eq!(fresh.head().field("content-type"), Some(&b"text/plain"[..]));
        assert!(!fresh.head().has("content-length"));
        assert_eq!(fresh.body(), stored.body());
    }

    /// RFC 9110 §6.6.1: what has no `Date` was made when it came, also a 304; the date of what is stored, ours or its
    /// origin's, would make it stale again at once.
    #[test]
    fn a_304_without_a_date_makes_fresh_from_when_it_came() {
        let later = NOW.after(std::time::Duration::from_secs(100));
        let withheld = ("Cache-Control", "max-age=50, no-cache=\"x-user\"");
        for date in [None, Some(("Date", "Sun, 06 Nov 1994 08:49:37 GMT"))] {
            let fields: Vec<_> = [withheld, ("ETag", "\"a\"")].into_iter().chain(date).collect();
            let stored = entry(&fields);
            for unmodified in [&[("ETag", "\"a\""), ("X-User", "me")][..], &[("Connection", "date"), ("X-User", "me")]]
            {
                let unmodified = response(304, unmodified);
                let fresh = stored.refreshed(&get("/", &[]), &unmodified, times(later), &Policy::new()).unwrap();
                assert_eq!(fresh.fresh_for(later), 50_000);
                let own = fresh.with_withheld(&stored.updated_head(&unmodified)).unwrap();
                for head in [fresh.head(), own.head()] {
                    let dates: Vec<_> = head.values("date").collect();
                    assert_eq!(dates, [b"Sun, 06 Nov 1994 08:51:17 GMT"]);
                }
            }
        }
    }

    /// §4.3.4: what the 304 changes may take the response out of the store, or change what it varies on (§4.1).
    #[test]
    fn a_304_may_change_the_terms() {
        let stored = entry(&[("Cache-Control", "max-age=1"), ("ETag", "\"a\"")]);
        let refresh = |fields: &[(&str, &str)]| {
            stored.refreshed(&get("/", &[("x-a", "1")]), &response(304, fields), times(NOW), &Policy::new())
        };
        assert_eq!(refresh(&[("Cache-Control", "no-store")]).unwrap_err(), Refusal::NoStore);
        let varied = refresh(&[("Cache-Control", "max-age=9"), ("Vary", "x-a")]).unwrap();
        assert!(
            varied.terms().selection.fits(&get("/", &[("x-a", "1")])) && !varied.terms().selection.fits(&get("/", &[]))
        );
    }

    /// A 304 that does not repeat `Troupe-Cache-Control`, which was never sent on, leaves it in force.
    #[test]
    fn own_control_outlives_a_304() {
        let stored = entry(&[("Troupe-Cache-Control", "max-age=30"), ("ETag", "\"a\"")]);
        assert!(!stored.head().has("troupe-cache-control"));
        let fresh = stored.refreshed(&get("/", &[]), &response(304, &[]), times(NOW), &Policy::new()).unwrap();
        assert_eq!(fresh.fresh_for(NOW), 30_000);
        let changed = response(304, &[("Troupe-Cache-Control", "max-age=5")]);
        assert_eq!(fresh.refreshed(&get("/", &[]), &changed, times(NOW), &Policy::new()).unwrap().fresh_for(NOW), 5000);
    }

    /// §4.3.4: which stored response a 304 is about.
    #[test]
    fn a_304_names_what_it_means() {
        let tagged = entry(&[("Cache-Control", "max-age=1"), ("ETag", "\"a\"")]);
        let dated = entry(&[("Cache-Control", "max-age=1"), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let means = |entry: &Entry, fields: &[(&str, &str)]| entry.is_meant_by(&response(304, fields));
        assert!(means(&tagged, &[("ETag", "\"a\"")]) && means(&tagged, &[("ETag", "W/\"a\"")]) && means(&tagged, &[]));
        assert!(!means(&tagged, &[("ETag", "\"b\"")]) && !means(&dated, &[("ETag", "\"a\"")]));
        assert!(means(&dated, &[("Last-Modified", "Sunday, 06-Nov-94 08:49:37 GMT")]) && means(&dated, &[]));
        assert!(!means(&dated, &[("Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT")]));
    }

    #[test]
    fn it_can_be_made_stale() {
        let stored = entry(&[("Cache-Control", "max-age=100")]);
        stored.make_stale(NOW);
        assert_eq!(stored.fresh_for(NOW), 0);
        assert_eq!(stored.fresh_for(NOW.after(std::time::Duration::from_secs(3))), -3000);
    }
}
