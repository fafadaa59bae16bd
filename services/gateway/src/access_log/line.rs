//! What a line of the access log looks like.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::{Entry, Style};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The JSON form.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    service: &'a str,
    instance: &'a str,
    remote: &'a str,
    method: &'a str,
    host: &'a str,
    target: &'a str,
    protocol: &'a str,
    status: u16,
    bytes: u64,
    duration_us: u64,
    complete: bool,
    request_id: &'a str,
    trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    referer: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
}

/// Appends the line of `entry`; `now` is one moment on both clocks.
pub(super) fn put(entry: &Entry, now: (Instant, SystemTime), style: &Style, out: &mut Vec<u8>) {
    let at = now.1.checked_sub(now.0.saturating_duration_since(entry.received)).unwrap_or(now.1);
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(seconds.as_secs() / 86_400);
    let clock = seconds.as_secs() % 86_400;
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let head = entry.head.as_ref();
    let field = |name| head.and_then(|head| head.field(name)).map(String::from_utf8_lossy).unwrap_or_default();
    let remote = head
        .map(|head| head.remote_addr().to_owned())
        .or_else(|| entry.remote.map(|ip| ip.to_string()))
        .unwrap_or_default();
    let method = head.map_or("-", |head| entry.method.as_str(head));
    let target = head.map_or("-", |head| head.target());
    let protocol = head.map_or("-", |head| head.version().as_str());
    let request_id = std::str::from_utf8(&entry.id).unwrap_or_default();
    let trace_id = entry.trace.id_text();
    let (referer, user_agent) = (field("referer"), field("user-agent"));
    if style.json {
        let time =
            format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", seconds.subsec_millis());
        let line = Line {
            time: &time,
            service: &style.origin.service,
            instance: &style.origin.instance,
            remote: &remote,
            method,
            host: head.map_or("", |head| head.authority()),
            target,
            protocol,
            status: entry.status,
            bytes: entry.sent,
            duration_us: u64::try_from(entry.took.as_micros()).unwrap_or(u64::MAX),
            complete: entry.complete,
            request_id,
            trace_id: &trace_id,
            route: entry.route.as_deref(),
            referer: &referer,
            user_agent: &user_agent,
        };
        // Texts and numbers always serialise, and a Vec takes all.
        let _ = serde_json::to_writer(&mut *out, &line);
        out.push(b'\n');
        return;
    }
    let month = usize::try_from(month).ok().and_then(|month| MONTHS.get(month.wrapping_sub(1))).copied().unwrap_or("-");
    let _ = write!(out, "{remote} - - [{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000] \"");
    let mut text = String::with_capacity(target.len() + 64);
    quote(method, &mut text);
    text.push(' ');
    quote(target, &mut text);
    let _ = write!(text, " {protocol}\" {} {} \"", entry.status, entry.sent);
    quote(if referer.is_empty() { "-" } else { &referer }, &mut text);
    text.push_str("\" \"");
    quote(if user_agent.is_empty() { "-" } else { &user_agent }, &mut text);
    let _ = write!(text, "\" {:.3}ms {request_id} {trace_id}", entry.took.as_secs_f64() * 1000.0);
    if style.origin.apart {
        let _ = write!(text, " {}", style.origin);
    }
    text.push('\n');
    out.extend_from_slice(text.as_bytes());
}

/// What a client wrote must not look like the end of its quotes, nor move a terminal's cursor.
fn quote(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            character if character.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
            }
            character => out.push(character),
        }
    }
}

/// Year, month and day of a day since 1970 (Hinnant's algorithm for the Gregorian calendar).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_778), (2026, 11, 21));
    }

    #[test]
    fn quotes_cannot_be_broken_out_of() {
        let mut out = String::new();
        quote("a\"b\\c\u{1b}[2J", &mut out);
        assert_eq!(out, "a\\\"b\\\\c\\u{1b}[2J");
    }
}
