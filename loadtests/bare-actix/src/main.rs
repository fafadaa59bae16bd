//! The yardstick: actix-web alone, answering one small JSON body from memory.
//!
//! Every ratio that `make bench` prints is against this program, so it is given what Troupe has: the same profile,
//! allocator, thread count, backlog and socket options, a response with as many headers, and no access log.

use std::path::PathBuf;
use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{App, HttpResponse, HttpServer, web};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections the kernel holds until they are accepted; what Troupe's gateway asks for.
const BACKLOG: u32 = 4096;

/// As long as Troupe's, so that idle connections cost both sides the same timer.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

#[derive(Parser)]
#[command(about = "actix-web alone, as the yardstick of make bench")]
struct Arguments {
    /// Port on 127.0.0.1
    #[arg(long)]
    port: u16,
    /// Worker threads
    #[arg(long)]
    threads: usize,
    /// File with the JSON body of every response
    #[arg(long)]
    body: PathBuf,
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let body = web::Bytes::from(std::fs::read(&arguments.body)?);
    HttpServer::new(move || {
        let body = body.clone();
        App::new().route(
            "/hello",
            web::get().to(move || {
                let body = body.clone();
                async move {
                    HttpResponse::Ok()
                        .insert_header((CONTENT_TYPE, "application/json"))
                        .insert_header((CACHE_CONTROL, "no-store"))
                        .insert_header(("x-request-id", "4f1d2c3b5a697887a6b5c4d3e2f10011"))
                        .body(body)
                }
            }),
        )
    })
    .workers(arguments.threads)
    .backlog(BACKLOG)
    .tcp_nodelay(true)
    .keep_alive(KEEP_ALIVE)
    .max_connections(100_000)
    .bind(("127.0.0.1", arguments.port))?
    .run()
    .await
}
