//! Strings with a form: the schemas that name the form, and the one place that checks it.
//!
//! The schema carries the form in `format`; the loader checks every such value with [`check`] before serde sees it,
//! so that all mistakes of a file are found at once.

use std::net::{IpAddr, SocketAddr};

use schemars::{Schema, SchemaGenerator, json_schema};
use tracing_subscriber::filter::EnvFilter;

use crate::units::{self, Duration, Percent, Size};

/// The schema of a path; relative ones are taken from the directory of the file that configures them.
pub fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "path" })
}

/// The schema of an address to listen on: `127.0.0.1:8080`, `[::]:8080`.
pub fn socket_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "socket-address" })
}

/// The schema of a list of networks: `10.0.0.0/8`, `::1/128`.
pub fn networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "format": "cidr" } })
}

/// Checks a text against the form that a schema names; forms that are not known here hold no text back.
///
/// # Errors
///
/// Says what is wrong with the text, in lower case, without the key.
pub fn check(format: &str, text: &str) -> Result<(), String> {
    let said = |error: crate::units::UnitError| error.to_string();
    match format {
        "duration" => text.parse::<Duration>().map(drop).map_err(said),
        "size" => text.parse::<Size>().map(drop).map_err(said),
        "percent" => text.parse::<Percent>().map(drop).map_err(said),
        "amount" if text.trim_end().ends_with('%') => text.parse::<Percent>().map(drop).map_err(said),
        "amount" => text.parse::<Size>().map(drop).map_err(said),
        "socket-address" => is_socket_address(text)
            .then_some(())
            .ok_or_else(|| format!("`{text}` is not an address such as \"127.0.0.1:8080\" or \"[::]:8080\"")),
        "mesh-listen" => (text.is_empty() || is_unix(text) || is_socket_address(text))
            .then_some(())
            .ok_or_else(|| format!("`{text}` is not an address such as \"127.0.0.1:7401\" or \"unix:/run/troupe/balancer.sock\"")),
        "mesh-peer" => (is_unix(text) || is_host_and_port(text))
            .then_some(())
            .ok_or_else(|| format!("`{text}` is not a peer such as \"10.0.0.7:7401\", \"balancer:7401\" or \"unix:/run/troupe/balancer.sock\"")),
        "host-and-port" => is_host_and_port(text)
            .then_some(())
            .ok_or_else(|| format!("`{text}` is not a server such as \"10.0.0.7:8000\" or \"server-1:8000\"")),
        "cidr" => is_network(text)
            .then_some(())
            .ok_or_else(|| format!("`{text}` is not a network such as \"10.0.0.0/8\" or \"::1/128\"")),
        "log-filter" => log_filter(text),
        _ => Ok(()),
    }
}

/// The log's own parser takes a misspelt level for the name of a target, so levels are looked at first.
fn log_filter(text: &str) -> Result<(), String> {
    for part in text.split(',') {
        let level = part.rsplit('=').next().unwrap_or(part).trim();
        if !LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)) {
            return Err(format!("`{level}` is not a level; levels are {}", LEVELS.join(", ")));
        }
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("`{text}` is not understood: {error}")),
    }
}

/// The levels of logging, least talkative first.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What a string of this form is called in a message.
#[must_use]
pub fn form(format: &str) -> &'static str {
    match format {
        "duration" => units::DURATION_FORM,
        "size" => units::SIZE_FORM,
        "percent" => units::PERCENT_FORM,
        "amount" => "a size such as \"256MiB\" or a share such as \"60%\"",
        "path" => "a path",
        "socket-address" | "mesh-listen" | "mesh-peer" | "host-and-port" => "an address",
        "redis-url" => "a URL",
        "cidr" => "a network",
        _ => "a string",
    }
}

fn is_socket_address(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
}

fn is_unix(text: &str) -> bool {
    text.strip_prefix("unix:").is_some_and(|path| path.starts_with('/'))
}

fn is_host_and_port(text: &str) -> bool {
    if is_socket_address(text) {
        return true;
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let named = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    named && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_network(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
        (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
        (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
        _ => false,
    }
}
