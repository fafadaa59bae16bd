//! What is kept of each second: a fixed row of numbers, each with a rule by which series feed it.

use metrics::Key;

use super::distribution::Distribution;

/// The histogram whose quantiles are shown.
pub(super) const DURATIONS: &str = "troupe_gateway_request_duration_seconds";

/// One number of each second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its name for the dashboard's script.
    pub(crate) id: &'static str,
    rule: Rule,
}

/// Labels that a series must have; `a|b` is either.
type Labels = &'static [(&'static str, &'static str)];

#[derive(Debug, Clone, Copy)]
enum Rule {
    /// What counters with these labels count in a second, in sum.
    Rate(&'static str, Labels),
    /// The sum of gauges with these labels.
    Sum(&'static str, Labels),
    /// A quantile of [`DURATIONS`], in seconds.
    Quantile(f64),
    /// A figure of the processes, in sum.
    Figure(Figure),
}

/// A figure of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// Cores in use, by PHP too.
    Cpu,
    /// Resident bytes, PHP's too.
    Resident,
    /// Open descriptors.
    Descriptors,
    /// The process itself.
    Instances,
}

/// How a series feeds a column, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    Rate(usize),
    Sum(usize),
}

const fn rate(id: &'static str, name: &'static str, labels: Labels) -> Column {
    Column { id, rule: Rule::Rate(name, labels) }
}

const fn sum(id: &'static str, name: &'static str, labels: Labels) -> Column {
    Column { id, rule: Rule::Sum(name, labels) }
}

const fn figure(id: &'static str, figure: Figure) -> Column {
    Column { id, rule: Rule::Figure(figure) }
}

const REQUESTS: &str = "troupe_gateway_requests_total";
const ERRORS: &str = "troupe_gateway_errors_total";
const CLIENTS: &str = "troupe_gateway_connection_errors_total";
const SERVERS: &str = "troupe_balancer_upstream_errors_total";
const PROCESSES: &str = "troupe_php_processes";
const RESTARTS: &str = "troupe_php_restarts_total";
const CACHE: &str = "troupe_gateway_cache_requests_total";
const LOOKUPS: &str = "troupe_gateway_cache_l2_lookups_total";

