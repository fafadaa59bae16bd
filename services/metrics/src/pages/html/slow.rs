//! The slowest requests, and where their time went.

use std::fmt::Write as _;

use super::format::{escape, seconds, span};
use crate::cluster::{SlowRow, View};

/// Stages that have a colour of their own, in the order in which a request passes them.
const STAGES: [&str; 13] = [
    "gateway",
    "cache-l1",
    "cache-wait",
    "cache-l2",
    "cache-lease",
    "link",
    "balancer",
    "queue",
    "worker-link",
    "php-pool",
    "php-pipe",
    "php",
    "upstream",
];
/// Stages that are named beside the bar: those that took longest.
const NAMED: usize = 3;

pub(super) fn html(view: &View) -> String {
    if view.slow.is_empty() {
        return "<p>No gateway has told of a request yet.</p>".to_owned();
    }
    let mut html = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"slow-title\"><table><thead><tr>\
         <th scope=\"col\" class=\"n\">Took</th><th scope=\"col\">Request</th><th scope=\"col\" class=\"n\">Status</th>\
         <th scope=\"col\">Most of it</th><th scope=\"col\"><abbr title=\"gateway, cache (memory, another request's fetch, \
         second tier, another gateway's fetch), link, balancer, queue, worker link, PHP's queue, pipe, PHP or upstream server: in this order\">Stages</abbr></th>\
         <th scope=\"col\" class=\"n\">Ago</th><th scope=\"col\">Request id</th></tr></thead><tbody>",
    );
    for row in &view.slow {
        one(&mut html, row);
    }
    html.push_str("</tbody></table></div>");
    html
}

fn one(html: &mut String, row: &SlowRow) {
    let slow = &row.slow;
    let micros = |us: u64| seconds(us as f32 / 1e6);
    let mut longest: Vec<&(String, u32)> = slow.stages.iter().collect();
    longest.sort_by_key(|(_, us)| std::cmp::Reverse(*us));
    let mut most: Vec<String> =
        longest.iter().take(NAMED).map(|(stage, us)| format!("{} {}", escape(stage), micros(u64::from(*us)))).collect();
    if !slow.failed.is_empty() {
        most.insert(0, format!("<b class=\"failed\">failed in {}</b>", escape(&slow.failed)));
    }
    let trace = match slow.trace_id.as_str() {
        "" => String::new(),
        trace => format!(" <small>trace {}</small>", escape(trace)),
    };
    let _ = write!(
        html,
        "<tr><th scope=\"row\" class=\"n\">{}</th><td>{} {}{} <small>{}</small></td><td class=\"n\">{}</td><td>{}</td><td>{}</td>\
         <td class=\"n\">{}</td><td><code>{}</code>{trace}</td></tr>",
        micros(slow.took_us),
        escape(&slow.method),
        escape(&slow.host),
        escape(&slow.path),
        escape(&row.gateway),
        slow.status,
        most.join(", "),
        bar(slow),
        span(row.ago),
        escape(&slow.request_id),
    );
}

/// The stages side by side, each as wide as its share.
fn bar(slow: &troupe_contracts::snapshot::Slow) -> String {
    let whole: u64 = slow.stages.iter().map(|(_, us)| u64::from(*us)).sum::<u64>().max(1);
    let mut html =
        String::from("<svg class=\"bar\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
    let mut at = 0.0;
    for (stage, us) in &slow.stages {
        let wide = f64::from(*us) * 100.0 / whole as f64;
        let class = STAGES.iter().find(|known| *known == stage).copied().unwrap_or("other");
        if wide >= 0.5 {
            let _ = write!(html, "<rect class=\"stage-{class}\" x=\"{at:.1}\" width=\"{wide:.1}\" height=\"8\"/>");
        }
        at += wide;
    }
    html.push_str("</svg>");
    html
}

#[cfg(test)]
mod tests {
    use troupe_contracts::snapshot::Slow;

    use super::*;

    #[test]
    fn the_longest_stages_are_named_and_nothing_is_markup() {
        let stage = |name: &str, us| (name.to_owned(), us);
        let slow = Slow {
            took_us: 1_500_000,
            method: "GET".into(),
            path: "/<b>".into(),
            status: 504,
            failed: "php".into(),
            stages: vec![
                stage("gateway", 10),
                stage("queue", 200_000),
                stage("php", 1_200_000),
                stage("link", 99_000),
                stage("<i>", 1_000),
            ],
            ..Slow::default()
        };
        let view = View { slow: vec![SlowRow { slow, ago: 70, gateway: "g".into() }], ..View::default() };
        let html = html(&view);
        assert!(html.contains("failed in php</b>, php 1.20 s, queue 200 ms, link 99 ms</td>"), "{html}");
        assert!(html.contains("/&lt;b&gt;") && !html.contains("<i>") && html.contains("1 min"), "{html}");
        assert!(html.contains("class=\"stage-php\" x=\"13.3\" width=\"80.0\""), "{html}");
    }
}
