//! The dashboard as HTML. What is here is all there is to see: a script only renews it, and draws the charts livelier.
//!
//! The parts that change are made here for the page and for the stream of events alike, so that there is one of each.

mod charts;
mod format;
mod lately;
mod map;
mod slow;
mod table;
mod tables;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::span::Span;
use crate::cluster::{Frame, Level, Problem, View};
use charts::{CHARTS, ERRORS};
use format::{Unit, escape, percent};
pub(crate) use lately::LATELY;
use lately::Lately;
pub(crate) use table::Rows;
use table::{Change, Table};

/// Seconds after which a page without a script loads itself anew.
const RELOAD: u32 = 5;

/// Parts by the names of their places.
pub(crate) type PartsByName<'a> = BTreeMap<&'static str, Cow<'a, str>>;

/// What a second has changed of the page.
#[derive(Debug, Default)]
pub(crate) struct Changes<'a> {
    /// Parts, as they are now.
    pub(crate) parts: PartsByName<'a>,
    /// Rows of tables, by the names of their places.
    pub(crate) rows: BTreeMap<&'static str, Rows<'a>>,
}

impl<'a> From<PartsByName<'a>> for Changes<'a> {
    fn from(parts: PartsByName<'a>) -> Self {
        Self { parts, ..Self::default() }
    }
}

/// The parts of the page that may change with each second.
#[derive(Debug)]
pub(crate) struct Parts {
    problems: String,
    tiles: String,
    map: String,
    workers: Table,
    slow: String,
    services: Table,
}

impl Parts {
    /// The parts as they are now; `frames` are the seconds up to now. Rows are called as they were `before`.
    pub(crate) fn new(view: &View, frames: &[Frame], before: Option<&Self>) -> Self {
        let (mut workers, mut services) = (tables::workers(view), tables::services(view));
        if let Some(before) = before {
            (workers, services) = (workers.after(&before.workers), services.after(&before.services));
        }
        let lately = Lately::new(frames);
        Self {
            problems: problems(&view.problems),
            tiles: tiles(view, &lately),
            map: map::html(view, &lately),
            workers,
            slow: slow::html(view),
            services,
        }
    }