/// The row. Rates are per second, sizes in bytes, times in seconds.
pub(crate) const COLUMNS: [Column; 61] = [
    rate("requests", REQUESTS, &[]),
    rate("requests.2xx", REQUESTS, &[("status", "2xx")]),
    rate("requests.3xx", REQUESTS, &[("status", "3xx")]),
    rate("requests.4xx", REQUESTS, &[("status", "4xx")]),
    rate("requests.5xx", REQUESTS, &[("status", "5xx")]),
    rate("requests.aborted", REQUESTS, &[("status", "aborted")]),
    Column { id: "latency.p50", rule: Rule::Quantile(0.5) },
    Column { id: "latency.p95", rule: Rule::Quantile(0.95) },
    Column { id: "latency.p99", rule: Rule::Quantile(0.99) },
    rate("errors.application", ERRORS, &[("cause", "application")]),
    rate("errors.unreachable", ERRORS, &[("cause", "unreachable")]),
    rate("errors.overloaded", ERRORS, &[("cause", "overloaded")]),
    rate("errors.deadline", ERRORS, &[("cause", "deadline")]),
    rate("errors.broken", ERRORS, &[("cause", "broken")]),
    rate("errors.other", ERRORS, &[("cause", "internal|refused|incompatible")]),
    rate("clients.timeout", CLIENTS, &[("cause", "head_timeout|body_timeout|write_timeout")]),
    rate("clients.reset", CLIENTS, &[("cause", "reset")]),
    rate("clients.protocol", CLIENTS, &[("cause", "protocol")]),
    rate("clients.cut", CLIENTS, &[("cause", "reply_timeout|reply_broken")]),
    rate("servers.away", SERVERS, &[("cause", "refused|unreachable")]),
    rate("servers.timeout", SERVERS, &[("cause", "connect_timeout|write_timeout|reply_timeout|body_timeout")]),
    rate("servers.broken", SERVERS, &[("cause", "reset|closed|protocol")]),
    rate("servers.other", SERVERS, &[("cause", "full|other")]),
    sum("connections", "troupe_gateway_connections", &[]),
    rate("connections.opened", "troupe_gateway_connections_opened_total", &[]),
    sum("in_flight", "troupe_gateway_requests_in_flight", &[]),
    sum("waiting", "troupe_balancer_queue_depth", &[]),
    rate("retries", "troupe_balancer_retries_total", &[]),
    rate("ejections", "troupe_balancer_ejections_total", &[]),
    sum("php.idle", PROCESSES, &[("state", "idle")]),
    sum("php.busy", PROCESSES, &[("state", "busy")]),
    sum("php.starting", PROCESSES, &[("state", "starting")]),
    sum("php.streams", "troupe_php_streams", &[]),
    rate("php.cpu", "troupe_php_cpu_seconds_total", &[]),
    sum("php.resident", "troupe_php_resident_bytes", &[]),
    rate("php.restarts", RESTARTS, &[]),
    rate("php.crashes", RESTARTS, &[("reason", "died|memory|protocol")]),
    rate("php.timeouts", RESTARTS, &[("reason", "timeout")]),
    rate("cache.hit", CACHE, &[("tier", "l1"), ("result", "hit")]),
    rate("cache.miss", CACHE, &[("result", "miss")]),
    rate("cache.pass", CACHE, &[("result", "pass")]),
    rate("cache.stale", CACHE, &[("tier", "l1"), ("result", "stale")]),
    rate("cache.revalidated", CACHE, &[("result", "revalidated")]),
    rate("cache.collapsed", CACHE, &[("result", "collapsed")]),
    rate("cache.shared", CACHE, &[("tier", "l2"), ("result", "hit|stale")]),
    rate("cache.l2.hit", LOOKUPS, &[("result", "hit")]),
    rate("cache.l2.stale", LOOKUPS, &[("result", "stale")]),
    rate("cache.l2.miss", LOOKUPS, &[("result", "miss")]),
    rate("cache.l2.late", LOOKUPS, &[("result", "late")]),
    rate("cache.l2.away", LOOKUPS, &[("result", "away")]),
    rate("cache.l2.unasked", LOOKUPS, &[("result", "unasked")]),
    rate("cache.evicted", "troupe_gateway_cache_evicted_total", &[]),
    rate("cache.l2.evicted", "troupe_cache_evicted_total", &[("store", "memory")]),
    sum("cache.bytes", "troupe_gateway_cache_bytes", &[]),
    rate("bytes.received", "troupe_gateway_received_bytes_total", &[]),
    rate("bytes.sent", "troupe_gateway_sent_bytes_total", &[]),
    rate("mesh.bytes", "troupe_mesh_sent_bytes_total", &[]),
    figure("cpu", Figure::Cpu),
    figure("resident", Figure::Resident),
    figure("descriptors", Figure::Descriptors),
    figure("instances", Figure::Instances),
];

impl Column {
    pub(super) fn figure(&self) -> Option<Figure> {
        match self.rule {
            Rule::Figure(figure) => Some(figure),
            _ => None,
        }
    }
}

/// The place of a column.
pub(super) fn place(id: &str) -> Option<usize> {
    COLUMNS.iter().position(|column| column.id == id)
}

/// The columns that a series feeds.
pub(super) fn feeds_of(key: &Key) -> Vec<Feed> {
    let has = |labels: Labels| {
        labels.iter().all(|(name, value)| {
            key.labels().any(|label| label.key() == *name && value.split('|').any(|value| label.value() == value))
        })
    };
    let feed = |(place, column): (usize, &Column)| match column.rule {
        Rule::Rate(name, labels) if name == key.name() && has(labels) => Some(Feed::Rate(place)),
        Rule::Sum(name, labels) if name == key.name() && has(labels) => Some(Feed::Sum(place)),
        _ => None,
    };
    COLUMNS.iter().enumerate().filter_map(feed).collect()
}

/// Fills in the quantiles; where there was no request there is no number.
pub(super) fn fill_quantiles(values: &mut [f32], durations: &Distribution) {
    for (value, column) in values.iter_mut().zip(&COLUMNS) {
        if let Rule::Quantile(q) = column.rule {
            *value = durations.quantile(q).map_or(f32::NAN, |seconds| seconds as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics::Label;

    use super::*;

    #[test]
    fn a_series_feeds_the_columns_that_name_it() {
        let labels = vec![Label::new("method", "GET"), Label::new("route", "/"), Label::new("status", "5xx")];
        let feeds = feeds_of(&Key::from_parts(REQUESTS, labels));
        assert_eq!(feeds, [Feed::Rate(place("requests").unwrap()), Feed::Rate(place("requests.5xx").unwrap())]);
        assert!(feeds_of(&Key::from_name("troupe_other_total")).is_empty());
    }

    #[test]
    fn no_two_columns_share_a_name() {
        for (number, column) in COLUMNS.iter().enumerate() {
            assert_eq!(place(column.id), Some(number));
        }
    }
}
