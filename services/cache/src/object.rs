//! All that is known of one URL: its variants, or that its responses cannot be cached.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use metrics::Counter;
use smallvec::SmallVec;
use troupe_wire::head::RequestHead;

use crate::entry::Entry;
use crate::freshness::{Source, date};
use crate::time::Moment;

/// Most variants of one URL; the least preferred goes when another comes.
const MAX_VARIANTS: usize = 32;
/// What an object takes beside its entries: itself, its place in the store's tables, and the allocator's rounding.
const OVERHEAD: usize = 256;

/// Numbers objects, so that one that replaces another is not taken for it.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Most objects have one: it needs no memory of its own.
type Variants = SmallVec<[Arc<Entry>; 1]>;

/// Whose requests do not wait for each other, because their responses are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Of those with a cookie or credentials: what they are answered says nothing about others.
    Personal,
    /// Everybody's.
    All,
}

/// Until when they do not.
#[derive(Debug, Clone, Copy, Default)]
struct Apart {
    personal: Moment,
    all: Moment,
}

impl Apart {
    /// What of it a new response leaves: it ends what was believed of all, and of personal requests too if it is for them.
    fn after(self, entry: &Entry) -> Self {
        let personal = if entry.terms().source == Source::Route { self.personal } else { Moment::default() };
        Self { personal, all: Moment::default() }
    }
}

/// What is kept under one key. It is replaced whole, never changed.
#[derive(Debug)]
pub struct Object {
    id: u64,
    /// In the order in which they are preferred, see [`beside`].
    variants: Variants,
    apart: Apart,
    weight: usize,
    /// Counts it when it has to make room.
    evictions: Option<Counter>,
    /// Another one takes its place: when it goes, it makes room for nobody.
    replaced: AtomicBool,
}

impl Object {
    /// An object with `entry` as a variant, beside those of `before` that it does not replace: those that would
    /// not have answered `request`.
    pub fn with(entry: Arc<Entry>, request: &RequestHead, before: Option<&Self>) -> Self {
        let others = before.into_iter().flat_map(|object| &object.variants);
        let others = others.filter(|other| !other.terms().selection.fits(request));
        let apart = before.map(|object| object.apart).unwrap_or_default().after(&entry);
        Self::of(beside(entry, others.cloned()), apart, before)
    }

    /// The same, and its eviction is counted there.
    #[must_use]
    pub fn counted_by(self, evictions: Counter) -> Self {
        Self { evictions: Some(evictions), ..self }
    }

    /// It goes because another one takes its place.
    pub(crate) fn is_replaced(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }

    /// It goes; counts that, and says so, if it has to make room.
    pub(crate) fn goes(&self) -> bool {
        let evicted = !self.replaced.load(Ordering::Relaxed);
        if let Some(evictions) = self.evictions.as_ref().filter(|_| evicted) {
            evictions.increment(1);
        }
        evicted
    }

    /// The same where the request is not at hand: `entry` replaces the variant that was selected alike.
    pub fn with_alike(entry: Arc<Entry>, before: Option<&Self>) -> Self {
        let others = before.into_iter().flat_map(|object| &object.variants);
        let variant = entry.terms().selection.variant();
        let others = others.filter(|other| other.terms().selection.variant() != variant).cloned();
        let apart = before.map(|object| object.apart).unwrap_or_default().after(&entry);
        Self::of(beside(entry, others), apart, before)
    }

    /// The variant that was selected as `entry` was.
    pub fn like(&self, entry: &Entry) -> Option<&Arc<Entry>> {
        let variant = entry.terms().selection.variant();
        self.variants.iter().find(|other| other.terms().selection.variant() == variant)
    }

    /// An object whose responses to `whose` requests are not stored for now, beside what is stored of it.
    pub fn uncacheable(whose: Whose, until: Moment, before: Option<&Self>) -> Self {
        let mut apart = before.map(|object| object.apart).unwrap_or_default();
        match whose {
            Whose::Personal => apart.personal = until,
            Whose::All => apart.all = until,
        }
        Self::of(before.map(|object| object.variants.clone()).unwrap_or_default(), apart, before)
    }

    /// The object without `entry`; `None` when nothing is left.
    pub fn without(&self, entry: &Arc<Entry>) -> Option<Self> {
        let variants: Variants = self.variants.iter().filter(|other| !Arc::ptr_eq(other, entry)).cloned().collect();
        let something = !variants.is_empty() || self.apart.all.max(self.apart.personal) > Moment::default();
        something.then(|| Self::of(variants, self.apart, Some(self)))
    }

