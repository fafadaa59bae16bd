//! `troupe explain METHOD URL`: what would be done with a request. Nothing is sent.

use serde_json::Value;
use troupe_gateway::explain::explain;
use troupe_gateway::router::{OwnPages, RouteTable};

use super::answer::{list, number, text};
use super::client::{Admin, encoded};
use super::table::micros;
use crate::cli::ExplainArgs;
use crate::config;
use crate::failure::{Code, CommandError};
use crate::output;
use crate::stack::face;

pub(super) fn run(args: ExplainArgs) -> Result<(), CommandError> {
    let as_json = args.ask.json;
    let (host, target) = parts(&args.url, args.host.as_deref())?;
    let method = args.method.to_ascii_uppercase();
    let explained = if args.offline {
        offline(args, &method, &host, &target)?
    } else {
        let named = args.ask.admin.is_some();
        let path =
            format!("/api/explain?method={}&host={}&target={}", encoded(&method), encoded(&host), encoded(&target));
        match Admin::of(args.ask.clone())?.get(&path) {
            Ok(explained) => explained,
            // Whoever names a Troupe wants that one's word.
            Err(error) if error.code == Code::Unavailable && !named => {
                output::say(&format!("{error}\nexplained by the configuration alone:\n"));
                offline(args, &method, &host, &target)?
            }
            Err(error) => return Err(error),
        }
    };
    if as_json { output::json(&explained) } else { output::data(&shown(&explained)) }
}

fn offline(args: ExplainArgs, method: &str, host: &str, target: &str) -> Result<Value, CommandError> {
    let loaded = config::load(&args.ask.config.into_sources())?;
    let config = &loaded.config;
    let table = RouteTable::build(&config.routes, OwnPages::of(&config.gateway))
        .map_err(|problems| CommandError::failed(format!("{} routes do not fit together", problems.len())))?;
    let explained = explain(&table, OwnPages::of(&config.gateway), method, host, target);
    Ok(face::explained(&explained, config))
}

/// Host and target: of a URL, or of a path and `--host`.
fn parts(url: &str, host: Option<&str>) -> Result<(String, String), CommandError> {
    let (of_url, target) = match url.split_once("://") {
        Some((_, rest)) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, target) = rest.split_at(at);
            (Some(authority), if target.starts_with('/') { target.to_owned() } else { format!("/{target}") })
        }
        None if url.starts_with('/') => (None, url.to_owned()),
        None => {
            let why = format!("{url} is neither a URL nor a path: write http://host/path, or /path with --host");
            return Err(CommandError::new(Code::Usage, why));
        }
    };
    Ok((host.or(of_url).unwrap_or("localhost").to_owned(), target))
}

fn shown(explained: &Value) -> String {
    let mut lines = String::new();
    let mut line = |name: &str, said: &str| lines.push_str(&format!("{name:<10} {said}\n"));
    line(
        "request",
        &format!("{} {} on {}", text(explained, "method"), text(explained, "path"), text(explained, "host")),
    );
    let normal = text(explained, "normal_path");
    if !normal.is_empty() && normal != text(explained, "path") {
        line("path", &format!("{normal} in its normal form"));
    }
    match explained.get("status").and_then(Value::as_u64) {
        Some(status) => line("answer", &format!("{status}: {}", text(explained, "why"))),
        None => line("route", text(explained, "why")),
    }
    let Some(route) = explained.get("route").filter(|route| route.is_object()) else { return lines };
    let methods = match route.get("methods") {
        Some(Value::Array(methods)) => methods.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        _ => "all".to_owned(),
    };
    line("", &format!("route[{}], methods: {methods}", number(route, "index")));
    line("pool", text(route, "pool"));
    for (name, key) in [("function", "function"), ("path info", "path_info")] {
        if !text(route, key).is_empty() {
            line(name, text(route, key));
        }
    }
    if let Some(cache) = route.get("cache") {
        line("cache", text(cache, "rule"));
        if !text(cache, "key").is_empty() {
            line("cache key", text(cache, "key"));
        }
    }
    if let Some(limits) = explained.get("limits") {
        let body = if route.get("streaming") == Some(&Value::Bool(true)) { "as they arrive" } else { "when complete" };
        line(
            "limits",
            &format!(
                "{} to the first byte, bodies up to {}, handed over {body}",
                text(limits, "request_timeout"),
                text(limits, "max_body")
            ),
        );
        if !text(limits, "php_timeout").is_empty() {
            let processes = limits.get("processes").unwrap_or(&Value::Null);
            let (min, max) = (number(processes, "min"), number(processes, "max"));
            line("", &format!("{} in PHP, {min} to {max} processes", text(limits, "php_timeout")));
        }
        if !text(limits, "first_byte").is_empty() {
            let (first_byte, most) = (text(limits, "first_byte"), number(limits, "max_connections"));
            line("", &format!("{first_byte} for the server, {most} connections to each"));
        }
        if !text(limits, "tunnel").is_empty() {
            line(
                "",
                &format!("a WebSocket handshake opens a tunnel, which may be silent for {}", text(limits, "tunnel")),
            );
        }
        if let Some(queue) = limits.get("queue") {
            let (wait, most) = (text(queue, "wait"), number(queue, "max"));
            line("", &format!("when all are busy: {most} calls may wait, {wait} each"));
        }
    }
    if let Some(pick) = explained.get("pick") {
        match text(pick, "worker") {
            "" => line("worker", text(pick, "why")),
            worker => line("worker", &format!("{worker}: {}", text(pick, "why"))),
        }
        for one in list(pick, "candidates") {
            let said = format!(
                "{}  score {:.1}, latency {}, {} of {} calls, gain {:.2}",
                text(one, "worker"),
                number(one, "score"),
                micros(number(one, "latency_us")),
                number(one, "in_flight"),
                number(one, "cap"),
                number(one, "gain"),
            );
            line("", &said);
        }
        if number(pick, "more") > 0.0 {
            line("", &format!("and {} more", number(pick, "more")));
        }
        if !text(pick, "balancer").is_empty() {
            line("", &format!("says the balancer {}; others may see it differently", text(pick, "balancer")));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_host_wins() {
        let parts = |url: &str, host| parts(url, host).unwrap();
        let own = |host: &str, target: &str| (host.to_owned(), target.to_owned());
        assert_eq!(parts("http://a.example:81/x?y=1", None), own("a.example:81", "/x?y=1"));
        assert_eq!(parts("https://a.example", Some("b.example")), own("b.example", "/"));
        assert_eq!(parts("https://a.example?x", None), own("a.example", "/?x"));
        assert_eq!(parts("/x", None), own("localhost", "/x"));
        assert_eq!(super::parts("x", None).unwrap_err().code, Code::Usage);
    }
}
