//! The picture: requests, latency, connections, errors, resources, and the workers in score order.

use serde_json::Value;
use troupe_contracts::invoke::UPSTREAM;

use super::super::answer::{list, number, php, text};
use super::super::table::{cut, micros, shortened};
use super::super::workers;
use super::{ByCause, Rates};
use troupe_node::figures;

/// Heights of the bars of the little chart.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Characters of a pool's name: what stands behind it fits 80 columns then.
const POOL_NAME: usize = 20;
/// Problems that are shown; the rest are counted.
const PROBLEMS: usize = 3;

/// Lines of at most so many columns and rows.
pub(super) fn draw(
    status: &Value,
    workers: Option<&Value>,
    rates: &Rates,
    past: &[f64],
    (width, height): (usize, usize),
) -> Vec<String> {
    let nothing = Value::Null;
    let section = |name: &str| status.get(name).unwrap_or(&nothing);
    let (gateway, process) = (section("gateway"), section("process"));
    let ready = section("readiness").get("ready") == Some(&Value::Bool(true));
    let mut lines = vec![format!(
        "{} {}  up {}  {}",
        text(status, "service"),
        text(status, "instance"),
        figures::span(number(status, "uptime_seconds") as u64),
        if ready { "ready" } else { "NOT READY" },
    )];
    let mut line = |name: &str, said: String| lines.push(format!("{name:<12}{said}"));
    if gateway.is_object() {
        let chart = chart(past, width.saturating_sub(32));
        line("requests", format!("{:>10.1}/s  {chart}", rates.requests));
        line(
            "errors",
            format!(
                "{:>10.1}/s  5xx   {:.1} 4xx  {:.1} 3xx  {:.1} 2xx  {:.1} aborted",
                rates.server_error, rates.client_error, rates.redirect, rates.success, rates.aborted
            ),
        );
        let causes = causes(rates);
        if !causes.is_empty() {
            line("causes", causes);
        }
        let ms = |key: &str| micros(number(gateway, key) * 1_000.0);
        line("latency", format!("p50 {}  p95 {}  p99 {}  (last 10 s)", ms("p50_ms"), ms("p95_ms"), ms("p99_ms")));
        line(
            "connections",
            format!(
                "{} open, {} of them tunnels, {} requests in flight",
                number(gateway, "connections"),
                number(gateway, "tunnels"),
                number(gateway, "in_flight")
            ),
        );
    }
    let cache = section("cache");
    if cache.is_object() {
        line("cache", self::cache(cache, rates));
    }
    for pool in list(status, "pools") {
        let name = text(pool, "pool");
        let busy = match name.starts_with(UPSTREAM) {
            true => String::new(),
            false => format!(", {}/{} processes busy", number(pool, "busy"), number(pool, "processes")),
        };
        line(
            "pool",
            format!(
                "{}: {}/{} workers, {} calls, {} waiting{busy}",
                shortened(name, POOL_NAME),
                number(pool, "ready"),
                number(pool, "workers"),
                number(pool, "in_flight"),
                number(pool, "waiting"),
            ),
        );
    }
    let php_resident = php(status, "resident_bytes");
    let of_php = |part: String| if php_resident > 0.0 { format!(" (PHP {part})") } else { String::new() };
    let load: Vec<String> = list(status, "load_average").iter().map(ToString::to_string).collect();
    line(
        "resources",
        format!(
            "cpu {:.0}% of a core{}, memory {}{}",
            rates.cpu * 100.0,
            of_php(format!("{:.0}%", rates.php_cpu * 100.0)),
            figures::bytes(number(process, "resident_bytes") + php_resident),
            of_php(figures::bytes(php_resident)),
        ),
    );
    line(
        "",
        format!(
            "load {}, {} of {} descriptors",
            load.join(" "),
            number(process, "descriptors"),
            number(process, "max_descriptors"),
        ),
    );
    let problems: Vec<&str> = list(status, "problems").iter().filter_map(Value::as_str).collect();
    for problem in problems.iter().take(PROBLEMS) {
        line("problem", (*problem).to_owned());
    }
    if problems.len() > PROBLEMS {
        line("", format!("and {} more: troupe status", problems.len() - PROBLEMS));
    }
    lines.push(String::new());
    match workers {
        Some(workers) => lines.extend(workers::fitting(workers, width).lines().map(str::to_owned)),
        None => lines.push("its workers are with the balancer: troupe top --service balancer".to_owned()),
    }
    // The last row stays free: a full one would make the terminal scroll.
    lines.truncate(height.saturating_sub(1));
    lines.into_iter().map(|line| cut(line, width)).collect()
}