    fn of(variants: Variants, apart: Apart, before: Option<&Self>) -> Self {
        let entries: usize = variants.iter().map(|entry| entry.weight() + size_of::<Arc<Entry>>()).sum();
        // An allocator rounds up by an eighth at most.
        let weight = OVERHEAD + entries + entries / 8;
        let evictions = before.and_then(|object| object.evictions.clone());
        let (id, replaced) = (NEXT.fetch_add(1, Ordering::Relaxed), AtomicBool::new(false));
        Self { id, variants, apart, weight, evictions, replaced }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The variant that answers `request`: the preferred one of those that fit (§4.1).
    pub fn find(&self, request: &RequestHead) -> Option<&Arc<Entry>> {
        self.variants.iter().find(|entry| entry.terms().selection.fits(request))
    }

    /// Its variants, the preferred ones first.
    pub fn variants(&self) -> &[Arc<Entry>] {
        &self.variants
    }

    /// Whether requests for it are not to wait for each other; `personal`: those with a cookie or credentials.
    pub fn is_uncacheable(&self, personal: bool, now: Moment) -> bool {
        now < self.apart.all || (personal && now < self.apart.personal)
    }

    /// What tells the variant that `request` asks for from others, as far as is known what the object varies on.
    pub fn variant_of(&self, request: &RequestHead) -> Vec<u8> {
        let preferred = self.variants.first().map(|entry| &entry.terms().selection);
        preferred
            .filter(|selection| !selection.is_empty())
            .map(|selection| selection.variant_of(request))
            .unwrap_or_default()
    }

    /// Bytes that it takes in memory.
    pub fn weight(&self) -> usize {
        self.weight
    }
}

/// `entry` among `others`, in the order in which §4.1 prefers what fits: first what has a `Vary`, because an answer that lacks
/// it among others that have it is more often a mistake than meant for everybody; of those the one with the latest `Date`.
/// When there are too many, the last of the others goes.
fn beside(entry: Arc<Entry>, others: impl Iterator<Item = Arc<Entry>>) -> Variants {
    let mut variants: Variants = others.take(MAX_VARIANTS - 1).collect();
    if variants.is_empty() {
        variants.push(entry);
        return variants;
    }
    let own = preference(&entry);
    let place = variants.iter().position(|other| own >= preference(other)).unwrap_or(variants.len());
    variants.insert(place, entry);
    variants
}

fn preference(entry: &Entry) -> (bool, u64) {
    let made = date(entry.head()).unwrap_or_else(|| entry.terms().times.received.secs());
    (!entry.terms().selection.is_empty(), made)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::freshness::Times;
    use crate::heads::{get, response};
    use crate::policy::Policy;
    use crate::storing::judge;

    fn entry(language: &str, body: &'static str) -> (RequestHead, Arc<Entry>) {
        let request = get("/", &[("Accept-Language", language)]);
        let head = response(200, &[("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")]);
        let times = Times { requested: Moment::from_secs(1), received: Moment::from_secs(1) };
        let terms = judge(&request, &head, times, &Policy::new()).unwrap();
        (request, Arc::new(Entry::new(terms, &head, Bytes::from_static(body.as_bytes()))))
    }

    /// §4.1: variants stand beside each other, and a new one replaces only what it answers for.
    #[test]
    fn variants_are_kept_and_replaced() {
        let (german, one) = entry("de", "eins");
        let (english, two) = entry("en", "one");
        let object = Object::with(one, &german, None);
        let object = Object::with(two, &english, Some(&object));
        let object = Object::with(entry("de", "neu").1, &german, Some(&object));
        assert_eq!(object.variants().len(), 2);
        assert_eq!(
            (&**object.find(&german).unwrap().body(), &**object.find(&english).unwrap().body()),
            (&b"neu"[..], &b"one"[..])
        );
        assert!(object.find(&get("/", &[])).is_none());
        assert_ne!(object.variant_of(&german), object.variant_of(&english));
        let same = Object::with_alike(entry("de", "anders").1, Some(&object));
        assert_eq!((same.variants().len(), &**same.find(&german).unwrap().body()), (2, &b"anders"[..]));
        assert_eq!(&**same.like(&entry("en", "").1).unwrap().body(), b"one");
        assert!(object.weight() > 2 * one_weight());
    }

    /// A response to a request with `asked`, made so many seconds after the first.
    fn made(
        asked: &[(&str, &str)],
        vary: &[(&str, &str)],
        after: u64,
        body: &'static str,
    ) -> (RequestHead, Arc<Entry>) {
        let (request, made) = (get("/", asked), Moment::from_secs(784_111_777 + after).http_date());
        let mut fields = vec![("Cache-Control", "max-age=60"), ("Date", &*made)];
        fields.extend_from_slice(vary);
        let (head, now) = (response(200, &fields), Moment::from_secs(784_111_800));
        let terms = judge(&request, &head, Times { requested: now, received: now }, &Policy::new()).unwrap();
        (request, Arc::new(Entry::new(terms, &head, Bytes::from_static(body.as_bytes()))))
    }

    fn object(entries: &[(RequestHead, Arc<Entry>)]) -> Object {
        let with = |object: Option<Object>, (request, entry): &(RequestHead, Arc<Entry>)| {
            Some(Object::with(Arc::clone(entry), request, object.as_ref()))
        };
        entries.iter().fold(None, with).unwrap()
    }

    /// §4 and §4.1: of several that fit the one with the latest `Date` answers, in whatever order they came.
    #[test]
    fn the_most_recent_of_several_that_fit_answers() {
        let both = get("/", &[("x-a", "1"), ("x-b", "1")]);
        let old = made(&[("x-a", "1")], &[("Vary", "x-a")], 0, "old");
        let new = made(&[("x-b", "1")], &[("Vary", "x-b")], 5, "new");
        for entries in [[old.clone(), new.clone()], [new.clone(), old.clone()]] {
            let object = object(&entries);
            assert_eq!(object.variants().len(), 2);
            assert_eq!(&**object.find(&both).unwrap().body(), b"new");
            assert_eq!(&**object.find(&old.0).unwrap().body(), b"old");
        }
    }

    /// §4.1: one that lacks `Vary` among others that have it answers only what none of them does, however new it is.
    #[test]
    fn what_varies_is_preferred_to_a_default_without_vary() {
        let german = made(&[("accept-language", "de")], &[("Vary", "accept-language")], 0, "german");
        let default = made(&[], &[], 9, "default");
        let french = get("/", &[("accept-language", "fr")]);
        let kept = object(&[german.clone(), default.clone()]);
        assert_eq!(&**kept.find(&german.0).unwrap().body(), b"german");
        assert_eq!(&**kept.find(&french).unwrap().body(), b"default");
        // A later answer that varies takes the place of what would have answered its request, and of no other.
        let replaced = object(&[default, german.clone()]);
        assert_eq!(&**replaced.find(&german.0).unwrap().body(), b"german");
        assert!(replaced.find(&french).is_none());
    }

    fn one_weight() -> usize {
        entry("de", "").1.weight()
    }

    #[test]
    fn variants_are_bounded() {
        let mut object = None;
        for n in 0..100 {
            let (request, entry) = entry(&format!("x{n}"), "");
            object = Some(Object::with(entry, &request, object.as_ref()));
        }
        let full = object.unwrap();
        assert_eq!(full.variants().len(), MAX_VARIANTS);
        // Whatever its date, what has just come is not what goes.
        let (request, old) = made(&[("accept-language", "old")], &[("Vary", "Accept-Language")], 0, "old");
        let full = Object::with(old, &request, Some(&full));
        assert_eq!((full.variants().len(), full.find(&request).is_some()), (MAX_VARIANTS, true));
    }

    #[test]
    fn what_cannot_be_cached_is_remembered_for_a_while() {
        let (before, until) = (Moment::from_secs(4), Moment::from_secs(5));
        let object = Object::uncacheable(Whose::All, until, None);
        assert!(object.is_uncacheable(false, before) && !object.is_uncacheable(true, until));
        let (request, entry) = entry("de", "");
        assert!(!Object::with(Arc::clone(&entry), &request, Some(&object)).is_uncacheable(false, before));
        let only = Object::with(Arc::clone(&entry), &request, None);
        assert!(only.without(&entry).is_none());
    }

    /// What those with cookies are answered says nothing about the others. A response ends it that is for both.
    #[test]
    fn personal_responses_are_remembered_by_themselves() {
        let (before, until) = (Moment::from_secs(4), Moment::from_secs(5));
        let personal = |object: &Object| (object.is_uncacheable(true, before), object.is_uncacheable(false, before));
        let object = Object::uncacheable(Whose::Personal, until, None);
        assert_eq!(personal(&object), (true, false));
        assert!(!object.is_uncacheable(true, until));
        let (request, said) = entry("de", "");
        assert_eq!(personal(&Object::with(said, &request, Some(&object))), (false, false));
        let route = Policy { ttl: Some(std::time::Duration::from_secs(9)), ..Policy::new() };
        let (head, times) = (response(200, &[]), Times { requested: before, received: before });
        let terms = judge(&request, &head, times, &route).unwrap();
        let made = Arc::new(Entry::new(terms, &head, Bytes::new()));
        let beside = Object::with(Arc::clone(&made), &request, Some(&object));
        assert_eq!(personal(&beside), (true, false));
        assert_eq!(beside.without(&made).map(|left| personal(&left)), Some((true, false)));
    }
}
