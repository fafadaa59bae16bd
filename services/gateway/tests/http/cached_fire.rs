//! Bodies under fire: fills, evictions, purges, ranges, validations and clients that leave, all at once, at several
//! gateways in front of one origin. Whatever comes back is, byte for byte, a version that the origin made of the URL that was
//! asked for.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use troupe_cache::store::Selector;
use troupe_contracts::invoke::{Invoke, Reply};
use troupe_gateway::cache::Cache;
use troupe_gateway::cache::config::{Amount, CacheConfig, L1Config, RouteCache};
use troupe_gateway::config::RouteConfig;
use troupe_gateway::{Options, Running};
use troupe_mesh::body::{self, Body};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::Failure;
use troupe_node::units::Size;

use crate::support::*;

/// How long the fire lasts, where `FIRE_SECONDS` does not say otherwise.
const FIRE: u64 = 4;
const GATEWAYS: usize = 4;
/// Clients of each gateway.
const CLIENTS: u64 = 2;
const URLS: usize = 40;
const LINE: usize = 32;

/// The body of a version of a URL: lines that all say which.
fn text(name: &str, version: usize) -> Bytes {
    let number: usize = name.parse().unwrap_or(0);
    let line = format!("{name:>10} {version:>20}\n");
    line.repeat(1 + (number * 97) % 3000).into()
}

async fn serve_version(envelope: Envelope<Invoke>, version: usize) -> Result<Reply, Failure> {
    let name = envelope.call.function.to_string();
    let tag = format!("\"{version}\"");
    if let Some(known) = envelope.call.head.field("if-none-match")
        && version.is_multiple_of(3)
    {
        let known = String::from_utf8_lossy(known).into_owned();
        return Ok(reply(304, &[("ETag", &known), ("Cache-Control", "max-age=1")], Body::Empty));
    }
    let whole = text(&name, version);
    let fields = [("ETag", &*tag), ("Cache-Control", "max-age=1, stale-while-revalidate=1"), ("Surrogate-Key", "fire")];
    if version.is_multiple_of(2) {
        return Ok(reply(200, &fields, Body::full(whole)));
    }
    let (mut writer, reader) = body::channel((version % 4 == 1).then_some(whole.len() as u64));
    actix_rt::spawn(async move {
        for piece in whole.chunks(5000) {
            if writer.write(Bytes::copy_from_slice(piece)).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        // Some break off before their end.
        if version % 11 != 1 {
            writer.finish();
        }
    });
    Ok(reply(200, &fields, Body::Stream(reader)))
}

/// Whether `body` is from `offset` on a part of some version of `name`.
fn is_of(body: &[u8], name: &str, offset: usize) -> bool {
    // One line, turned so that it begins where the body does.
    let Some(first) = body.get(..LINE.min(body.len())) else { return false };
    let repeats = body.chunks(LINE).all(|chunk| first.starts_with(chunk));
    let mut line = first.to_vec();
    if line.len() == LINE {
        line.rotate_right(offset % LINE);
        return repeats && line.starts_with(format!("{name:>10} ").as_bytes());
    }
    repeats
}

/// One gateway's cache, with room for a fifth of what there is.
fn cache() -> Arc<Cache> {
    let l1 =
        L1Config { size: Amount::Size(Size::from_kib(512)), max_object: Size::from_kib(64), ..L1Config::default() };
    Cache::new(&CacheConfig { l1, ..CacheConfig::default() }).expect("a cache")
}

#[test]
fn every_body_is_whole_and_of_one_version() {
    let seconds = std::env::var("FIRE_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(FIRE);
    let versions = Arc::new(AtomicUsize::new(0));
    let gateways: Vec<(Arc<Cache>, Running)> = (0..GATEWAYS)
        .map(|_| {
            let cache = cache();
            let options = Options { threads: 2, cache: Some(Arc::clone(&cache)), ..Options::default() };
            let routes = [RouteConfig { cache: Some(RouteCache::Switch(true)), ..any_function() }];
            let versions = Arc::clone(&versions);
            let serve = move |envelope| serve_version(envelope, versions.fetch_add(1, Ordering::Relaxed));
            (cache, serve_with(config(), &routes, options, serve))
        })
        .collect();
    let until = Instant::now() + Duration::from_secs(seconds);
    let counts: [AtomicUsize; 3] = Default::default();
    let wrong = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (number, (_, running)) in gateways.iter().enumerate() {
            for client in 0..CLIENTS {
                let (counts, wrong, seed) = (&counts, &wrong, number as u64 * CLIENTS + client);
                scope.spawn(move || self::client(running, seed, until, &counts.each_ref(), wrong));
            }
        }
        let gateways = &gateways;
        scope.spawn(move || {
            let mut random = fastrand::Rng::with_seed(99);
            while Instant::now() < until {
                let selector = match random.u8(..) {
                    0..200 => Selector::Group("fire".into(), None),
                    _ => Selector::All,
                };
                let soft = random.bool();
                for (cache, _) in gateways {
                    cache.purge(&selector, soft);
                }
                pause(Duration::from_millis(random.u64(1..30)));
            }
        });
    });
    assert!(!wrong.load(Ordering::Relaxed), "a body was not what was asked for");
    let [whole, parts, hits] = counts.map(AtomicUsize::into_inner);
    println!("{seconds} s: {whole} whole bodies, {parts} parts, {hits} hits");
    assert!(whole > 100 && parts > 20 && hits > 20, "{whole} whole, {parts} parts, {hits} hits");
}

fn client(running: &Running, seed: u64, until: Instant, [whole, parts, hits]: &[&AtomicUsize; 3], wrong: &AtomicBool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = Client::connect(running);
    while Instant::now() < until && !wrong.load(Ordering::Relaxed) {
        let name = random.usize(..URLS).to_string();
        let length = text(&name, 0).len();
        let offset = random.usize(..length);
        let (fields, ranged) = match random.u8(..10) {
            0 => (format!("Range: bytes={offset}-\r\n"), true),
            1 => ("If-None-Match: \"1\"\r\n".to_owned(), false),
            2 => ("Cache-Control: no-cache\r\n".to_owned(), false),
            _ => (String::new(), false),
        };
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"));
        if random.u8(..20) == 0 {
            // Leaves in the middle.
            let mut some = [0; 600];
            let _ = client.0.read(&mut some);
            client = Client::connect(running);
            continue;
        }
        let Some(response) = answer(&mut client) else {
            // It broke off, as its origin did.
            client = Client::connect(running);
            continue;
        };
        hits.fetch_add(usize::from(response.head.contains("troupe-l1; hit")), Ordering::Relaxed);
        let good = match response.status {
            200 => {
                whole.fetch_add(1, Ordering::Relaxed);
                response.body.len() == length && is_of(&response.body, &name, 0)
            }
            206 => {
                parts.fetch_add(1, Ordering::Relaxed);
                ranged && response.body.len() == length - offset && is_of(&response.body, &name, offset)
            }
            304 => response.body.is_empty(),
            _ => false,
        };
        if !good {
            wrong.store(true, Ordering::Relaxed);
            panic!("{name} from {offset}: {} {} bytes\n{}", response.status, response.body.len(), response.head);
        }
    }
}

/// A response, or nothing when the connection ends before it does.
fn answer(client: &mut Client) -> Option<Response> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.response(false))).ok()
}