/// What failed, and why, the most frequent first.
fn causes(rates: &Rates) -> String {
    let parts = [
        ("", &rates.errors),
        ("clients: ", &rates.connection_errors),
        ("upstreams: ", &rates.upstream_errors),
        ("links: ", &rates.link_errors),
    ];
    let said = |(who, causes): (&str, &ByCause)| {
        let mut causes: Vec<(&String, &f64)> = causes.iter().collect();
        causes.sort_by(|one, other| other.1.total_cmp(one.1));
        let causes: Vec<String> = causes.iter().map(|(cause, rate)| format!("{cause} {rate:.1}/s")).collect();
        (!causes.is_empty()).then(|| format!("{who}{}", causes.join(", ")))
    };
    parts.into_iter().filter_map(said).collect::<Vec<_>>().join("; ")
}

/// Hits of each tier, as the dashboard counts them.
fn cache(cache: &Value, rates: &Rates) -> String {
    let share = |found: f64, all: f64| if all > 0.0 { format!("{:.1}%", 100.0 * found / all) } else { "-".to_owned() };
    let rates = &rates.cache;
    let mut said = format!(
        "{} hits of {:.1}/s, {} stored, {:.1}/s evicted",
        share(rates.found, rates.requests),
        rates.requests,
        figures::bytes(number(cache, "bytes")),
        rates.evicted,
    );
    if cache.get("l2_lookups").and_then(Value::as_object).is_some_and(|lookups| !lookups.is_empty()) {
        let hits = share(rates.l2_found, rates.l2_requests);
        said.push_str(&format!("; l2 {hits} of {:.1}/s", rates.l2_requests));
        if rates.l2_failed > 0.0 {
            said.push_str(&format!(", {:.1} in vain", rates.l2_failed));
        }
    }
    said
}

/// As it goes to the terminal: over the last picture, without flicker. To anything else, as it is.
pub(super) fn painted(lines: &[String], live: bool) -> String {
    if !live {
        return lines.iter().map(|line| format!("{line}\n")).collect();
    }
    let rows: String = lines.iter().map(|line| format!("{line}\x1b[K\r\n")).collect();
    format!("\x1b[H{rows}\x1b[J")
}

