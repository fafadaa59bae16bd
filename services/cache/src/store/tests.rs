use bytes::Bytes;

use super::*;
use crate::freshness::Times;
use crate::heads::{request, response};
use crate::key::HostBuffer;
use crate::policy::Policy;
use crate::storing::judge;

const NOW: Moment = Moment::from_secs(784_111_777);

struct Stored {
    request: RequestHead,
    key: Arc<Key>,
    entry: Arc<Entry>,
}

fn stored(host: &str, target: &str, groups: &str, size: usize) -> Stored {
    stored_at(NOW, (host, target), groups, size)
}

fn stored_at(asked: Moment, (host, target): (&str, &str), groups: &str, size: usize) -> Stored {
    let request = request("GET", host, target, &[]);
    let head = response(200, &[("Cache-Control", "max-age=60"), ("Surrogate-Key", groups)]);
    let times = Times { requested: asked, received: asked };
    let terms = judge(&request, &head, times, &Policy::new()).unwrap();
    let entry = Arc::new(Entry::new(terms, &head, Bytes::from(vec![b'x'; size])));
    let key = Arc::new(Sought::of(&request, &mut HostBuffer::default()).unwrap().to_key());
    Stored { request, key, entry }
}

fn put(store: &Store, host: &str, target: &str, groups: &str) -> Stored {
    let one = stored(host, target, groups, 10);
    assert!(store.put(&one.key, &one.request, Arc::clone(&one.entry), store.stamp()));
    one
}

fn there(store: &Store, one: &Stored) -> bool {
    let mut buffer = HostBuffer::default();
    let sought = Sought::of(&one.request, &mut buffer).unwrap();
    store.get(&sought).is_some_and(|object| object.find(&one.request).is_some())
}

#[test]
fn what_is_stored_is_found_under_its_whole_key() {
    let store = Store::new(8 << 20, 1 << 20);
    let one = put(&store, "a", "/x?y", "");
    assert!(there(&store, &one));
    assert!(!there(&store, &stored("b", "/x?y", "", 1)) && !there(&store, &stored("a", "/x", "", 1)));
}

/// RFC 9111 §4: of several the most recent. A reload that is through first is not undone by the slow answer before it.
#[test]
fn what_was_asked_for_earlier_does_not_replace_what_came_sooner() {
    let store = Store::new(8 << 20, 1 << 20);
    let put = |one: &Stored| store.put(&one.key, &one.request, Arc::clone(&one.entry), store.stamp());
    let at = |seconds| stored_at(NOW.after(std::time::Duration::from_secs(seconds)), ("a", "/x"), "", seconds as usize);
    let (slow, quick) = (at(1), at(2));
    assert!(put(&quick) && !put(&slow));
    let body = |one: &Stored| {
        let mut buffer = HostBuffer::default();
        let object = store.get(&Sought::of(&one.request, &mut buffer).unwrap()).unwrap();
        object.find(&one.request).unwrap().body().len()
    };
    assert_eq!(body(&slow), 2);
    quick.entry.make_stale(NOW.after(std::time::Duration::from_secs(2)));
    assert!(put(&slow), "nobody was to be given the other any more");
    assert!(put(&at(3)));
    assert_eq!(body(&slow), 3);
}

/// What takes the place of an earlier answer, or is purged, made room for nobody.
#[test]
fn only_what_makes_room_for_others_counts_as_evicted() {
    for policy in [Eviction::S3Fifo, Eviction::Lru] {
        let store = Store::with_eviction(8 << 20, 1 << 20, policy);
        for _ in 0..100 {
            put(&store, "a", "/x", "g");
        }
        assert_eq!((store.len(), store.evicted()), (1, 0), "{policy:?}");
        assert_eq!(store.purge(&Selector::All, false, Moment::from_secs(1)).urls, 1, "{policy:?}");
        assert_eq!((store.len(), store.evicted()), (0, 0), "{policy:?}");
    }
}

#[test]
fn the_store_is_bounded_in_bytes_and_drops_its_index_with_its_objects() {
    let store = Store::new(1 << 20, 1 << 19);
    for n in 0..2000 {
        let one = stored("a", &format!("/{n}"), &format!("g{n}"), 4000);
        store.put(&one.key, &one.request, one.entry, store.stamp());
        assert!(store.bytes() <= 1 << 20, "{}", store.bytes());
    }
    assert!(store.evicted() > 1000 && store.len() > 100, "{} {}", store.evicted(), store.len());
    assert_eq!(store.index.len(), store.len());
}

#[test]
fn objects_beyond_the_limit_are_not_stored() {
    let store = Store::new(8 << 20, 1000);
    let one = stored("a", "/", "", 1001);
    assert!(!store.put(&one.key, &one.request, Arc::clone(&one.entry), store.stamp()));
    assert!(store.is_empty());
    assert!(Store::new(1 << 20, 100 << 20).max_object() <= 1 << 19, "never more than a shard takes");
}

