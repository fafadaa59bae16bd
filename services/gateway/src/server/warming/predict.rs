//! Which URLs will be asked for: those that were, often, within the last hour.
//!
//! A thread notes what it is asked for in a small table of its own, which goes into the process's one a few times a second; so a request
//! takes no lock. Both have an end: of more URLs than are watched, those that were not asked for the longest are forgotten.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use troupe_wire::head::RequestHead;

/// The time over which requests are counted.
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Fields that make a request somebody's own, or ask for something else than the answer.
const PERSONAL: [&str; 6] = ["authorization", "cookie", "cache-control", "range", "if-none-match", "if-modified-since"];
/// URLs that a thread notes between two looks. More are noted at the next.
const NOTED: usize = 1024;

/// What a process's threads were asked for.
#[derive(Debug)]
pub(crate) struct Predictor {
    /// Requests within an hour from which on a URL is wanted.
    wanted_from: u32,
    hasher: RandomState,
    watched: Mutex<LruCache<u64, Watched>>,
}

/// What one thread was asked for since the last look.
#[derive(Debug)]
pub(crate) struct Noted {
    predictor: Arc<Predictor>,
    urls: RefCell<HashMap<u64, (u32, RequestHead)>>,
}

#[derive(Debug)]
struct Watched {
    head: RequestHead,
    /// When the hour that is counted began.
    since: Instant,
    count: u32,
    /// Of the hour before it.
    before: u32,
}

impl Predictor {
    /// One that watches `most` URLs.
    pub(crate) fn new(wanted_from: u32, most: u32) -> Arc<Self> {
        let most = NonZeroUsize::new(most as usize).unwrap_or(NonZeroUsize::MIN);
        Arc::new(Self { wanted_from, hasher: RandomState::new(), watched: Mutex::new(LruCache::new(most)) })
    }

    /// A thread's notes.
    pub(crate) fn noted(self: &Arc<Self>) -> Noted {
        Noted { predictor: Arc::clone(self), urls: RefCell::default() }
    }

    /// What is wanted: the heads by which it was asked for.
    pub(crate) fn wanted(&self, now: Instant) -> Vec<RequestHead> {
        let mut watched = self.watched.lock();
        let often = |url: &mut Watched| (url.within_an_hour(now) >= self.wanted_from).then(|| url.head.clone());
        watched.iter_mut().filter_map(|(_, url)| often(url)).collect()
    }

    fn add(&self, hash: u64, count: u32, head: RequestHead, now: Instant) {
        let mut watched = self.watched.lock();
        let url = watched.get_or_insert_mut(hash, || Watched { head: head.clone(), since: now, count: 0, before: 0 });
        url.turn(now);
        url.count = url.count.saturating_add(count);
        // The newest says best what variant is wanted.
        url.head = head;
    }
}

impl Watched {
    /// Begins a new hour where one is over.
    fn turn(&mut self, now: Instant) {
        let past = now.saturating_duration_since(self.since);
        if past >= HOUR {
            self.before = if past < 2 * HOUR { self.count } else { 0 };
            self.count = 0;
            self.since = now;
        }
    }

    /// Requests within the last hour, as if those of the hour before had come evenly.
    fn within_an_hour(&mut self, now: Instant) -> u32 {
        self.turn(now);
        let left = 1.0 - now.saturating_duration_since(self.since).as_secs_f64() / HOUR.as_secs_f64();
        self.count.saturating_add((f64::from(self.before) * left.max(0.0)) as u32)
    }
}

impl Noted {
    /// Notes a request, unless it is somebody's own: nobody's credentials are used again, and what they select is not for others.
    pub(crate) fn note(&self, head: &RequestHead) {
        if PERSONAL.iter().any(|name| head.field(name).is_some()) {
            return;
        }
        let hash = self.predictor.hasher.hash_one((head.scheme().as_str(), head.authority(), head.target()));
        let mut urls = self.urls.borrow_mut();
        if let Some((count, _)) = urls.get_mut(&hash) {
            *count = count.saturating_add(1);
        } else if urls.len() < NOTED {
            urls.insert(hash, (1, head.clone()));
        }
    }

    /// Hands over what was noted.
    pub(crate) fn flush(&self, now: Instant) {
        for (hash, (count, head)) in self.urls.borrow_mut().drain() {
            self.predictor.add(hash, count, head, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use troupe_wire::head::{RequestHeadBuilder, RequestParts, Scheme, Version};

    use super::*;

    fn head(target: &str) -> RequestHead {
        let parts = RequestParts {
            version: Version::Http11,
            scheme: Scheme::Http,
            method: "GET",
            target,
            authority: "a.example",
            remote_addr: "192.0.2.1",
            remote_port: "1",
            local_addr: "192.0.2.2",
            local_port: "80",
        };
        RequestHeadBuilder::default().finish(&parts).unwrap()
    }

    fn wanted(predictor: &Predictor, now: Instant) -> Vec<String> {
        let mut targets: Vec<_> = predictor.wanted(now).iter().map(|head| head.target().to_owned()).collect();
        targets.sort();
        targets
    }

    #[test]
    fn what_was_asked_for_often_is_wanted_for_an_hour() {
        let (predictor, start) = (Predictor::new(3, 10), Instant::now());
        let threads = [predictor.noted(), predictor.noted()];
        for thread in &threads {
            thread.note(&head("/often"));
            thread.note(&head("/often"));
            thread.note(&head("/seldom"));
            thread.flush(start);
        }
        assert_eq!(wanted(&predictor, start), ["/often"]);
        assert_eq!(wanted(&predictor, start + HOUR / 2), ["/often"]);
        assert_eq!(wanted(&predictor, start + HOUR), ["/often"], "nearly all of them within an hour");
        assert_eq!(wanted(&predictor, start + HOUR + HOUR / 2), [""; 0]);
    }

    #[test]
    fn no_more_is_watched_than_is_said() {
        let (predictor, now) = (Predictor::new(1, 5), Instant::now());
        let thread = predictor.noted();
        for number in 0..5000 {
            thread.note(&head("/always"));
            thread.note(&head(&format!("/{number}")));
            if number % 3 == 0 {
                thread.flush(now);
            }
        }
        assert!(thread.urls.borrow().len() <= NOTED);
        thread.flush(now);
        let wanted = wanted(&predictor, now);
        assert!(wanted.len() == 5 && wanted.contains(&"/always".to_owned()), "{wanted:?}");
    }
}