    /// All of them, by the names of their places on the page.
    pub(crate) fn all(&self) -> PartsByName<'_> {
        let mut all: PartsByName<'_> = self.plain().map(|(name, html)| (name, Cow::from(html))).into();
        all.extend(self.tables().map(|(name, table)| (name, Cow::from(table.html()))));
        all
    }

    /// What is not as it was `before`.
    pub(crate) fn changed_since<'a>(&'a self, before: &Self) -> Changes<'a> {
        let mut changes = Changes::default();
        for ((name, now), (_, then)) in self.plain().into_iter().zip(before.plain()) {
            if now != then {
                changes.parts.insert(name, now.into());
            }
        }
        for ((name, now), (_, then)) in self.tables().into_iter().zip(before.tables()) {
            match now.changed_since(then) {
                Change::None => {}
                Change::Whole => drop(changes.parts.insert(name, now.html().into())),
                Change::Rows(rows) => drop(changes.rows.insert(name, rows)),
            }
        }
        changes
    }

    /// Those that are told as a whole.
    fn plain(&self) -> [(&'static str, &str); 4] {
        let Self { problems, tiles, map, slow, .. } = self;
        [("problems", problems), ("tiles", tiles), ("map", map), ("slow", slow)]
    }

    /// Those that are told row by row.
    fn tables(&self) -> [(&'static str, &Table); 2] {
        [("workers", &self.workers), ("services", &self.services)]
    }
}

/// The whole page, whose charts reach as far back as `frames`, which is what `span` says.
pub(crate) fn page(view: &View, frames: &[Frame], span: Span) -> String {
    let Parts { problems, tiles, map, workers, slow, services } = Parts::new(view, frames, None);
    let (workers, services) = (workers.html(), services.html());
    let (heading, spans) = (span.words(), self::spans(span));
    let charts: String = CHARTS.iter().map(|chart| charts::figure(chart, frames)).collect();
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Troupe</title>
<link rel="icon" href="/dashboard/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/dashboard/uplot.css">
<link rel="stylesheet" href="/dashboard/dashboard.css">
<noscript><meta http-equiv="refresh" content="{RELOAD}"></noscript>
</head>
<body>
<a class="skip" href="#workers-title">Skip to the workers</a>
<header>
<h1><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M3 4h8v7a4 4 0 0 1-8 0zM13 9h8v7a4 4 0 0 1-8 0z"/></svg>Troupe</h1>
<p id="status" role="status"><span class="dot" aria-hidden="true"></span><span id="status-text">as of this page's load</span></p>
<button type="button" id="pause" hidden aria-pressed="false">Pause</button>
</header>
<main>
<section aria-labelledby="problems-title">
<h2 id="problems-title" class="visually-hidden">Problems</h2>
<div id="problems" aria-live="polite">{problems}</div>
</section>
<section aria-labelledby="tiles-title">
<h2 id="tiles-title" class="visually-hidden">Now</h2>
<dl id="tiles">{tiles}</dl>
</section>
<section aria-labelledby="map-title">
<h2 id="map-title">Services and links</h2>
<div id="map">{map}</div>
</section>
<section aria-labelledby="charts-title">
<h2 id="charts-title">{heading}</h2>
<nav id="spans" aria-label="How far back">{spans}</nav>
<div id="charts">
{charts}</div>
</section>
<section>
<h2 id="workers-title" tabindex="-1">Workers, best score first</h2>
<p id="said" role="status"></p>
<div id="workers">{workers}</div>
</section>
<section>
<h2 id="slow-title">The slowest requests of the last 15 minutes</h2>
<div id="slow">{slow}</div>
</section>
<section>
<h2 id="services-title">Instances</h2>
<div id="services">{services}</div>
</section>
</main>
<footer>
<p>In a terminal: <code>troupe top</code>, <code>troupe workers</code>, <code>troupe slow</code>. For Prometheus: <code>/metrics/cluster</code> of the admin listener. Charts by <a href="/dashboard/uplot-license.txt">uPlot</a>.</p>
</footer>
<dialog id="ask" aria-labelledby="ask-title" aria-describedby="ask-text">
<h2 id="ask-title">Sure?</h2>
<p id="ask-text"></p>
<p class="answers"><button type="button" id="ask-no">Leave it</button> <button type="button" id="ask-yes">Do it</button></p>
</dialog>
<script src="/dashboard/uplot.js" defer></script>
<script src="/dashboard/dashboard.js" defer></script>
</body>
</html>
"##
    )
}

/// The choice of how far back the charts go.
fn spans(chosen: Span) -> String {
    let link = |span: Span| {
        let (minutes, words) = (span.minutes(), span.words());
        let current = if span == chosen { " aria-current=\"true\"" } else { "" };
        format!(
            "<a href=\"/dashboard?minutes={minutes}\" data-minutes=\"{minutes}\" data-words=\"{words}\"{current}>{minutes} min</a>"
        )
    };
    Span::ALL.map(link).join(" ")
}

fn problems(problems: &[Problem]) -> String {
    if problems.is_empty() {
        return "<p class=\"fine\"><span class=\"mark\" aria-hidden=\"true\">✓</span> No problems.</p>".to_owned();
    }
    let mut html = String::from("<ul class=\"problems\">");
    for problem in problems {
        let (class, mark, word) = match problem.level {
            Level::Error => ("error", "✕", "Error"),
            Level::Warning => ("warning", "!", "Warning"),
        };
        let text = escape(&problem.text);
        let _ = write!(
            html,
            "<li class=\"{class}\"><span class=\"mark\" aria-hidden=\"true\">{mark}</span><span><b>{word}:</b> {text}</span></li>"
        );
    }
    html.push_str("</ul>");
    html
}

