//! `troupe workers`: who takes calls, best score first, with what makes up the scores.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;

use super::client::Admin;
use super::table::{columns, list, micros, number, text};
use crate::cli::WorkersArgs;
use crate::failure::CommandError;
use crate::output;

/// How often `-w` looks again.
const EVERY: Duration = Duration::from_secs(2);

pub(super) fn run(args: WorkersArgs) -> Result<(), CommandError> {
    let (as_json, watch) = (args.ask.json, args.watch);
    let admin = Admin::of(args.ask)?;
    loop {
        let workers = admin.get("/api/workers")?;
        if as_json {
            output::json(&workers)?;
        } else {
            let clear = if watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            output::data(&format!("{clear}{}", shown(&workers)))?;
        }
        if !watch {
            return Ok(());
        }
        super::pause(EVERY);
    }
}

/// The table; below it, why a worker takes no calls.
pub(super) fn shown(workers: &Value) -> String {
    let header = ["WORKER", "STATE", "SCORE", "LATENCY", "CALLS", "GAIN", "ERRORS", "BUSY", "WAIT", "MEM", "RESTARTS"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut reasons = String::new();
    for worker in list(workers, "pools").iter().flat_map(|pool| list(pool, "workers")) {
        rows.push(row(worker));
        if text(worker, "state") != "ready" {
            reasons.push_str(&format!("{}: {}\n", text(worker, "name"), text(worker, "reason")));
        }
    }
    if rows.len() == 1 {
        return "there is no worker\n".to_owned();
    }
    columns(&rows) + &reasons
}

fn row(worker: &Value) -> Vec<String> {
    let n = |key: &str| number(worker, key);
    let load = worker.get("load").unwrap_or(&Value::Null);
    let foreign = if n("foreign") > 0.0 { format!("+{}", n("foreign")) } else { String::new() };
    vec![
        text(worker, "name").to_owned(),
        text(worker, "state").to_owned(),
        format!("{:.1}", n("score")),
        micros(n("latency_us")),
        format!("{}{foreign}/{}", n("in_flight"), n("cap")),
        format!("{:.2}", n("gain")),
        format!("{:.1}%", n("error_rate") * 100.0),
        format!("{}/{}", number(load, "busy"), number(load, "processes")),
        format!("{}", number(load, "waiting")),
        format!("{:.0}%", number(load, "memory_permille") / 10.0),
        format!("{}", number(load, "restarts")),
    ]
}
