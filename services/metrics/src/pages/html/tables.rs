//! The tables of workers and instances.

use troupe_contracts::invoke::UPSTREAM;
use troupe_contracts::snapshot::Act;

use super::format::{bytes, escape, percent, seconds, span};
use super::table::Column::{Acts, Name, Number, Text};
use super::table::{Column, Table};
use crate::cluster::{InstanceRow, View, WorkerRow};

const OF_WORKERS: [Column; 12] =
    [Name, Text, Text, Number, Number, Number, Number, Number, Number, Number, Number, Acts];
const OF_INSTANCES: [Column; 10] = [Name, Text, Text, Number, Number, Number, Number, Number, Text, Text];

pub(super) fn workers(view: &View) -> Table {
    let Some(first) = view.workers.first() else {
        return Table::new("<p>No balancer has told of a worker yet.</p>", &OF_WORKERS, "");
    };
    let shown = view.workers.len();
    let more = match view.workers_total > shown {
        true => format!("<p>The best {shown} of {}.</p>", view.workers_total),
        false => String::new(),
    };
    let mut table = Table::new(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"workers-title\"><table><thead><tr>\
         <th scope=\"col\">Worker</th><th scope=\"col\">Pool</th><th scope=\"col\">State</th>\
         <th scope=\"col\" class=\"n\"><abbr title=\"1 / cost; cost = latency × (calls + 1) / gain\">Score</abbr></th>\
         <th scope=\"col\" class=\"n\"><abbr title=\"peak-sensitive average, failures counted as slow\">Latency</abbr></th>\
         <th scope=\"col\" class=\"n\"><abbr title=\"this balancer's calls + other balancers' / most at once\">Calls</abbr></th>\
         <th scope=\"col\" class=\"n\"><abbr title=\"weight × slow start\">Gain</abbr></th>\
         <th scope=\"col\" class=\"n\">Errors</th>\
         <th scope=\"col\" class=\"n\"><abbr title=\"busy / running / most\">Processes</abbr></th>\
         <th scope=\"col\" class=\"n\"><abbr title=\"fullest process, of its hard limit\">Memory</abbr></th>\
         <th scope=\"col\" class=\"n\">Restarts</th><th scope=\"col\" class=\"act\">Actions</th></tr></thead><tbody>",
        &OF_WORKERS,
        format!("</tbody></table></div>{more}"),
    );
    let one_balancer = view.workers.iter().all(|worker| worker.balancer == first.balancer);
    for worker in &view.workers {
        let key = format!("{} {} {}", worker.balancer, worker.pool, id(worker));
        table.push(key, data(worker), cells(worker, one_balancer).into());
    }
    table
}

/// Two instances may have one name; the id tells them apart.
fn id(worker: &WorkerRow) -> &str {
    if worker.instance.is_empty() { &worker.worker } else { &worker.instance }
}

/// What an order names it by, and what people are asked about.
fn data(worker: &WorkerRow) -> Vec<(&'static str, String)> {
    let pool = &worker.pool;
    vec![
        ("balancer", worker.balancer.clone()),
        ("worker", format!("{pool}/{}", id(worker))),
        ("name", format!("{pool}/{}", worker.worker)),
    ]
}

fn cells(worker: &WorkerRow, one_balancer: bool) -> [String; OF_WORKERS.len()] {
    let state = match worker.state.as_str() {
        "ready" => "<span class=\"state ready\"><span aria-hidden=\"true\">●</span> ready</span>".to_owned(),
        "draining" => "<span class=\"state draining\"><span aria-hidden=\"true\">◐</span> draining</span>".to_owned(),
        other => format!(
            "<span class=\"state out\"><span aria-hidden=\"true\">○</span> {}</span> <small>{}</small>",
            escape(other),
            escape(&worker.reason)
        ),
    };
    let seen_by = match one_balancer {
        true => String::new(),
        false => format!(" <small>seen by {}</small>", escape(&worker.balancer)),
    };
    let in_a_row = match worker.failures {
        0 => String::new(),
        failures => format!(" <small>{failures} failures in a row</small>"),
    };
    let started = !worker.pool.starts_with(UPSTREAM);
    // What Troupe did not start has no processes that it knows of, and it cannot restart it.
    let of_php = |said: String| if started { said } else { "–".to_owned() };
    let share = if worker.slots == 0 { 0.0 } else { worker.busy as f32 / worker.slots as f32 };
    [
        format!("{}{seen_by}", escape(&worker.worker)),
        escape(&worker.pool).to_string(),
        state,
        score(worker.score),
        if worker.latency > 0.0 { seconds(worker.latency) } else { "–".to_owned() },
        format!("{} + {} / {}", worker.in_flight, worker.foreign, worker.cap),
        format!("{:.2}", worker.gain),
        format!("{}{in_a_row}", percent(worker.error_rate)),
        of_php(format!(
            "{} / {} / {}<meter min=\"0\" max=\"1\" value=\"{share:.2}\">{}</meter>",
            worker.busy,
            worker.processes,
            worker.slots,
            percent(share)
        )),
        of_php(percent(worker.memory)),
        of_php(worker.restarts.to_string()),
        buttons(worker, started),
    ]
}

