//! Asking a running Troupe by its admin listener: one connection, one request, no runtime.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use troupe_node::admin::GUARD_HEADER;

use crate::cli::AskArgs;
use crate::config;
use crate::failure::{Code, CommandError};

/// What does not answer in two seconds is not there.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Replacing every process of every pool takes its time.
pub(super) const LONG_PATIENCE: Duration = Duration::from_secs(300);
/// The most that is read of an answer: a thousand workers take one.
const MAX_ANSWER: u64 = 16 << 20;

/// An admin listener, and what it is asked with.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    authority: String,
    token: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Admin {
    /// The one that is named, else the configuration's.
    pub(super) fn of(args: AskArgs) -> Result<Self, CommandError> {
        let services = args.services.services();
        match (args.admin, args.token_file) {
            // A configuration that is broken by now is no reason not to ask what runs.
            (Some(url), token_file) => {
                let token = token_file.map(|path| token(&path)).transpose()?;
                Ok(Self { authority: authority(&url)?, token })
            }
            (None, token_file) => {
                let loaded = config::load(&args.config.into_sources())?;
                let configured = Some(&loaded.config.admin.token_file).filter(|path| !path.as_os_str().is_empty());
                let token_file = token_file.or_else(|| configured.cloned());
                let token = token_file.map(|path| token(&path)).transpose()?;
                Ok(Self { authority: reachable(config::admin_address(&loaded, services)).to_string(), token })
            }
        }
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Reads JSON.
    pub(super) fn get(&self, path: &str) -> Result<Value, CommandError> {
        self.json("GET", path, PATIENCE)
    }

    /// Has something changed, which may take as long as `patience`.
    pub(super) fn post(&self, path: &str, patience: Duration) -> Result<Value, CommandError> {
        self.json("POST", path, patience)
    }

    fn json(&self, method: &str, path: &str, patience: Duration) -> Result<Value, CommandError> {
        let answer = self.ask(method, path, patience)?;
        let read = serde_json::from_str::<Value>(&answer.body);
        if answer.status == 200 {
            return read.map_err(|_| {
                CommandError::failed(format!("{} answers, but not as a Troupe of this version does", self.authority))
            });
        }
        let problem = read.unwrap_or(Value::Null);
        let detail = match problem.get("detail").and_then(Value::as_str) {
            // Admin listeners know no stages.
            Some(detail) if problem.get("stage").is_some() => {
                format!("this is where a gateway takes requests, and no admin listener: {detail}")
            }
            Some(detail) => detail.to_owned(),
            None => format!("status {}; is it an admin listener?", answer.status),
        };
        let code = match answer.status {
            401 | 403 => Code::Configuration,
            429 => Code::TryAgain,
            503 => Code::Unavailable,
            _ => Code::Failed,
        };
        let hint = if answer.status == 401 { ": name its file with --token-file" } else { "" };
        Err(CommandError::new(code, format!("{}: {detail}{hint}", self.authority)))
    }

    /// One request. Whatever its status, an answer is one.
    pub(super) fn ask(&self, method: &str, path: &str, patience: Duration) -> Result<Answer, CommandError> {
        self.send(method, path, patience).map_err(|why| CommandError::new(Code::Unavailable, why))
    }

    fn send(&self, method: &str, path: &str, patience: Duration) -> Result<Answer, String> {
        let authority = &self.authority;
        let hint = "is it running? start it with `troupe run`, or name its admin listener: --admin http://HOST:PORT";
        let addresses = authority.to_socket_addrs().map_err(|_| {
            format!(
                "{authority} is not known here: the name has no address. Is it spelled right, and is the service up?"
            )
        })?;
        let mut stream = None;
        let mut last = String::new();
        for address in addresses {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(connected) => {
                    stream = Some(connected);
                    break;
                }
                Err(error) => last = error.to_string(),
            }
        }
        let Some(mut stream) = stream else {
            return Err(format!("nothing answers at {authority} ({last}); {hint}"));
        };
        let bearer = self.token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        let guard = match method {
            "GET" => String::new(),
            _ => format!("{GUARD_HEADER}: 1\r\ncontent-length: 0\r\n"),
        };
        // A name that is not this machine's is only believed with a token; without one the address is as good.
        let host = match (&self.token, stream.peer_addr()) {
            (None, Ok(peer)) => peer.to_string(),
            _ => authority.clone(),
        };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{bearer}{guard}connection: close\r\n\r\n");
        let mut bytes = Vec::new();
        let asked = stream
            .set_read_timeout(Some(patience))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .and_then(|()| stream.write_all(request.as_bytes()))
            .and_then(|()| stream.take(MAX_ANSWER).read_to_end(&mut bytes));
        if let Err(error) = asked {
            return Err(format!(
                "{authority} takes the connection but does not answer ({error}); is it an admin listener?"
            ));
        }
        let text = String::from_utf8_lossy(&bytes);
        let not_http = || format!("{authority} does not speak HTTP; is it an admin listener?");
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(not_http)?;
        let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        Ok(Answer { status: status.ok_or_else(not_http)?, body: body.to_owned() })
    }
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

/// A value as a part of a query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_hosts_and_ports() {
        for (url, expected) in [
            ("http://127.0.0.1:9090", "127.0.0.1:9090"),
            ("balancer:9091", "balancer:9091"),
            ("http://[::1]:9090/x", "[::1]:9090"),
        ] {
            assert_eq!(authority(url).unwrap(), expected);
        }
        for url in ["https://x:1", "http://x", "x", "x:port"] {
            assert_eq!(authority(url).unwrap_err().code, Code::Configuration, "{url}");
        }
    }

    #[test]
    fn what_is_asked_for_cannot_leave_its_place_in_the_query() {
        assert_eq!(encoded("a/b c&d=e\r\n%é"), "a%2Fb%20c%26d%3De%0D%0A%25%C3%A9");
    }
}