#[test]
fn purges_find_urls_prefixes_hosts_groups_and_all() {
    let all = |store: &Store| {
        [("a", "/x/1", "g h"), ("a", "/x/2", "g"), ("a", "/y", ""), ("b", "/x/1", "g")]
            .map(|(host, target, groups)| put(store, host, target, groups))
    };
    let key = |host: &str, target: &str| stored(host, target, "", 0).key.as_ref().clone();
    for (selector, kept) in [
        (Selector::Url(key("a", "/x/1")), [false, true, true, true]),
        (Selector::Prefix(key("a", "/x/")), [false, false, true, true]),
        (Selector::Host("a".into()), [false, false, false, true]),
        (Selector::Group("g".into(), None), [false, false, true, false]),
        (Selector::Group("g".into(), Some(key("b", "/"))), [true, true, true, false]),
        (Selector::Group("none".into(), None), [true, true, true, true]),
        (Selector::All, [false, false, false, false]),
    ] {
        let store = Store::new(8 << 20, 1 << 20);
        let stored = all(&store);
        let gone = kept.iter().filter(|kept| !**kept).count();
        let purged = store.purge(&selector, false, NOW);
        assert_eq!((purged.urls, purged.responses), (gone, gone), "{selector:?}");
        assert_eq!(stored.each_ref().map(|one| there(&store, one)), kept, "{selector:?}");
        assert_eq!(store.len(), 4 - gone);
    }
}

/// Groups of one response.
const EACH: usize = 100;

/// A store with so many groups, `g0` and on, each of one response.
fn grouped(groups: usize) -> Store {
    let store = Store::new(2 << 30, 1 << 20);
    for first in (0..groups).step_by(EACH) {
        let names: Vec<_> = (first..groups.min(first + EACH)).map(|group| format!("g{group}")).collect();
        put(&store, "a", &format!("/{first}"), &names.join(" "));
    }
    assert_eq!(store.index.len(), groups);
    store
}

/// What purges cost is what they find, with a thousand groups and with a million.
#[test]
fn a_purge_costs_the_same_whatever_else_is_there() {
    let cost = |groups: usize| {
        let store = grouped(groups);
        let purge = |selector: Selector| store.purge(&selector, false, NOW);
        let spread: Vec<_> = (0..groups).step_by(EACH).collect();
        let (by_group, by_url) = (spread[0..3].iter(), spread[3..6].iter());
        let found: Vec<_> = by_group
            .map(|group| purge(Selector::Group(format!("g{}", group + 1).into(), None)))
            .chain(by_url.map(|url| purge(Selector::Url(stored("a", &format!("/{url}"), "", 0).key.as_ref().clone()))))
            .collect();
        let nothing: Vec<_> = (0..1000).map(|n| purge(Selector::Group(format!("none{n}").into(), None))).collect();
        // What is gone has taken its places in the index along, all of them and no others.
        assert_eq!((store.len(), store.index.len()), (spread.len() - 6, groups - 6 * EACH));
        (found, nothing)
    };
    let (few, many) = (cost(1024), cost(1_024_000));
    assert!(few.0.iter().all(|purged| *purged == Purged { urls: 1, responses: 1, looked: 1 }), "{:?}", few.0);
    assert!(few.1.iter().all(|purged| *purged == Purged::default()));
    assert_eq!(few, many);
}

#[test]
fn a_soft_purge_makes_stale() {
    let store = Store::new(8 << 20, 1 << 20);
    let one = put(&store, "a", "/", "");
    assert_eq!(store.purge(&Selector::All, true, NOW).responses, 1);
    assert!(there(&store, &one) && one.entry.fresh_for(NOW) <= 0);
}

#[test]
fn what_was_fetched_before_a_purge_is_not_stored_after_it() {
    let store = Store::new(8 << 20, 1 << 20);
    let one = stored("a", "/x", "g", 10);
    for (selector, expected) in [
        (Selector::Url(one.key.as_ref().clone()), false),
        (Selector::Group("g".into(), None), false),
        (Selector::Host("b".into()), true),
        (Selector::All, false),
    ] {
        let began = store.stamp();
        store.purge(&selector, false, NOW);
        assert_eq!(store.put(&one.key, &one.request, Arc::clone(&one.entry), began), expected, "{selector:?}");
        assert_eq!(there(&store, &one), expected);
        assert!(store.put(&one.key, &one.request, Arc::clone(&one.entry), store.stamp()), "a later fetch");
    }
    // A fetch that slept through more purges than are remembered is not trusted.
    let began = store.stamp();
    for _ in 0..2000 {
        store.purge(&Selector::Host("nobody".into()), false, NOW);
    }
    assert!(!store.put(&one.key, &one.request, Arc::clone(&one.entry), began));
}

