//! What a hit costs: `hit ROUNDS` asks for the same answer that often, on one connection; `hit ROUNDS uncached` has it made anew
//! each time, from memory; `hit ROUNDS uncached ROUTES` does so beside that many other routes. `hit ROUNDS miss` asks for another URL each
//! time, which is looked up, fetched and stored.
//!
//! Run it under `valgrind --tool=callgrind` with two ROUNDS and divide the difference: instructions per request, those of
//! this client included, which are the same either way. The test `tests/instructions.rs` does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use troupe_contracts::invoke::{Invoke, Reply, Times};
use troupe_contracts::report::Load;
use troupe_gateway::cache::Cache;
use troupe_gateway::cache::config::{CacheConfig, RouteCache};
use troupe_gateway::config::{GatewayConfig, Listen, RouteConfig};
use troupe_gateway::{Gateway, Options, PortFactory};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::port::{CallFuture, Port, Service};
use troupe_wire::head::ResponseHeadBuilder;

const BODY: &[u8] = &[b'x'; 100];

/// Every request is as long as every other.
fn get(number: usize) -> Vec<u8> {
    format!("GET /shop/hello?{number:08} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n").into_bytes()
}

struct Memory;

impl Service<Invoke> for Memory {
    fn call(&self, _: Envelope<Invoke>) -> CallFuture<Invoke> {
        Box::pin(async {
            let mut builder = ResponseHeadBuilder::default();
            // Both are short and sound, so neither can be refused.
            let _ = builder.field(b"Content-Type", b"application/json");
            let _ = builder.field(b"Cache-Control", b"max-age=3600");
            Ok(Reply {
                head: builder.finish(200),
                load: Load::default(),
                times: Times::default(),
                body: Body::Full(Bytes::from_static(BODY)),
            })
        })
    }
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(1000);
    let mode = arguments.next();
    let (cached, misses) = (mode.as_deref() != Some("uncached"), mode.as_deref() == Some("miss"));
    let others: usize = arguments.next().and_then(|routes| routes.parse().ok()).unwrap_or(0);
    let config = GatewayConfig {
        listen: vec![Listen { address: ([127, 0, 0, 1], 0).into() }],
        access_log: false,
        ..GatewayConfig::default()
    };
    let ports: PortFactory = Arc::new(|_| Port::inline(Rc::new(Memory)));
    let route = |path: String| RouteConfig {
        path,
        functions: Some("default".into()),
        cache: Some(RouteCache::Switch(cached)),
        ..RouteConfig::default()
    };
    // Of the shapes that sites have: pages, sections with a part that varies, and subtrees; all under one prefix with what is asked for.
    let shaped = |number: usize| match number % 3 {
        0 => format!("/shop/page-{number}"),
        1 => format!("/shop/section-{number}/{{function}}"),
        _ => format!("/shop/tree-{number}/{{function*}}"),
    };
    let mut routes = vec![route("/shop/{function*}".into())];
    routes.extend(
        (0..others)
            .map(|number| RouteConfig { function: (number % 3 == 0).then(|| "hello".into()), ..route(shaped(number)) }),
    );
    let options = Options { threads: 1, cache: Cache::new(&CacheConfig::default()), ..Options::default() };
    let running = Gateway::bind(config, &routes, options, ports).expect("a free port");
    let mut client = TcpStream::connect(running.addresses()[0])?;
    let mut answer = [0; 4096];
    for number in 0..=rounds {
        client.write_all(&get(if misses { number } else { 0 }))?;
        let mut filled = 0;
        // The body is the end, and nothing else of the answer ends like it.
        while !answer.get(..filled).is_some_and(|answer| answer.ends_with(BODY)) {
            match client.read(answer.get_mut(filled..).unwrap_or_default())? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
    }
    let says = |text: &str| memchr::memmem::find(&answer, text.as_bytes()).is_some();
    assert_eq!(says("troupe-l1; hit"), cached && !misses, "the last answer is a hit where there is a cache");
    assert_eq!(says("; stored"), misses, "what is asked for the first time is stored");
    Ok(())
}
