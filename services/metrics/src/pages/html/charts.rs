//! The charts: what each shows, and how it looks without a script.

use std::fmt::Write as _;

use super::format::{Unit, escape};
use crate::cluster::{COLUMNS, Frame};

/// A chart.
pub(super) struct Chart {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    /// Columns and their names; no more than there are styles of lines.
    pub(super) lines: &'static [(&'static str, &'static str)],
    /// Left out while nothing was ever counted: a part that is not in use.
    pub(super) optional: bool,
}

const fn chart(
    id: &'static str,
    title: &'static str,
    unit: Unit,
    lines: &'static [(&'static str, &'static str)],
) -> Chart {
    Chart { id, title, unit, lines, optional: false }
}

/// The causes of failed requests, and what they are called.
pub(super) const ERRORS: [(&str, &str); 6] = [
    ("errors.application", "application"),
    ("errors.deadline", "timeout"),
    ("errors.overloaded", "overloaded"),
    ("errors.broken", "worker died"),
    ("errors.unreachable", "unreachable"),
    ("errors.other", "other"),
];

/// All of them, in their order on the page.
pub(super) const CHARTS: [Chart; 12] = [
    chart(
        "requests",
        "Requests per second, by status",
        Unit::Rate,
        &[
            ("requests.2xx", "2xx"),
            ("requests.3xx", "3xx"),
            ("requests.4xx", "4xx"),
            ("requests.5xx", "5xx"),
            ("requests.aborted", "aborted"),
        ],
    ),
    chart(
        "latency",
        "Latency",
        Unit::Seconds,
        &[("latency.p50", "p50"), ("latency.p95", "p95"), ("latency.p99", "p99")],
    ),
    chart("errors", "Errors per second, by cause", Unit::Rate, &ERRORS),
    Chart {
        id: "clients",
        title: "Clients' connections that failed per second, by cause",
        unit: Unit::Rate,
        lines: &[
            ("clients.timeout", "timeout"),
            ("clients.reset", "reset"),
            ("clients.protocol", "protocol"),
            ("clients.cut", "answer cut off"),
        ],
        optional: true,
    },
    Chart {
        id: "servers",
        title: "Failures at upstream servers per second, by cause",
        unit: Unit::Rate,
        lines: &[
            ("servers.timeout", "timeout"),
            ("servers.away", "refused or unreachable"),
            ("servers.broken", "broke off"),
            ("servers.other", "other"),
        ],
        optional: true,
    },
    chart(
        "connections",
        "Connections and requests in flight",
        Unit::Count,
        &[("connections", "connections"), ("in_flight", "in flight"), ("waiting", "waiting for a worker")],
    ),
    chart(
        "processes",
        "PHP processes",
        Unit::Count,
        &[("php.busy", "busy"), ("php.idle", "idle"), ("php.starting", "starting"), ("php.streams", "streams")],
    ),
    Chart {
        id: "cache",
        title: "Cache in the gateways, answers per second",
        unit: Unit::Rate,
        lines: &[
            ("cache.hit", "hit"),
            ("cache.miss", "miss"),
            ("cache.stale", "stale"),
            ("cache.pass", "pass"),
            ("cache.shared", "second tier"),
            ("cache.collapsed", "collapsed"),
        ],
        optional: true,
    },
    Chart {
        id: "cache-l2",
        title: "Second tier of the cache, look-ups per second",
        unit: Unit::Rate,
        lines: &[
            ("cache.l2.hit", "hit"),
            ("cache.l2.miss", "miss"),
            ("cache.l2.stale", "stale"),
            ("cache.l2.late", "late"),
            ("cache.l2.away", "away"),
            ("cache.l2.unasked", "not asked"),
        ],
        optional: true,
    },
    chart("cpu", "Processor, in cores", Unit::Cores, &[("cpu", "all, PHP too"), ("php.cpu", "PHP")]),
    chart("memory", "Resident memory", Unit::Bytes, &[("resident", "all, PHP's too"), ("php.resident", "PHP's")]),
    chart(
        "network",
        "Bodies, bytes per second",
        Unit::ByteRate,
        &[("bytes.received", "received"), ("bytes.sent", "sent"), ("mesh.bytes", "between services")],
    ),
];

const WIDTH: f32 = 600.0;
const HEIGHT: f32 = 150.0;

/// A chart as a figure: a drawing for eyes, its newest numbers for everybody. A script replaces the drawing by a live one.
pub(super) fn figure(chart: &Chart, frames: &[Frame]) -> String {
    let places: Vec<Option<usize>> = chart.lines.iter().map(|(column, _)| place(column)).collect();
    let value = |frame: &Frame, place: &Option<usize>| {
        place.and_then(|place| frame.values.get(place)).copied().filter(|value| value.is_finite())
    };
    let highest = frames.iter().flat_map(|frame| places.iter().filter_map(|place| value(frame, place)));
    let highest = highest.fold(0f32, f32::max);
    let hidden = if chart.optional && highest <= 0.0 { " hidden" } else { "" };
    let lines: Vec<String> = chart.lines.iter().map(|(column, name)| format!("{column}:{name}")).collect();
    let mut html = format!(
        "<figure class=\"chart\" id=\"chart-{}\" data-unit=\"{}\" data-lines=\"{}\"{}{hidden}>\n<figcaption>{}</figcaption>\n",
        chart.id,
        chart.unit.as_str(),
        escape(&lines.join("|")),
        if chart.optional { " data-optional" } else { "" },
        escape(chart.title),
    );
    let _ = write!(
        html,
        "<div class=\"plot\" role=\"img\" aria-label=\"{}, highest {}\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" aria-hidden=\"true\">",
        escape(chart.title),
        chart.unit.format(highest),
    );
    let top = if highest > 0.0 { highest * 1.1 } else { 1.0 };
    let across = frames.len().max(2) as f32 - 1.0;
    for (number, place) in places.iter().enumerate() {
        let mut path = String::new();
        let mut begins = true;
        for (at, frame) in frames.iter().enumerate() {
            let Some(value) = value(frame, place) else {
                begins = true;
                continue;
            };
            let (x, y) = (at as f32 / across * WIDTH, HEIGHT - value / top * (HEIGHT - 4.0) - 2.0);
            let _ = write!(path, "{}{x:.1} {y:.1}", if begins { 'M' } else { 'L' });
            begins = false;
        }
        let _ = write!(html, "<path class=\"line line-{number}\" d=\"{path}\"/>");
    }
    html.push_str("</svg></div>\n<ul class=\"legend\">");
    for (number, ((column, name), place)) in chart.lines.iter().zip(&places).enumerate() {
        let newest = frames.last().and_then(|frame| value(frame, place)).unwrap_or(f32::NAN);
        let _ = write!(
            html,
            "<li><svg class=\"key\" viewBox=\"0 0 24 8\" aria-hidden=\"true\"><path class=\"line line-{number}\" d=\"M1 4H23\"/></svg>{} <b data-newest=\"{column}\">{}</b></li>",
            escape(name),
            chart.unit.format(newest),
        );
    }
    html.push_str("</ul>\n</figure>\n");
    html
}

fn place(id: &str) -> Option<usize> {
    COLUMNS.iter().position(|column| column.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_a_column() {
        for chart in &CHARTS {
            for (column, _) in chart.lines {
                assert!(place(column).is_some(), "{column} of {}", chart.id);
            }
            assert!(chart.lines.len() <= 6, "{}: there are six styles of lines", chart.id);
        }
    }
}
