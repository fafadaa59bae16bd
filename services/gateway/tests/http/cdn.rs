//! What a content delivery network is told, by a server that stands in for one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use troupe_cache::store::Selector;
use troupe_gateway::cache::cdn::Cdn;
use troupe_gateway::cache::config::{CdnConfig, CdnPreset};

use crate::support::*;

/// A network that answers with these statuses, one after the other, and then with 200; what it is told comes out behind.
fn network(statuses: &'static [u16]) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let (told, told_here) = channel();
    std::thread::spawn(move || {
        let mut statuses = statuses.iter();
        for socket in listener.incoming() {
            let mut socket = socket.expect("a connection");
            socket.set_read_timeout(Some(PATIENCE)).expect("sets a timeout");
            let (mut text, mut piece) = (Vec::new(), [0; 4096]);
            while !is_whole(&text) {
                match socket.read(&mut piece) {
                    Ok(read) if read > 0 => text.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            let status = statuses.next().unwrap_or(&200);
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
            let _ = socket.write_all(answer.as_bytes());
            if told.send(String::from_utf8_lossy(&text).into_owned()).is_err() {
                return;
            }
        }
    });
    (address, told_here)
}

fn is_whole(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    length.and_then(|length| length.trim().parse::<usize>().ok()).is_none_or(|length| body.len() >= length)
}

fn cloudflare(address: SocketAddr, token: &std::path::Path) -> CdnConfig {
    CdnConfig {
        preset: CdnPreset::Cloudflare,
        zone: "zone-1".into(),
        token_file: token.into(),
        url: format!("http://{address}/client/v4/zones/{{zone}}/purge_cache"),
        ..CdnConfig::default()
    }
}

#[test]
fn the_network_is_told_of_a_purge_until_it_hears() {
    let mut token = tempfile::NamedTempFile::new().expect("a file");
    writeln!(token, "secret").expect("writes");
    let (address, told) = network(&[503, 429]);
    let cdn = Cdn::start(&cloudflare(address, token.path())).expect("starts").expect("is configured");
    let start = Instant::now();
    cdn.tell(&Selector::Group("news".into(), None));
    cdn.tell(&Selector::All);
    assert!(start.elapsed() < Duration::from_secs(1), "a purge waits for the network");
    let calls: Vec<String> = (0..4).map(|_| told.recv_timeout(PATIENCE).expect("a call")).collect();
    for call in &calls[..3] {
        assert!(call.starts_with("POST /client/v4/zones/zone-1/purge_cache HTTP/1.1\r\n"), "{call}");
        assert!(call.to_ascii_lowercase().contains("\r\nauthorization: bearer secret\r\n"), "{call}");
        assert!(call.ends_with(r#"{"tags":["news"]}"#), "{call}");
    }
    assert!(calls[3].ends_with(r#"{"purge_everything":true}"#), "in their order: {}", calls[3]);
}

#[test]
fn a_refusal_is_not_repeated_and_holds_nothing_up() {
    let (address, told) = network(&[403]);
    let token = tempfile::NamedTempFile::new().expect("a file");
    let cdn = Cdn::start(&cloudflare(address, token.path())).expect("starts").expect("is configured");
    cdn.tell(&Selector::Host("a.example".into()));
    cdn.tell(&Selector::Host("b.example".into()));
    let calls: Vec<String> = (0..2).map(|_| told.recv_timeout(PATIENCE).expect("a call")).collect();
    assert!(calls[0].contains("a.example") && calls[1].contains("b.example"), "{calls:?}");
}

/// Nobody answers, and more is purged than is remembered: no purge waits.
#[test]
fn a_network_that_is_away_costs_no_purge_its_time() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let token = tempfile::NamedTempFile::new().expect("a file");
    let config = cloudflare(listener.local_addr().expect("an address"), token.path());
    let cdn = Cdn::start(&config).expect("starts").expect("is configured");
    let start = Instant::now();
    for _ in 0..5000 {
        cdn.tell(&Selector::All);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
