//! The store's policy on a trace that is stated: how many requests it answers, and that it beats the least recently used.

#[path = "../examples/policies/asked.rs"]
mod asked;
#[path = "../examples/policies/trace.rs"]
mod trace;

use asked::{Stored, hit_ratio};
use trace::{Shape, Trace};
use troupe_cache::store::Eviction;

fn ratio(shape: Shape, requests: usize, capacity: u64, eviction: Eviction) -> f64 {
    let stored = Stored::new(capacity, eviction);
    let ratio = hit_ratio(Trace::new(shape), requests, |request| stored.ask(request));
    assert!(stored.bytes() <= capacity, "{} of {capacity} bytes", stored.bytes());
    ratio
}

/// 10,000 URLs of some 160 MiB together, asked for 800,000 times by Zipf's law with an exponent of 1.2, and room for half of it.
#[test]
fn more_than_95_of_100_requests_are_answered() {
    let shape = Shape { urls: 10_000, exponent: 1.2, strangers: 0, seed: 1 };
    let ratio = ratio(shape, 800_000, 80 << 20, Eviction::S3Fifo);
    assert!(ratio > 0.95, "{ratio}");
}

/// Little room, and a fifth of the requests for what nobody asks for again: such a crawler flushes what is merely recent.
#[test]
fn what_is_asked_for_once_does_not_push_out_what_is_asked_for_often() {
    let shape = Shape { urls: 10_000, exponent: 1.0, strangers: 200, seed: 2 };
    let [ours, lru] = [Eviction::S3Fifo, Eviction::Lru].map(|eviction| ratio(shape, 200_000, 32 << 20, eviction));
    assert!(ours > lru + 0.02, "{ours} against {lru}");
}
