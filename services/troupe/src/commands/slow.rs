//! `troupe slow`: the slowest requests of the last quarter of an hour, and where their time went.

use serde_json::Value;

use super::client::Admin;
use super::table::{columns, list, micros, number, text, uptime};
use crate::cli::SlowArgs;
use crate::failure::CommandError;
use crate::output;

/// A longer request line is cut.
const WIDEST: usize = 44;

pub(super) fn run(args: SlowArgs) -> Result<(), CommandError> {
    let as_json = args.ask.json;
    let slow = Admin::of(args.ask)?.get(&format!("/api/slow?most={}", args.most))?;
    match (as_json, args.spans) {
        (true, _) => output::json(&slow),
        (false, true) => output::data(&shown_as_spans(&slow)),
        (false, false) => output::data(&shown(&slow)),
    }
}

const NONE: &str = "no request in the last quarter of an hour\n";

fn shown(slow: &Value) -> String {
    let requests = list(slow, "requests");
    if requests.is_empty() {
        return NONE.to_owned();
    }
    let mut rows = vec![["TOOK", "STATUS", "AGO", "REQUEST", "MOST OF IT", "ID"].map(str::to_owned).to_vec()];
    rows.extend(requests.iter().map(row));
    columns(&rows)
}

/// Each request with its stages below, a stage further to the right than the one that it is a part of.
fn shown_as_spans(slow: &Value) -> String {
    let requests = list(slow, "requests");
    if requests.is_empty() {
        return NONE.to_owned();
    }
    let mut lines = String::new();
    for request in requests {
        let failed = match text(request, "failed") {
            "" => String::new(),
            stage => format!(", failed in {stage}"),
        };
        lines.push_str(&format!(
            "{} {}  {}{failed}, {} ago\nrequest {}  trace {}\n",
            text(request, "method"),
            text(request, "path"),
            number(request, "status"),
            uptime(number(request, "seconds_ago")),
            text(request, "request_id"),
            text(request, "trace_id"),
        ));
        let mut depths: Vec<(&str, usize)> = Vec::new();
        for span in list(request, "spans") {
            let parent = depths.iter().find(|(id, _)| *id == text(span, "parent_span_id"));
            let depth = parent.map_or(0, |(_, depth)| depth + 1);
            depths.push((text(span, "span_id"), depth));
            let start = match number(span, "start_us") {
                0.0 => "0us".to_owned(),
                start => micros(start),
            };
            let (name, took) = (text(span, "name"), micros(number(span, "us")));
            lines.push_str(&format!("{start:>8} {took:>8}  {:indent$}{name}\n", "", indent = 2 * depth));
        }
        lines.push('\n');
    }
    lines
}

fn row(request: &Value) -> Vec<String> {
    let line = format!("{} {}", text(request, "method"), text(request, "path"));
    let line = match line.char_indices().nth(WIDEST) {
        Some((at, _)) => format!("{}...", line.get(..at).unwrap_or(&line)),
        None => line,
    };
    // The three stages that took longest say enough; `--json` has all.
    let mut stages: Vec<(&str, f64)> =
        list(request, "stages").iter().map(|stage| (text(stage, "stage"), number(stage, "us"))).collect();
    stages.sort_by(|one, other| other.1.total_cmp(&one.1));
    let mut most: Vec<String> = stages.iter().take(3).map(|(stage, us)| format!("{stage} {}", micros(*us))).collect();
    if !text(request, "failed").is_empty() {
        most.insert(0, format!("failed in {}", text(request, "failed")));
    }
    vec![
        micros(number(request, "took_us")),
        format!("{}", number(request, "status")),
        uptime(number(request, "seconds_ago")),
        line,
        most.join(", "),
        text(request, "request_id").to_owned(),
    ]
}
