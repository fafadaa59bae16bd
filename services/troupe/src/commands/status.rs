//! `troupe status`: what a running Troupe is, does, and lacks.

use serde_json::Value;
use troupe_contracts::invoke::UPSTREAM;

use super::answer::{list, number, php, text};
use super::client::Admin;
use super::table::micros;
use crate::cli::AskArgs;
use crate::failure::CommandError;
use crate::output;
use troupe_node::figures;

pub(super) fn run(args: AskArgs) -> Result<(), CommandError> {
    let as_json = args.json;
    let status = Admin::of(args)?.get("/api/status")?;
    if as_json { output::json(&status) } else { output::data(&shown(&status)) }
}

fn shown(status: &Value) -> String {
    let readiness = status.get("readiness").unwrap_or(&Value::Null);
    let yes = |key: &str| readiness.get(key) == Some(&Value::Bool(true));
    let state = match (yes("ready"), yes("draining"), yes("started")) {
        (true, ..) => "ready",
        (false, true, _) => "draining",
        (false, false, false) => "starting",
        (false, false, true) => "not ready",
    };
    let mut lines = format!(
        "{} {} {}, up {}, {state}\n",
        text(status, "service"),
        text(status, "version"),
        text(status, "instance"),
        figures::span(number(status, "uptime_seconds") as u64),
    );
    let mut line = |name: &str, said: String| lines.push_str(&format!("{name:<9} {said}\n"));
    if let Some(gateway) = status.get("gateway") {
        line("gateway", self::gateway(gateway));
    }
    for pool in list(status, "pools") {
        line("pool", self::pool(pool));
    }
    for php in list(status, "php") {
        let (functions, condition) = (list(php, "functions").len(), text(php, "condition"));
        line("php", format!("{}: {condition}, {functions} functions", text(php, "pool")));
    }
    for link in list(status, "links") {
        let (service, instance, address) = (text(link, "service"), text(link, "instance"), text(link, "address"));
        let (threads, s) = (number(link, "threads"), if number(link, "threads") == 1.0 { "" } else { "s" });
        line("link", format!("to {service} {instance} at {address}, from {threads} thread{s}"));
    }
    if let Some(process) = status.get("process") {
        let (php_resident, php_cpu) = (php(status, "resident_bytes"), php(status, "cpu_seconds"));
        let of_php = |part: String| if php_resident > 0.0 { format!(" (PHP {part})") } else { String::new() };
        line(
            "process",
            format!(
                "{} resident{}, {:.1} s of cpu{}, {} threads, {} descriptors of {}",
                figures::bytes(number(process, "resident_bytes") + php_resident),
                of_php(figures::bytes(php_resident)),
                number(process, "cpu_seconds") + php_cpu,
                of_php(format!("{php_cpu:.1} s")),
                number(process, "threads"),
                number(process, "descriptors"),
                number(process, "max_descriptors"),
            ),
        );
    }
    let problems = list(status, "problems");
    if problems.is_empty() {
        line("problems", "none".to_owned());
    }
    for problem in problems.iter().filter_map(Value::as_str) {
        line("problem", problem.to_owned());
    }
    lines
}

fn gateway(gateway: &Value) -> String {
    let ms = |key: &str| micros(number(gateway, key) * 1_000.0);
    format!(
        "{:.1} requests/s, {:.1} errors/s, p50 {}, p95 {}, p99 {}; {} in flight, {} connections, {} of them tunnels; {} requests so far",
        number(gateway, "per_second"),
        number(gateway, "errors_per_second"),
        ms("p50_ms"),
        ms("p95_ms"),
        ms("p99_ms"),
        number(gateway, "in_flight"),
        number(gateway, "connections"),
        number(gateway, "tunnels"),
        number(gateway, "requests"),
    )
}

fn pool(pool: &Value) -> String {
    let n = |key: &str| number(pool, key);
    let name = text(pool, "pool");
    // What Troupe did not start has no processes that it knows of.
    let (busy, restarts) = match name.starts_with(UPSTREAM) {
        true => (String::new(), String::new()),
        false => {
            (format!("{} of {} processes busy, ", n("busy"), n("processes")), format!(", {} restarts", n("restarts")))
        }
    };
    let mut said = format!(
        "{name}: {} of {} workers ready, {} of {} slots in use, {busy}{} waiting, median {}{restarts}",
        n("ready"),
        n("workers"),
        n("in_flight"),
        n("slots"),
        n("waiting"),
        micros(n("median_ms") * 1_000.0),
    );
    for (key, what) in [("ejected", "out"), ("draining", "draining")] {
        if n(key) > 0.0 {
            said.push_str(&format!(", {} {what}", n(key)));
        }
    }
    said
}