/// The past as bars, the newest to the right, the highest as high as the largest.
fn chart(past: &[f64], width: usize) -> String {
    let shown = past.get(past.len().saturating_sub(width)..).unwrap_or(past);
    let largest = shown.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let share = if largest > 0.0 { value / largest } else { 0.0 };
        BARS.get((share * 7.0).round() as usize).copied().unwrap_or('▁')
    };
    shown.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::CacheRates;
    use super::*;

    #[test]
    fn it_fits_a_small_terminal_whatever_there_is_to_say() {
        let worker = |n: usize| {
            json!({ "name": format!("a-pool-with-a-long-name/php-pool@{n}"), "state": "ready", "score": 123.4,
                "latency_us": 1_200.0, "in_flight": 3, "cap": 16, "gain": 1.0, "error_rate": 0.0, "load": {} })
        };
        let workers = json!({ "pools": [{ "workers": (0..100).map(worker).collect::<Vec<_>>() }] });
        let problem = "every worker of the pool with a very long name is out, and requests go to the least bad one";
        let status = json!({ "service": "troupe", "instance": "host/1", "readiness": { "ready": true },
            "gateway": { "p50_ms": 1.0 }, "pools": [{ "pool": "default" }], "problems": [problem, problem, problem, problem] });
        for size in [(80, 24), (40, 10), (200, 60)] {
            let past: Vec<f64> = (0..60).map(f64::from).collect();
            let lines = draw(&status, Some(&workers), &Rates::default(), &past, size);
            assert!(lines.len() < size.1 && lines.iter().all(|line| line.chars().count() <= size.0), "{lines:#?}");
        }
        assert!(!draw(&status, None, &Rates::default(), &[], (80, 24)).concat().contains("(PHP"));
        let (mut with_php, rates) = (status.clone(), Rates { cpu: 1.5, php_cpu: 1.25, ..Rates::default() });
        with_php["php"] = json!([{ "resident_bytes": 1 << 20 }, { "resident_bytes": 2 << 20 }]);
        with_php["process"] = json!({ "resident_bytes": 1 << 20 });
        let lines = draw(&with_php, None, &rates, &[], (80, 24));
        let said = "cpu 150% of a core (PHP 125%), memory 4.0 MiB (PHP 3.0 MiB)";
        assert!(lines.iter().any(|line| line.ends_with(said)), "{lines:#?}");
        let lines = draw(&status, None, &Rates::default(), &[], (80, 24));
        assert!(lines.iter().any(|line| line.contains("and 1 more")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("--service balancer")), "{lines:#?}");
    }

    #[test]
    fn it_says_why_requests_fail_and_what_the_cache_gives() {
        let by = |causes: &[(&str, f64)]| causes.iter().map(|(cause, rate)| ((*cause).to_owned(), *rate)).collect();
        let rates = Rates {
            errors: by(&[("broken", 0.5), ("deadline", 3.0)]),
            connection_errors: by(&[("reset", 1.0)]),
            upstream_errors: by(&[("refused", 2.25)]),
            cache: CacheRates {
                requests: 8.0,
                found: 6.0,
                l2_requests: 2.0,
                l2_found: 1.0,
                l2_failed: 0.5,
                evicted: 0.0,
            },
            ..Rates::default()
        };
        let cache = json!({ "bytes": 3 << 20, "l2_lookups": { "hit": 7 } });
        let status = json!({ "gateway": {}, "cache": cache });
        let shown = draw(&status, None, &rates, &[], (100, 24));
        let causes = "causes      deadline 3.0/s, broken 0.5/s; clients: reset 1.0/s; upstreams: refused 2.2/s";
        let cache = "cache       75.0% hits of 8.0/s, 3.0 MiB stored, 0.0/s evicted; l2 50.0% of 2.0/s, 0.5 in vain";
        assert!(shown.iter().any(|line| line == causes) && shown.iter().any(|line| line == cache), "{shown:#?}");
        // What is cut off is told.
        let narrow = draw(&status, None, &rates, &[], (40, 24));
        assert!(narrow.iter().any(|line| line == "causes      deadline 3.0/s, broken 0.5/…"), "{narrow:#?}");
        // Without errors and without cached routes there is nothing to say of them.
        let quiet = draw(&json!({ "gateway": {}, "cache": null }), None, &Rates::default(), &[], (80, 24));
        assert!(!quiet.iter().any(|line| line.starts_with("causes") || line.starts_with("cache")), "{quiet:#?}");
    }

    #[test]
    fn the_chart_is_as_high_as_its_largest_and_ends_with_the_newest() {
        assert_eq!(chart(&[0.0, 50.0, 100.0], 60), "▁▅█");
        assert_eq!(chart(&[9.0, 0.0, 1.0], 2), "▁█");
        assert_eq!(chart(&[], 10), "");
    }
}
