//! `troupe top`: a running Troupe in the terminal, looked at again and again; or as lines for a spreadsheet.
//!
//! It draws over its last picture and leaves the terminal's modes alone, so Ctrl-C at any moment leaves nothing behind.

mod csv;
mod screen;

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};

use super::answer::{number, php};
use super::client::Admin;
use crate::cli::TopArgs;
use crate::failure::{Code, CommandError};
use crate::output::{self, Reader};

/// What is drawn of the past.
const PAST: usize = 60;
/// Looks that may fail in a row before it gives up: a Troupe that restarts is waited for.
const PATIENCE: u32 = 30;
/// Columns and rows where the terminal does not say.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// What was seen at one look.
struct Look {
    at: Instant,
    status: Value,
    workers: Option<Value>,
}

/// Rates between two looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Rates {
    requests: f64,
    success: f64,
    redirect: f64,
    client_error: f64,
    server_error: f64,
    aborted: f64,
    /// Processor time, PHP's included, as a share of one core.
    cpu: f64,
    /// PHP's part of it.
    php_cpu: f64,
    /// Requests that failed, by cause; like the next ones, without what there was none of.
    errors: ByCause,
    /// Client connections that failed.
    connection_errors: ByCause,
    /// What failed at upstream servers.
    upstream_errors: ByCause,
    /// Attempts at a link to another service that failed.
    link_errors: ByCause,
    cache: CacheRates,
}

/// Per second, by cause.
type ByCause = BTreeMap<String, f64>;

/// What the cache is asked, per second, and what of it is found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct CacheRates {
    /// Requests that the gateway's memory may answer.
    requests: f64,
    /// Of these, answered by what it had, or by what another request brought.
    found: f64,
    /// Questions to the second tier.
    l2_requests: f64,
    /// Of these, answered.
    l2_found: f64,
    /// Of these, in vain: late, away, or not asked for that.
    l2_failed: f64,
    /// URLs that had to make room.
    evicted: f64,
}

pub(super) fn run(args: TopArgs) -> Result<(), CommandError> {
    let (interval, count, as_json) = (args.interval.get(), args.count, args.ask.json);
    let admin = Admin::of(args.ask)?;
    let live = std::io::stdout().is_terminal();
    // A pipe gets one picture, unless it is to have lines.
    let most = count.or((!args.csv && !live).then_some(1));
    let mut last = Look::take(&admin)?;
    let mut past: VecDeque<f64> = VecDeque::with_capacity(PAST);
    if args.csv {
        output::data(csv::HEADER)?;
    }
    let (mut shown, mut missed) = (0, 0);
    loop {
        super::pause(interval);
        let look = match Look::take(&admin) {
            Ok(look) => look,
            Err(error) if error.code == Code::Unavailable && missed < PATIENCE => {
                missed += 1;
                output::say(&format!("{error}\n"));
                continue;
            }
            Err(error) => return Err(error),
        };
        missed = 0;
        let rates = Rates::between(&last, &look);
        if past.len() == PAST {
            past.pop_front();
        }
        past.push_back(rates.requests);
        let reader = if args.csv {
            output::piece(&csv::line(&look.status, &rates))?
        } else if as_json {
            output::json_piece(&json!({ "status": look.status, "workers": look.workers, "rates": rates }))?
        } else {
            let size = terminal_size::terminal_size()
                .map_or(USUAL_SIZE, |(width, height)| (usize::from(width.0).max(20), usize::from(height.0).max(8)));
            let lines = screen::draw(&look.status, look.workers.as_ref(), &rates, past.make_contiguous(), size);
            output::piece(&screen::painted(&lines, live))?
        };
        shown += 1;
        if reader == Reader::Gone || most.is_some_and(|most| shown >= most) {
            return Ok(());
        }
        last = look;
    }
}

impl Look {
    fn take(admin: &Admin) -> Result<Self, CommandError> {
        let status = admin.get("/api/status")?;
        let workers = match admin.get("/api/workers") {
            Ok(workers) => Some(workers),
            // No balancer in that process.
            Err(error) if error.code == Code::Failed => None,
            Err(error) => return Err(error),
        };
        Ok(Self { at: Instant::now(), status, workers })
    }
}

impl Rates {
    fn between(one: &Look, other: &Look) -> Self {
        Self::over(&one.status, &other.status, other.at.saturating_duration_since(one.at).as_secs_f64())
    }

