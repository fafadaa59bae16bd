//! `troupe health`: is a running Troupe ready? Small enough for a container's health check each second: no runtime, one
//! connection, one request.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::cli::HealthArgs;
use crate::config;
use crate::failure::{Code, CommandError};
use crate::output;

/// Docker's own patience with a health check is 30 s; what does not answer in two is not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// Of the answer only the beginning is read; it names what is not ready.
const MAX_ANSWER: u64 = 16 << 10;

/// What a Troupe answered.
struct Answer {
    status: u16,
    body: String,
}

pub(super) fn run(args: HealthArgs) -> Result<(), CommandError> {
    let services = args.services.services();
    let (authority, token) = match (args.admin, args.token_file) {
        // A configuration that is broken by now is no reason to call what runs unhealthy.
        (Some(url), token_file) => (authority(&url)?, token_file.map(|path| token(&path)).transpose()?),
        (None, token_file) => {
            let loaded = config::load(&args.config.into_sources())?;
            let configured = Some(&loaded.config.admin.token_file).filter(|path| !path.as_os_str().is_empty());
            let token_file = token_file.or_else(|| configured.cloned());
            let address = reachable(config::admin_address(&loaded, services));
            (address.to_string(), token_file.map(|path| token(&path)).transpose()?)
        }
    };
    let answer = ask(&authority, token.as_deref())
        .map_err(|error| CommandError::new(Code::Unavailable, format!("{authority} does not answer: {error}")))?;
    let ready = answer.status == 200;
    if args.json {
        output::json(&json!({ "ready": ready, "status": answer.status, "admin": authority, "answer": answer.body }))?;
    }
    match (ready, args.json) {
        (true, true) => Ok(()),
        (true, false) => output::data("ready\n"),
        (false, _) => {
            let said = answer.body.trim();
            let colon = if said.is_empty() { "" } else { ": " };
            Err(CommandError::new(Code::Unavailable, format!("not ready (status {}){colon}{said}", answer.status)))
        }
    }
}

fn ask(authority: &str, token: Option<&str>) -> std::io::Result<Answer> {
    let invalid = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let mut last = invalid("the name has no address");
    for address in authority.to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!("GET /readyz HTTP/1.1\r\nhost: {authority}\r\n{bearer}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| invalid("the answer is not HTTP"))?;
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| invalid("the answer is not HTTP"))?;
        return Ok(Answer { status, body: body.to_owned() });
    }
    Err(last)
}

/// The host and port of a URL.
fn authority(url: &str) -> Result<String, CommandError> {
    let wrong = |why: &str| CommandError::new(Code::Configuration, format!("--admin {url}: {why}"));
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return Err(wrong("only http:// is spoken here")),
        None => url,
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    let port = authority.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(_)) => Ok(authority.to_owned()),
        _ => Err(wrong("no port; write http://127.0.0.1:9090")),
    }
}

/// Where a listener on all addresses is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn token(path: &Path) -> Result<String, CommandError> {
    let wrong =
        |why: String| CommandError::new(Code::Configuration, format!("the token file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let token = text.trim();
    let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then(|| token.to_owned()).ok_or_else(|| wrong("is empty, or holds more than one word".to_owned()))
}
