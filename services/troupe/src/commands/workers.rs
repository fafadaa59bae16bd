//! `troupe workers`: who takes calls, best score first, with what makes up the scores.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;
use troupe_contracts::invoke::UPSTREAM;

use super::answer::{list, number, text};
use super::client::Admin;
use super::table::{columns, columns_apart, micros, room, shortened, widest};
use crate::cli::WorkersArgs;
use crate::failure::CommandError;
use crate::output::{self, Reader};

/// Characters of a name that stay, however narrow the terminal.
const SHORTEST: usize = 16;
/// Columns that are left out where there is no room for them, one after the other.
const LEFT_OUT: [&str; 2] = ["GAIN", "WAIT"];
/// How often `-w` looks again.
const EVERY: Duration = Duration::from_secs(2);

pub(super) fn run(args: WorkersArgs) -> Result<(), CommandError> {
    let (as_json, watch) = (args.ask.json, args.watch);
    let admin = Admin::of(args.ask)?;
    loop {
        let workers = admin.get("/api/workers")?;
        let reader = if as_json {
            output::json_piece(&workers)?
        } else {
            let clear = if watch && std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            output::piece(&format!("{clear}{}", shown(&workers)))?
        };
        if !watch || reader == Reader::Gone {
            return Ok(());
        }
        super::pause(EVERY);
    }
}

/// The table, as wide as the terminal has room for; below it, why a worker takes no calls.
pub(super) fn shown(workers: &Value) -> String {
    fitting(workers, room())
}

/// The same in so many columns: where it is wider, names are shortened in their middle down to [`SHORTEST`], and [`LEFT_OUT`] is.
pub(super) fn fitting(workers: &Value, width: usize) -> String {
    let header = ["WORKER", "STATE", "SCORE", "LATENCY", "CALLS", "GAIN", "ERRORS", "BUSY", "WAIT", "MEM", "RESTARTS"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut reasons = String::new();
    for worker in list(workers, "pools").iter().flat_map(|pool| list(pool, "workers")) {
        rows.push(row(worker));
        if text(worker, "state") != "ready" {
            reasons.push_str(&format!("{}: {}\n", text(worker, "name"), text(worker, "reason")));
        }
    }
    if rows.len() == 1 {
        return "there is no worker\n".to_owned();
    }
    if widest(&columns(&rows)) <= width {
        return columns(&rows) + &reasons;
    }
    let narrow = |rows: &[Vec<String>]| columns_apart(rows, " ");
    let longest = rows.iter().filter_map(|row| row.first()).map(|name| name.chars().count()).max().unwrap_or(0);
    let room = longest.saturating_sub(widest(&narrow(&rows)).saturating_sub(width)).max(SHORTEST);
    for name in rows.iter_mut().filter_map(|row| row.first_mut()) {
        *name = shortened(name, room);
    }
    for left_out in LEFT_OUT {
        if widest(&narrow(&rows)) <= width {
            break;
        }
        let place = rows.first().and_then(|header| header.iter().position(|name| name == left_out));
        for row in &mut rows {
            place.map(|place| row.remove(place));
        }
    }
    narrow(&rows) + &reasons
}

fn row(worker: &Value) -> Vec<String> {
    let n = |key: &str| number(worker, key);
    let load = worker.get("load").unwrap_or(&Value::Null);
    let started = !text(worker, "name").starts_with(UPSTREAM);
    // What Troupe did not start has no processes that it knows of.
    let of_php = |said: String| if started { said } else { "-".to_owned() };
    let foreign = if n("foreign") > 0.0 { format!("+{}", n("foreign")) } else { String::new() };
    vec![
        text(worker, "name").to_owned(),
        text(worker, "state").to_owned(),
        format!("{:.1}", n("score")),
        micros(n("latency_us")),
        format!("{}{foreign}/{}", n("in_flight"), n("cap")),
        format!("{:.2}", n("gain")),
        format!("{:.1}%", n("error_rate") * 100.0),
        of_php(format!("{}/{}", number(load, "busy"), number(load, "processes"))),
        format!("{}", number(load, "waiting")),
        of_php(format!("{:.0}%", number(load, "memory_permille") / 10.0)),
        of_php(number(load, "restarts").to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_that_do_not_fit_lose_their_middle_and_stay_apart() {
        let worker = |name: &str| {
            json!({ "name": name, "state": "ready", "score": 9876.5, "latency_us": 123.0, "in_flight": 3, "foreign": 2,
                "cap": 16, "gain": 1.0, "load": { "busy": 3, "processes": 16, "memory_permille": 990 } })
        };
        let names = ["reports/php-pool@host-of-a-long-name-1", "reports/php-pool@host-of-a-long-name-2", "b/c"];
        let workers = json!({ "pools": [{ "workers": names.map(worker) }] });
        let table = fitting(&workers, 80);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{table}");
        assert!(lines[1].starts_with("reports") && lines[1].contains('…') && lines[1].contains("-1 "), "{table}");
        assert!(lines[2].contains("-2 ") && lines[3].starts_with("b/c "), "{table}");
        assert!(lines[0].ends_with(" MEM RESTARTS") && lines[1].contains(" 9876.5 "), "{table}");
        // Still narrower, it does without what matters least.
        let header = |width| fitting(&workers, width).lines().next().map(str::to_owned).unwrap_or_default();
        assert!(!header(77).contains("GAIN") && header(77).contains("WAIT"), "{}", header(77));
        assert!(!header(71).contains("WAIT") && header(71).ends_with("RESTARTS"), "{}", header(71));
        // Servers that Troupe did not start have no processes.
        let server = json!({ "pools": [{ "workers": [worker("upstream:app/127.0.0.1:8000")] }] });
        let columns: Vec<String> =
            fitting(&server, 80).lines().nth(1).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        assert_eq!(columns[7..], ["-", "0", "-", "-"]);
        // Nothing is shortened where there is room.
        assert!(fitting(&workers, usize::MAX).contains(names[0]) && fitting(&workers, 200).contains(names[1]));
    }
}
