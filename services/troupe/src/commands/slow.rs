//! `troupe slow`: the slowest requests of the last quarter of an hour, and where their time went.

use serde_json::Value;

use super::answer::{list, number, text};
use super::client::Admin;
use super::table::{columns, cut, micros, room, shortened, widest};
use crate::cli::SlowArgs;
use crate::failure::CommandError;
use crate::output;
use troupe_node::figures;

/// A longer request line is cut.
const WIDEST: usize = 44;
/// Characters of a request line that stay, however narrow the terminal.
const SHORTEST: usize = 16;
/// Characters that are kept for the stages where a request line is shortened.
const STAGES: usize = 32;

pub(super) fn run(args: SlowArgs) -> Result<(), CommandError> {
    let as_json = args.ask.json;
    let slow = Admin::of(args.ask)?.get(&format!("/api/slow?most={}", args.most))?;
    match (as_json, args.spans) {
        (true, _) => output::json(&slow),
        (false, true) => output::data(&shown_as_spans(&slow)),
        (false, false) => output::data(&fitting(&slow, room())),
    }
}

const NONE: &str = "no request in the last quarter of an hour\n";

/// The table in so many columns: where it is wider, it does without the ids, and ends a line with a mark.
fn fitting(slow: &Value, width: usize) -> String {
    let requests = list(slow, "requests");
    if requests.is_empty() {
        return NONE.to_owned();
    }
    let mut rows = vec![["TOOK", "STATUS", "AGO", "REQUEST", "MOST OF IT", "ID"].map(str::to_owned).to_vec()];
    rows.extend(requests.iter().map(row));
    let whole = columns(&rows);
    if widest(&whole) <= width {
        return whole;
    }
    let before: usize =
        (0..REQUEST).filter_map(|column| rows.iter().filter_map(|row| row.get(column)).map(String::len).max()).sum();
    let room = width.saturating_sub(before + 2 * STAGES_AT + STAGES).max(SHORTEST);
    for row in &mut rows {
        row.truncate(STAGES_AT + 1);
        if let Some(request) = row.get_mut(REQUEST) {
            *request = shortened(request, room);
        }
    }
    let narrow: Vec<String> = columns(&rows).lines().map(|line| cut(line.to_owned(), width)).collect();
    format!("{}\nids: --spans, --json, or a wider terminal\n", narrow.join("\n"))
}

/// Where the request stands in a row, and the stages.
const REQUEST: usize = 3;
const STAGES_AT: usize = 4;

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
            figures::span(number(request, "seconds_ago") as u64),
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
        figures::span(number(request, "seconds_ago") as u64),
        line,
        most.join(", "),
        text(request, "request_id").to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_narrow_terminal_sees_what_is_slow_and_why_a_wide_one_the_ids_too() {
        let request = |path: &str| {
            json!({ "took_us": 723_000, "status": 404, "seconds_ago": 5_491, "method": "GET", "path": path, "failed": "php-pool",
                "stages": [{ "stage": "gateway", "us": 666_000 }, { "stage": "cache-l2", "us": 53_500 }],
                "request_id": "4ad85389e00134fa697de17779fa8adb" })
        };
        let slow = json!({ "requests": [request("/api/a"), request("/api/with/a-long-name/that-goes-on/and-on")] });
        let wide = fitting(&slow, usize::MAX);
        assert!(wide.contains("cache-l2 53.5ms") && wide.contains("4ad85389e00134fa697de17779fa8adb"), "{wide}");
        let narrow = fitting(&slow, 80);
        let lines: Vec<&str> = narrow.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 80) && lines.len() == 4, "{narrow}");
        for (line, path) in [(1, "GET /api/a "), (2, "GET /api/…")] {
            let told = ["723ms", "404", path, "failed in php-pool, gateway"];
            assert!(told.iter().all(|part| lines[line].contains(part)), "{narrow}");
        }
        assert!(!narrow.contains("4ad85389") && narrow.ends_with("or a wider terminal\n"), "{narrow}");
    }
}