    fn over(before: &Value, after: &Value, seconds: f64) -> Self {
        let nothing = Value::Null;
        // A process that has started again counts from nothing.
        let per_second = |before: f64, after: f64| {
            let change = if after >= before { after - before } else { after };
            if seconds > 0.0 { change / seconds } else { 0.0 }
        };
        let rate = |section: &str, part: Option<&str>, key: &str| {
            let of = |status: &Value| {
                let section = status.get(section).unwrap_or(&nothing);
                number(part.map_or(section, |part| section.get(part).unwrap_or(&nothing)), key)
            };
            per_second(of(before), of(after))
        };
        let php_cpu = per_second(php(before, "cpu_seconds"), php(after, "cpu_seconds"));
        let by_cause = |path: &[&str]| {
            let of =
                |status| path.iter().try_fold(status, |value: &Value, key| value.get(*key)).and_then(Value::as_object);
            let before = of(before);
            let counted = |cause: &str| before.and_then(|before| before.get(cause)?.as_f64()).unwrap_or(0.0);
            let rates = of(after).into_iter().flatten();
            let rates =
                rates.map(|(cause, count)| (cause.clone(), per_second(counted(cause), count.as_f64().unwrap_or(0.0))));
            rates.filter(|(_, rate)| *rate > 0.0).collect::<ByCause>()
        };
        let sum = |rates: &ByCause, names: &[&str]| {
            names.iter().filter_map(|name| rates.get(*name)).fold(0.0, |sum, rate| sum + rate)
        };
        let (own, shared) = (by_cause(&["cache", "l1"]), by_cause(&["cache", "l2"]));
        let lookups = by_cause(&["cache", "l2_lookups"]);
        let found = sum(&own, &["hit", "stale", "revalidated", "collapsed"]);
        let (l2_found, l2_failed) = (sum(&lookups, &["hit", "stale"]), sum(&lookups, &["late", "away", "unasked"]));
        let cache = CacheRates {
            requests: found + sum(&own, &["miss"]) + sum(&shared, &["hit"]),
            found,
            l2_requests: l2_found + l2_failed + sum(&lookups, &["miss"]),
            l2_found,
            l2_failed,
            evicted: rate("cache", None, "evicted"),
        };
        let class = |key: &str| rate("gateway", Some("by_class"), key);
        Self {
            requests: rate("gateway", None, "requests"),
            success: class("success"),
            redirect: class("redirect"),
            client_error: class("client_error"),
            server_error: class("server_error"),
            aborted: class("aborted"),
            cpu: rate("process", None, "cpu_seconds") + php_cpu,
            php_cpu,
            errors: by_cause(&["gateway", "errors"]),
            connection_errors: by_cause(&["gateway", "connection_errors"]),
            upstream_errors: by_cause(&["failures", "upstreams"]),
            link_errors: by_cause(&["failures", "links"]),
            cache,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_survive_a_restart_of_what_is_looked_at() {
        let status = |requests: u64, errors: u64, cpu: f64| {
            json!({ "gateway": { "requests": requests, "by_class": { "server_error": errors } },
                "process": { "cpu_seconds": cpu }, "php": [{ "cpu_seconds": cpu }, { "cpu_seconds": 2.0 * cpu }] })
        };
        let rates = Rates::over(&status(100, 4, 1.0), &status(300, 8, 2.0), 2.0);
        assert_eq!((rates.requests, rates.server_error, rates.cpu, rates.php_cpu), (100.0, 2.0, 2.0, 1.5));
        let anew = Rates::over(&status(300, 8, 2.0), &status(20, 0, 0.2), 2.0);
        assert_eq!((anew.requests, anew.server_error), (10.0, 0.0));
        let counted = |deadline: u64, hits: u64| {
            json!({ "gateway": { "errors": { "deadline": deadline, "broken": 1 }, "connection_errors": { "reset": deadline } },
                "cache": { "l1": { "hit": hits, "miss": 10 }, "l2_lookups": { "hit": hits, "late": 3 }, "evicted": 4 },
                "failures": { "upstreams": { "refused": hits } } })
        };
        let rates = Rates::over(&counted(2, 10), &counted(8, 30), 2.0);
        assert_eq!(rates.errors, BTreeMap::from([("deadline".to_owned(), 3.0)]));
        assert_eq!(rates.connection_errors, BTreeMap::from([("reset".to_owned(), 3.0)]));
        assert_eq!(rates.upstream_errors, BTreeMap::from([("refused".to_owned(), 10.0)]));
        let cache =
            CacheRates { requests: 10.0, found: 10.0, l2_requests: 10.0, l2_found: 10.0, ..CacheRates::default() };
        assert_eq!(rates.cache, cache);
        // Of a process that has just begun to count, all is new.
        let first = Rates::over(&json!({}), &counted(8, 30), 2.0);
        assert_eq!((first.errors["broken"], first.cache.requests, first.cache.l2_failed), (0.5, 20.0, 1.5));
        assert_eq!(Rates::over(&json!({}), &json!({}), 0.0), Rates::default());
        assert_eq!(format!("{:.1}", Rates::over(&json!({}), &json!({}), 1.0).cache.l2_requests), "0.0", "and no -0.0");
    }
}
