//! Load at a fixed rate: requests fall due on a schedule, whether or not the server keeps up.
//!
//! A closed-loop generator such as wrk sends the next request when the answer to the last one has come, so a server
//! that stalls is asked less while it stalls, and the stall hides from the percentiles. Here the latency of a request
//! counts from the moment it fell due, the wait for a free connection included. Prints one line of JSON.

mod connection;
mod generator;

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;

use crate::generator::{Outcome, Plan};

#[derive(Parser)]
#[command(about = "HTTP/1.1 load at a fixed rate; latencies count from when a request fell due")]
struct Arguments {
    /// The server's name or address
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Its port
    #[arg(long)]
    port: u16,
    /// Path to get
    #[arg(long)]
    path: String,
    /// File with the body that each response must carry
    #[arg(long)]
    body: PathBuf,
    /// Requests a second, over all threads
    #[arg(long)]
    rate: u32,
    /// Connections, over all threads
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Measured seconds
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Seconds of the same load before, which are not counted
    #[arg(long, default_value_t = 1)]
    warm_up: u32,
    /// Threads that generate
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(report) => match writeln!(std::io::stdout(), "{report}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            // There is nobody left to tell when this fails too.
            drop(writeln!(std::io::stderr(), "open-loop: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> std::io::Result<String> {
    let threads = arguments.threads.max(1);
    let Arguments { host, port, path, .. } = arguments;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    let plan = Arc::new(Plan {
        address: resolve(host, *port)?,
        request: request.into_bytes(),
        body: std::fs::read(&arguments.body)?,
        connections: (arguments.connections / threads).max(1),
        interval: Duration::from_secs(1) * u32::try_from(threads).unwrap_or(1) / arguments.rate.max(1),
        warm_up: Duration::from_secs(arguments.warm_up.into()),
        measured: Duration::from_secs(arguments.seconds.into()),
    });
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let plan = Arc::clone(&plan);
            std::thread::spawn(move || generator::run(&plan))
        })
        .collect();
    let mut total = Outcome::default();
    for thread in running {
        let outcome = thread.join().map_err(|_| std::io::Error::other("a generating thread panicked"))??;
        total.add(outcome);
    }
    Ok(report(arguments, total))
}

/// The first address of a name.
fn resolve(host: &str, port: u16) -> std::io::Result<SocketAddr> {
    let mut found = (host, port).to_socket_addrs()?;
    found.next().ok_or_else(|| std::io::Error::other(format!("{host} has no address")))
}

fn report(arguments: &Arguments, mut total: Outcome) -> String {
    total.latencies.sort_unstable();
    total.lateness.sort_unstable();
    let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(|share| percentile(&total.latencies, share));
    format!(
        concat!(
            r#"{{"rate":{},"seconds":{},"connections":{},"requests":{},"errors":{},"unfinished":{},"#,
            r#""latency_us":{{"p50":{},"p90":{},"p99":{},"p999":{},"max":{}}},"generator_late_us_p99":{}}}"#
        ),
        arguments.rate,
        arguments.seconds,
        arguments.connections,
        total.latencies.len(),
        total.errors,
        total.unfinished,
        p50,
        p90,
        p99,
        p999,
        max,
        percentile(&total.lateness, 0.99),
    )
}

/// The value that `share` of the sorted values do not exceed; 0 without values.
fn percentile(sorted: &[u32], share: f64) -> u32 {
    // Counts stay far below 2^52 and shares within 0..=1: the float is exact enough and never negative.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_ranks() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&values, 0.5), 50);
        assert_eq!(percentile(&values, 0.99), 99);
        assert_eq!(percentile(&values, 1.0), 100);
        assert_eq!(percentile(&[], 0.5), 0);
    }
}