fn tiles(view: &View, lately: &Lately<'_>) -> String {
    let lately = |id: &str| lately.of(id);
    let (requests, failed) = (lately("requests"), lately("requests.5xx"));
    let share = if requests > 0.0 { percent(failed / requests) } else { "–".to_owned() };
    let (busy, idle) = (lately("php.busy"), lately("php.idle"));
    let up = view.instances.iter().filter(|instance| instance.state == "up").count();
    let mut html = String::new();
    let mut tile = |name: &str, value: String, more: String| {
        let _ = write!(html, "<div class=\"tile\"><dt>{name}</dt><dd>{value}<small>{more}</small></dd></div>");
    };
    tile(
        "Requests per second",
        Unit::Rate.format(requests),
        format!("{} in flight", Unit::Count.format(lately("in_flight"))),
    );
    tile(
        "Latency, p95",
        Unit::Seconds.format(lately("latency.p95")),
        format!(
            "p50 {}, p99 {}",
            Unit::Seconds.format(lately("latency.p50")),
            Unit::Seconds.format(lately("latency.p99"))
        ),
    );
    let causes = ERRORS.iter().map(|(id, cause)| (lately(id), *cause)).filter(|(rate, _)| *rate > 0.0);
    let most = causes.max_by(|one, other| one.0.total_cmp(&other.0));
    let most = most.map_or(String::new(), |(rate, cause)| format!(", most: {cause} ({})", Unit::Rate.format(rate)));
    tile("Failed, 5xx", share, format!("{} per second{most}", Unit::Rate.format(failed)));
    cache_tile(&lately, &mut tile);
    tile(
        "Connections",
        Unit::Count.format(lately("connections")),
        format!("{} opened per second{}", Unit::Rate.format(lately("connections.opened")), broken(&lately)),
    );
    tile(
        "PHP processes busy",
        format!("{} of {}", Unit::Count.format(busy.round()), Unit::Count.format((busy + idle).round())),
        format!("{} calls wait", Unit::Count.format(lately("waiting"))),
    );
    tile(
        "Processor",
        format!("{} cores", Unit::Cores.format(lately("cpu"))),
        format!("PHP {}", Unit::Cores.format(lately("php.cpu"))),
    );
    tile(
        "Memory",
        Unit::Bytes.format(lately("resident")),
        format!("PHP {}", Unit::Bytes.format(lately("php.resident"))),
    );
    tile(
        "Instances",
        up.to_string(),
        match view.workers_total {
            1 => "1 worker".to_owned(),
            workers => format!("{workers} workers"),
        },
    );
    html
}

/// Clients' connections that failed, once there are any.
fn broken(lately: &impl Fn(&str) -> f32) -> String {
    let failed = ["clients.timeout", "clients.reset", "clients.protocol", "clients.cut"].map(lately);
    let failed = failed.into_iter().filter(|rate| *rate > 0.0).sum::<f32>();
    if failed > 0.0 { format!(", {} failed", Unit::Rate.format(failed)) } else { String::new() }
}

/// What each tier of the cache answers, once there is something to answer.
fn cache_tile(lately: &impl Fn(&str) -> f32, tile: &mut impl FnMut(&str, String, String)) {
    let sum = |ids: &[&str]| ids.iter().map(|id| lately(id)).filter(|rate| rate.is_finite()).sum::<f32>();
    let share = |saved: f32, all: f32| if all > 0.0 { percent(saved / all) } else { "–".to_owned() };
    let own = sum(&["cache.hit", "cache.stale", "cache.revalidated", "cache.collapsed"]);
    let all = own + sum(&["cache.shared", "cache.miss"]);
    let bytes = lately("cache.bytes");
    if all > 0.0 || bytes > 0.0 {
        let (bytes, evicted) = (Unit::Bytes.format(bytes), Unit::Rate.format(lately("cache.evicted")));
        tile("Cache hits, gateways", share(own, all), format!("{bytes} stored, {evicted} evicted per second"));
    }
    let found = sum(&["cache.l2.hit", "cache.l2.stale"]);
    let failed = sum(&["cache.l2.late", "cache.l2.away", "cache.l2.unasked"]);
    let asked = found + failed + sum(&["cache.l2.miss"]);
    if asked > 0.0 {
        let (failed, evicted) = (Unit::Rate.format(failed), Unit::Rate.format(lately("cache.l2.evicted")));
        tile("Cache hits, second tier", share(found, asked), format!("{failed} in vain, {evicted} evicted per second"));
    }
}
