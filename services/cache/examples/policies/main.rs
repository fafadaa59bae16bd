//! Hit ratios of the store's policy and others, on traces that anybody can make again. Prints a report; with `--json` one line for
//! each of the two traces that the tests and `make bench` hold the policy to.
//!
//! `cargo run --release -p troupe-cache --example policies`

mod asked;
mod trace;

use std::io::Write as _;

use asked::{Stored, hit_ratio};
use trace::{CRAWLED, HALF, Shape, Stated, Trace};
use troupe_cache::store::Eviction;

/// What a whole object takes beside its body, for the cache that does not weigh for itself: what the store counts.
const OVERHEAD: usize = 900;
const REQUESTS: usize = 4_000_000;
/// The sizes of the caches, in hundredths of all answers together.
const SHARES: [u64; 4] = [1, 5, 20, 60];

fn main() {
    let lines = match std::env::args().nth(1).as_deref() {
        Some("--json") => [HALF, CRAWLED].map(line).to_vec(),
        _ => report(),
    };
    let _ = writeln!(std::io::stdout(), "{}", lines.join("\n"));
}

/// What came of a trace, for programs.
fn line(stated: Stated) -> String {
    let Stated { name, shape, requests, capacity } = stated;
    let [s3_fifo, lru, tiny_lfu] = ratios(shape, requests, capacity);
    let json = serde_json::json!({
        "trace": name,
        "urls": shape.urls,
        "exponent": shape.exponent,
        "of_1000_asked_for_once": shape.strangers,
        "requests": requests,
        "capacity": capacity,
        "digest": format!("{:016x}", Trace::new(shape).digest(requests)),
        "s3_fifo": s3_fifo,
        "lru": lru,
        "tiny_lfu": tiny_lfu,
    });
    json.to_string()
}

/// The hit ratios of S3-FIFO, LRU and W-TinyLFU.
fn ratios(shape: Shape, requests: usize, capacity: u64) -> [f64; 3] {
    let store = |eviction| {
        let stored = Stored::new(capacity, eviction);
        hit_ratio(Trace::new(shape), requests, |request| stored.ask(request))
    };
    [store(Eviction::S3Fifo), store(Eviction::Lru), moka(shape, requests, capacity)]
}

fn report() -> Vec<String> {
    let shapes = [
        ("steady", Shape { urls: 100_000, exponent: 1.0, strangers: 0, seed: 1 }),
        ("steep", Shape { urls: 100_000, exponent: 1.2, strangers: 0, seed: 2 }),
        ("with a crawler", Shape { urls: 100_000, exponent: 1.0, strangers: 200, seed: 3 }),
    ];
    let mut lines = vec![
        "# Hit ratios by policy".to_owned(),
        String::new(),
        format!(
            "{REQUESTS} requests each, from an empty cache on; the first request for a URL is always a miss. Sizes are \
             log-normal, with a median of 8 KiB."
        ),
        "`cargo run --release -p troupe-cache --example policies` makes this again.".to_owned(),
        String::new(),
        "| trace | URLs, exponent, of 1,000 asked for once | size of the cache | S3-FIFO (quick_cache) | LRU (lru) | \
         W-TinyLFU (moka) |"
            .to_owned(),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for (name, shape) in shapes {
        let all = Trace::new(shape).bytes() as u64;
        for share in SHARES {
            let capacity = all * share / 100;
            let cells = ratios(shape, REQUESTS, capacity).map(|ratio| format!("{:.2} %", ratio * 100.0)).join(" | ");
            let Shape { urls, exponent, strangers, .. } = shape;
            lines.push(format!(
                "| {name} | {urls}, {exponent}, {strangers} | {share} %, {} MiB | {cells} |",
                capacity >> 20
            ));
        }
    }
    lines
}

fn moka(shape: Shape, requests: usize, capacity: u64) -> f64 {
    let weigh = |_: &usize, size: &usize| u32::try_from(*size + OVERHEAD).unwrap_or(u32::MAX);
    let cache = moka::sync::Cache::builder().max_capacity(capacity).weigher(weigh).build();
    hit_ratio(Trace::new(shape), requests, |request| {
        let hit = cache.get(&request.url).is_some();
        if !hit {
            cache.insert(request.url, request.size);
        }
        hit
    })
}
