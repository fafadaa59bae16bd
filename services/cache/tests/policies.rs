//! The store's policy on a trace that is stated: how many requests it answers, and that it beats the least recently used.

#[path = "../examples/policies/asked.rs"]
mod asked;
#[path = "../examples/policies/trace.rs"]
mod trace;

use asked::{Stored, hit_ratio};
use trace::{CRAWLED, HALF, Stated, Trace};
use troupe_cache::store::Eviction;

fn ratio(stated: Stated, eviction: Eviction) -> f64 {
    let stored = Stored::new(stated.capacity, eviction);
    let ratio = hit_ratio(Trace::new(stated.shape), stated.requests, |request| stored.ask(request));
    assert!(stored.bytes() <= stated.capacity, "{}: {} bytes", stated.name, stored.bytes());
    ratio
}

#[test]
fn more_than_95_of_100_requests_are_answered() {
    let ratio = ratio(HALF, Eviction::S3Fifo);
    assert!(ratio > 0.95, "{ratio}");
}

#[test]
fn what_is_asked_for_once_does_not_push_out_what_is_asked_for_often() {
    let [ours, lru] = [Eviction::S3Fifo, Eviction::Lru].map(|eviction| ratio(CRAWLED, eviction));
    assert!(ours > lru + 0.02, "{ours} against {lru}");
}
