//! The store, and what it is compared with, asked for what a trace asks for.

use std::sync::Arc;

use bytes::Bytes;
use troupe_cache::entry::Entry;
use troupe_cache::freshness::Times;
use troupe_cache::key::{HostBuffer, Key, Sought};
use troupe_cache::policy::Policy;
use troupe_cache::store::{Eviction, Store};
use troupe_cache::storing::judge;
use troupe_cache::time::Moment;
use troupe_wire::head::{
    RequestHead, RequestHeadBuilder, RequestParts, ResponseHead, ResponseHeadBuilder, Scheme, Version,
};

use crate::trace::{Request, Trace};

const NOW: Moment = Moment::from_secs(784_111_777);
/// Largest answer that is stored.
const MAX_OBJECT: usize = 1 << 20;

/// The store as the gateway uses it: keys, entries, weights and all, but for the bytes of the bodies, which all are parts of one
/// piece of memory.
pub(crate) struct Stored {
    store: Store,
    head: ResponseHead,
    bytes: Bytes,
}

impl Stored {
    pub(crate) fn new(capacity: u64, eviction: Eviction) -> Self {
        let mut builder = ResponseHeadBuilder::default();
        for (name, value) in [("content-type", "text/html; charset=utf-8"), ("cache-control", "max-age=86400")] {
            builder.field(name.as_bytes(), value.as_bytes()).expect("a field");
        }
        Self {
            store: Store::with_eviction(capacity, MAX_OBJECT, eviction),
            head: builder.finish(200),
            bytes: vec![b'x'; MAX_OBJECT].into(),
        }
    }

    /// Whether the answer is there; it is stored where it is not.
    pub(crate) fn ask(&self, asked: Request) -> bool {
        let (request, key) = request(asked.url);
        if self.store.get_key(&key).is_some() {
            return true;
        }
        let times = Times { requested: NOW, received: NOW };
        let terms = judge(&request, &self.head, times, &Policy::new()).expect("it may be stored");
        let entry = Arc::new(Entry::new(terms, &self.head, self.bytes.slice(..asked.size)));
        self.store.put(&Arc::new(key), &request, entry, self.store.stamp());
        false
    }

    /// Bytes that are held.
    #[allow(dead_code, reason = "not everybody who asks wants to know")]
    pub(crate) fn bytes(&self) -> u64 {
        self.store.bytes()
    }
}

/// The share of the requests that `ask` answers.
pub(crate) fn hit_ratio(trace: Trace, requests: usize, ask: impl Fn(Request) -> bool) -> f64 {
    let hits = trace.take(requests).filter(|request| ask(*request)).count();
    hits as f64 / requests as f64
}

fn request(url: usize) -> (RequestHead, Key) {
    let target = format!("/articles/{url}?page=1");
    let parts = RequestParts {
        version: Version::Http11,
        scheme: Scheme::Http,
        method: "GET",
        target: &target,
        authority: "news.example",
        remote_addr: "192.0.2.1",
        remote_port: "1",
        local_addr: "192.0.2.2",
        local_port: "80",
    };
    let head = RequestHeadBuilder::default().finish(&parts).expect("a head");
    let key = Sought::of(&head, &mut HostBuffer::default()).expect("a key").to_key();
    (head, key)
}
