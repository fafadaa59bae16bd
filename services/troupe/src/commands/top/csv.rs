//! Lines for those who keep spreadsheets.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::super::answer::{list, number, php};
use super::Rates;

/// The first line. What it said in an earlier version stays in its place.
pub(super) const HEADER: &str = "time,requests_per_second,errors_per_second,p50_ms,p95_ms,p99_ms,connections,in_flight,waiting,\
     cpu_percent,resident_bytes,load_average,php_cpu_percent,php_resident_bytes\n";

/// One look. `time` is in seconds since 1970; latencies are those of the last ten seconds; cpu and memory are with PHP's, and PHP's
/// part stands last.
pub(super) fn line(status: &Value, rates: &Rates) -> String {
    let nothing = Value::Null;
    let section = |name: &str| status.get(name).unwrap_or(&nothing);
    let (gateway, process) = (section("gateway"), section("process"));
    let waiting: f64 = list(status, "pools").iter().map(|pool| number(pool, "waiting")).sum();
    let php_resident = php(status, "resident_bytes");
    let load = status.get("load_average").and_then(|load| load.get(0)).and_then(Value::as_f64).unwrap_or(0.0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    format!(
        "{time:.3},{:.1},{:.1},{:.3},{:.3},{:.3},{},{},{waiting},{:.1},{},{load},{:.1},{}\n",
        rates.requests,
        rates.server_error,
        number(gateway, "p50_ms"),
        number(gateway, "p95_ms"),
        number(gateway, "p99_ms"),
        number(gateway, "connections"),
        number(gateway, "in_flight"),
        rates.cpu * 100.0,
        number(process, "resident_bytes") + php_resident,
        rates.php_cpu * 100.0,
        php_resident,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_as_many_fields_as_the_header() {
        let line = line(&Value::Null, &Rates::default());
        assert_eq!(line.split(',').count(), HEADER.split(',').count(), "{line}");
        assert!(line.ends_with('\n') && HEADER.ends_with('\n'));
    }
}
