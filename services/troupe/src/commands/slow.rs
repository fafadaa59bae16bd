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
    if as_json { output::json(&slow) } else { output::data(&shown(&slow)) }
}

fn shown(slow: &Value) -> String {
    let requests = list(slow, "requests");
    if requests.is_empty() {
        return "no request in the last quarter of an hour\n".to_owned();
    }
    let mut rows = vec![["TOOK", "STATUS", "AGO", "REQUEST", "MOST OF IT", "ID"].map(str::to_owned).to_vec()];
    rows.extend(requests.iter().map(row));
    columns(&rows)
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