/// Who looks up takes no lock that a writer holds: what could be found for a moment would be given after the purge's answer.
#[test]
fn what_a_purge_was_about_can_be_found_at_no_moment() {
    let store = Store::new(8 << 20, 1 << 20);
    let one = stored("a", "/x", "g", 10);
    let (began, writes) = (store.stamp(), store.writes(one.key.hashed()));
    store.purge(&Selector::Group("g".into(), None), false, NOW);
    assert!(!store.put(&one.key, &one.request, Arc::clone(&one.entry), began));
    assert!(!store.put_again(&one.key, Arc::clone(&one.entry), began));
    assert_eq!(store.writes(one.key.hashed()), writes, "it was there");
}

/// A writer that looked for purges just before one came makes known what it brings just after.
#[test]
fn a_purge_waits_for_who_writes_and_finds_what_that_brings() {
    let one = stored("a", "/x", "g", 10);
    let url = one.key.as_ref();
    for selector in [
        Selector::Url(url.clone()),
        Selector::Prefix(url.clone()),
        Selector::Host("a".into()),
        Selector::Group("g".into(), None),
        Selector::All,
    ] {
        let store = Store::new(8 << 20, 1 << 20);
        let writer = store.writer(&one.key);
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| done.send(store.purge(&selector, false, NOW)));
            // However long this is: it does not end before the writer does.
            let early = is_done.recv_timeout(std::time::Duration::from_millis(50));
            assert!(early.is_err(), "{selector:?} did not wait: {early:?}");
            store.replace(&one.key, None, &Arc::new(Object::with(Arc::clone(&one.entry), &one.request, None)));
            drop(writer);
        });
        assert_eq!(is_done.recv().map(|purged| purged.responses), Ok(1), "{selector:?}");
        assert!(!there(&store, &one), "{selector:?}");
    }
}

#[test]
fn urls_that_are_not_stored_are_remembered() {
    let store = Store::new(8 << 20, 1 << 20);
    let one = stored("a", "/x", "", 10);
    store.put_uncacheable(&one.key, Whose::All, NOW.after(std::time::Duration::from_secs(9)));
    let mut buffer = HostBuffer::default();
    let sought = Sought::of(&one.request, &mut buffer).unwrap();
    assert!(
        store
            .get(&sought)
            .is_some_and(|object| object.is_uncacheable(false, NOW) && object.find(&one.request).is_none())
    );
    store.put(&one.key, &one.request, Arc::clone(&one.entry), store.stamp());
    assert!(store.get(&sought).is_some_and(|object| !object.is_uncacheable(false, NOW)));
}

/// Writers, purges and evictions from many threads: what is found is always whole and of its own key.
#[test]
fn threads_share_it() {
    let store = Store::new(1 << 20, 1 << 18);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..2000 {
                    let target = format!("/{}", (n * 7 + thread) % 50);
                    let size = 100 + ((n * 7 + thread) % 50) * 200;
                    let one = stored("a", &target, "g", size);
                    let mut buffer = HostBuffer::default();
                    let sought = Sought::of(&one.request, &mut buffer).unwrap();
                    if let Some(found) = store.get(&sought).and_then(|object| object.find(&one.request).cloned()) {
                        assert_eq!(found.body().len(), size);
                    }
                    match n % 10 {
                        0 => {
                            store.purge(&Selector::Group("g".into(), None), false, NOW);
                        }
                        1 => {
                            store.purge(&Selector::Url(one.key.as_ref().clone()), false, NOW);
                        }
                        _ => {
                            store.put(&one.key, &one.request, one.entry, store.stamp());
                        }
                    }
                }
            });
        }
    });
    store.purge(&Selector::All, false, NOW);
    assert_eq!((store.len(), store.index.len()), (0, 0));
}

/// The least recently used goes first, whatever came first; and the bound holds as it does by default.
#[test]
fn the_least_recently_used_may_go_first() {
    let store = Store::with_eviction(1 << 20, 1 << 19, Eviction::Lru);
    let wanted = put(&store, "a", "/wanted", "g");
    for n in 0..2000 {
        let one = stored("a", &format!("/{n}"), &format!("g{n}"), 4000);
        store.put(&one.key, &one.request, one.entry, store.stamp());
        assert!(store.bytes() <= 1 << 20, "{}", store.bytes());
        assert!(there(&store, &wanted), "after {n}");
    }
    assert!(store.evicted() > 1000 && store.len() > 100, "{} {}", store.evicted(), store.len());
    assert_eq!(store.index.len(), store.len());
    let left = store.len();
    assert_eq!(store.purge(&Selector::Host("a".into()), false, NOW).urls, left);
    assert!(store.is_empty() && store.bytes() == 0 && store.index.len() == 0);
}
