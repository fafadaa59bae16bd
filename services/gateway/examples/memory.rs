//! The gateway alone: every call is answered from memory. What it costs beside bare actix-web is the front's own price.
//!
//! `cargo run --release -p troupe-gateway --example memory -- 8090 2 [log]`

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use troupe_contracts::invoke::{Invoke, Reply, Times};
use troupe_contracts::report::Load;
use troupe_gateway::config::{GatewayConfig, Listen, RouteConfig};
use troupe_gateway::{Gateway, Options, PortFactory};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::port::{CallFuture, Port, Service};
use troupe_wire::head::ResponseHeadBuilder;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Memory(Bytes);

impl Service<Invoke> for Memory {
    fn call(&self, _: Envelope<Invoke>) -> CallFuture<Invoke> {
        let body = self.0.clone();
        Box::pin(async move {
            let mut builder = ResponseHeadBuilder::default();
            // Both are short and sound, so neither can be refused.
            let _ = builder.field(b"Content-Type", b"application/json");
            let _ = builder.field(b"Cache-Control", b"no-store");
            Ok(Reply {
                head: builder.finish(200),
                load: Load::default(),
                times: Times::default(),
                body: Body::Full(body),
            })
        })
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|port| port.parse().ok()).unwrap_or(8090);
    let threads = arguments.next().and_then(|threads| threads.parse().ok()).unwrap_or(2);
    let access_log = arguments.next().is_some();
    let config = GatewayConfig {
        listen: vec![Listen { address: ([127, 0, 0, 1], port).into() }],
        access_log,
        ..GatewayConfig::default()
    };
    let body = Bytes::from(format!("{{\"message\":\"hello\",\"padding\":\"{}\"}}", "x".repeat(66)));
    let ports: PortFactory = Arc::new(move |_| Port::inline(Rc::new(Memory(body.clone()))));
    let route =
        RouteConfig { path: "/{function*}".into(), functions: Some("default".into()), ..RouteConfig::default() };
    let options = Options { threads, ..Options::default() };
    let _running = Gateway::bind(config, &[route], options, ports).expect("the port is free");
    loop {
        std::thread::park();
    }
}
