//! Bodies under fire: fills, evictions, purges, ranges, validations and clients that leave, all at once. Whatever comes
//! back is whole, of one version, and of the URL that was asked for.

use std::io::Read as _;
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

/// How long the fire lasts.
const FIRE: Duration = Duration::from_secs(4);
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

#[test]
fn every_body_is_whole_and_of_one_version() {
    let cache = Cache::new(&CacheConfig {
        // Room for a fifth of what there is.
        l1: L1Config { size: Amount::Size(Size::from_kib(512)), max_object: Size::from_kib(64) },
        ..CacheConfig::default()
    })
    .expect("a cache");
    let versions = std::sync::Arc::new(AtomicUsize::new(0));
    let options = Options { threads: 2, cache: Some(std::sync::Arc::clone(&cache)), ..Options::default() };
    let routes = [RouteConfig { cache: Some(RouteCache::Switch(true)), ..any_function() }];
    let running = serve_with(config(), &routes, options, move |envelope| {
        serve_version(envelope, versions.fetch_add(1, Ordering::Relaxed))
    });
    let until = Instant::now() + FIRE;
    let (whole, parts, hits) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (running, whole, parts, hits, wrong) = (&running, &whole, &parts, &hits, &wrong);
            scope.spawn(move || client(running, seed, until, &[whole, parts, hits], wrong));
        }
        let cache = &cache;
        scope.spawn(move || {
            let mut random = fastrand::Rng::with_seed(99);
            while Instant::now() < until {
                let soft = random.bool();
                match random.u8(..) {
                    0..200 => cache.purge(&Selector::Group("fire".into(), None), soft),
                    _ => cache.purge(&Selector::All, soft),
                };
                pause(Duration::from_millis(random.u64(1..30)));
            }
        });
    });
    assert!(!wrong.load(Ordering::Relaxed), "a body was not what was asked for");
    let [whole, parts, hits] = [whole, parts, hits].map(AtomicUsize::into_inner);
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
