//! Memory under distinct URLs: `distinct URLS MIB [lru]` asks a gateway whose cache takes MIB for as many different URLs, every one
//! of which is stored, and says by how much the process has grown. Exits with 1 when that is more than a tenth beyond the
//! cache's size.
//!
//! `cargo run --release -p troupe-gateway --example distinct -- 10000000 256`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use troupe_contracts::invoke::{Invoke, Reply, Times};
use troupe_contracts::report::Load;
use troupe_gateway::cache::Cache;
use troupe_gateway::cache::config::{Amount, CacheConfig, L1Config, L1Policy, RouteCache};
use troupe_gateway::config::{GatewayConfig, Listen, RouteConfig};
use troupe_gateway::{Gateway, Options, PortFactory};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::port::{CallFuture, Port, Service};
use troupe_node::units::Size;
use troupe_wire::head::ResponseHeadBuilder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections, each with a thread of its own.
const CLIENTS: usize = 2;
/// Requests that are sent before their answers are read.
const PIPELINED: usize = 16;
/// Requests before the first look at the memory: every table and buffer of the process is there by then.
const WARM_UP: usize = 5_000;
/// The largest body; the smallest is empty.
const LARGEST: usize = 4096;

struct Sized;

impl Service<Invoke> for Sized {
    fn call(&self, envelope: Envelope<Invoke>) -> CallFuture<Invoke> {
        // Sizes differ, as they do: what one leaves behind does not always fit the next.
        let number =
            envelope.call.head.target().bytes().fold(7_usize, |sum, byte| sum * 31 % 65_521 + usize::from(byte));
        Box::pin(async move {
            let mut builder = ResponseHeadBuilder::default();
            // All are short and sound, so none can be refused.
            let _ = builder.field(b"Content-Type", b"text/html; charset=utf-8");
            let _ = builder.field(b"Cache-Control", b"max-age=86400");
            let _ = builder.field(b"ETag", format!("\"{number}\"").as_bytes());
            let body = Body::full(Bytes::from(vec![b'x'; number % LARGEST]));
            Ok(Reply { head: builder.finish(200), load: Load::default(), times: Times::default(), body })
        })
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let urls: usize = arguments.next().and_then(|urls| urls.parse().ok()).unwrap_or(1_000_000);
    let mib: u32 = arguments.next().and_then(|mib| mib.parse().ok()).unwrap_or(256);
    let policy = if arguments.next().is_some() { L1Policy::Lru } else { L1Policy::default() };
    let config = GatewayConfig {
        listen: vec![Listen { address: ([127, 0, 0, 1], 0).into() }],
        access_log: false,
        max_requests_per_connection: u32::MAX,
        ..GatewayConfig::default()
    };
    let ports: PortFactory = Arc::new(|_| Port::inline(Rc::new(Sized)));
    let route = RouteConfig {
        path: "/{function*}".into(),
        functions: Some("default".into()),
        cache: Some(RouteCache::Switch(true)),
        ..RouteConfig::default()
    };
    let l1 = L1Config { size: Amount::Size(Size::from_mib(mib)), policy, ..L1Config::default() };
    let options = Options {
        threads: CLIENTS,
        cache: Cache::new(&CacheConfig { l1, ..CacheConfig::default() }),
        ..Options::default()
    };
    let running = Gateway::bind(config, &[route], options, ports).expect("a free port");
    let address = running.addresses()[0];

    // What is not stored, first: it grows everything but the store.
    ask_all(address, WARM_UP, "Cache-Control: no-store\r\n");
    let before = resident("VmRSS:");
    ask_all(address, urls, "");
    let (after, peak) = (resident("VmRSS:"), resident("VmHWM:"));
    let (grown, at_most) = (after.saturating_sub(before), peak.saturating_sub(before));
    let share = |bytes: u64| bytes as f64 / (f64::from(mib) * f64::from(1 << 20));
    say(&format!(
        "{urls} URLs, a cache of {mib} MiB ({policy:?}): {} MiB before, {} MiB more after ({:.2} of the size), {} MiB at most ({:.2})",
        before >> 20,
        grown >> 20,
        share(grown),
        at_most >> 20,
        share(at_most),
    ));
    if share(at_most) > 1.1 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Asks for `urls` different URLs.
fn ask_all(address: SocketAddr, urls: usize, fields: &str) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || ask(address, (client..urls).step_by(CLIENTS), fields).expect("the gateway answers"));
        }
    });
}

fn ask(address: SocketAddr, mut urls: impl Iterator<Item = usize>, fields: &str) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let (mut input, mut output) = (vec![0; 256 << 10], Vec::new());
    loop {
        output.clear();
        let mut asked = 0;
        for url in urls.by_ref().take(PIPELINED) {
            write!(output, "GET /articles/{url}?page=1 HTTP/1.1\r\nHost: news.example\r\n{fields}\r\n")?;
            asked += 1;
        }
        if asked == 0 {
            return Ok(());
        }
        socket.write_all(&output)?;
        let mut filled = 0;
        while asked > 0 {
            let Some(length) = whole(input.get(..filled).unwrap_or_default()) else {
                match socket.read(input.get_mut(filled..).unwrap_or_default())? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    read => filled += read,
                }
                continue;
            };
            input.copy_within(length..filled, 0);
            filled -= length;
            asked -= 1;
        }
    }
}

/// How long the first answer is, when it is there as a whole.
fn whole(input: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(input, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(input.get(..head)?).expect("an ASCII head");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let length = text.split("content-length: ").nth(1)?.split('\r').next()?.parse::<usize>().ok()?;
    (input.len() >= head + length).then_some(head + length)
}

/// A figure of `/proc/self/status`, in bytes.
fn resident(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[allow(clippy::print_stdout, reason = "what this program is for")]
fn say(line: &str) {
    println!("{line}");
}