/// What may be done with a worker. They need the script, which shows them and says of each whom it is about.
fn buttons(worker: &WorkerRow, started: bool) -> String {
    let hold = if worker.state == "draining" { (Act::Undrain, "Undrain") } else { (Act::Drain, "Drain") };
    let restart = started.then_some((Act::Restart, "Restart"));
    let button =
        |(act, word): (Act, &str)| format!("<button type=\"button\" data-act=\"{}\">{word}</button>", act.as_str());
    [Some(hold), restart].into_iter().flatten().map(button).collect()
}

fn score(score: f32) -> String {
    if score < 100.0 { format!("{score:.1}") } else { format!("{score:.0}") }
}

pub(super) fn services(view: &View) -> Table {
    let mut table = Table::new(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"services-title\"><table><thead><tr>\
         <th scope=\"col\">Instance</th><th scope=\"col\">Services</th><th scope=\"col\">State</th>\
         <th scope=\"col\" class=\"n\">Up for</th><th scope=\"col\" class=\"n\"><abbr title=\"in use, by PHP too\">Cores</abbr></th>\
         <th scope=\"col\" class=\"n\"><abbr title=\"resident, PHP's too\">Memory</abbr></th><th scope=\"col\" class=\"n\">Descriptors</th>\
         <th scope=\"col\" class=\"n\">Threads</th><th scope=\"col\">Links</th><th scope=\"col\">Version</th></tr></thead><tbody>",
        &OF_INSTANCES,
        "</tbody></table></div>",
    );
    for instance in &view.instances {
        table.push(instance.instance.clone(), Vec::new(), instance_cells(instance, view).into());
    }
    table
}

fn instance_cells(instance: &InstanceRow, view: &View) -> [String; OF_INSTANCES.len()] {
    let state = match instance.state {
        "up" => "<span class=\"state ready\"><span aria-hidden=\"true\">●</span> up</span>".to_owned(),
        _ => format!(
            "<span class=\"state out\"><span aria-hidden=\"true\">○</span> lost</span> <small>{} ago</small>",
            span(instance.silent)
        ),
    };
    let links: Vec<String> = view
        .links
        .iter()
        .filter(|link| link.instance == instance.instance && link.links > 0.0)
        .map(|link| format!("{} × {} <small>{} calls</small>", link.links, escape(&link.peer), link.in_flight.max(0.0)))
        .collect();
    let (php_cpu, php_memory) = match instance.php_resident {
        0 => (String::new(), String::new()),
        taken => (
            format!(" <small>PHP {:.2}</small>", instance.php_cpu),
            format!(" <small>PHP {}</small>", bytes(taken as f32)),
        ),
    };
    let links = if links.is_empty() { "–".to_owned() } else { links.join("<br>") };
    [
        escape(&instance.instance).to_string(),
        escape(&instance.services.join(", ")).to_string(),
        state,
        span(instance.uptime),
        format!("{:.2}{php_cpu}", instance.cpu),
        format!("{}{php_memory}", bytes(instance.resident as f32)),
        format!("{} / {}", instance.descriptors, instance.max_descriptors),
        instance.threads.to_string(),
        links,
        escape(&instance.version).to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peers_call_themselves_is_no_markup() {
        let worker = WorkerRow {
            worker: "<script>alert(1)</script>".into(),
            state: "<b>".into(),
            reason: "\"><img>".into(),
            pool: "\" onclick=\"x".into(),
            ..WorkerRow::default()
        };
        let instance = InstanceRow { instance: "<i>".into(), services: vec!["<u>".into()], ..InstanceRow::default() };
        let view = View { workers: vec![worker], instances: vec![instance], workers_total: 1, ..View::default() };
        let html = workers(&view).html() + &services(&view).html();
        for tag in ["<script", "<b>\"", "<img", "<i>", "<u>", "\" onclick"] {
            assert!(!html.contains(tag), "{tag} in {html}");
        }
        assert!(html.contains("&lt;script&gt;"));
    }
}
