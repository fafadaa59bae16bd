//! The services and their links, in the order in which a request passes them, with what goes on at each.

use std::fmt::Write as _;

use troupe_contracts::invoke::UPSTREAM;

use super::format::{Unit, escape};
use super::lately::Lately;
use crate::cluster::{InstanceRow, View};

/// Instances that are drawn one by one.
const DOTS: usize = 24;

/// The services that a request passes.
const PATH: [&str; 3] = ["gateway", "balancer", "php-pool"];
/// Those beside its way, with what they are for.
const BESIDE: [(&str, &str); 2] = [("cache", "second tier of the cache"), ("metrics", "this page")];

pub(super) fn html(view: &View, lately: &Lately<'_>) -> String {
    let mut html = String::from("<ol class=\"map\" aria-label=\"The way of a request\">");
    node(&mut html, "clients", &format!("{} connections", Unit::Count.format(lately.of("connections"))), "", "");
    let mut before = "clients";
    for service in PATH {
        let instances = running(view, service);
        if instances.is_empty() {
            continue;
        }
        edge(&mut html, view, before, service, lately);
        let (class, dots) = dots(&instances);
        node(&mut html, service, &doing(view, service, lately), class, &dots);
        before = service;
    }
    html.push_str("</ol>");
    let beside: Vec<(&str, &str)> =
        BESIDE.into_iter().filter(|(service, _)| !running(view, service).is_empty()).collect();
    let servers = view.workers.iter().filter(|worker| worker.pool.starts_with(UPSTREAM)).count();
    if beside.is_empty() && servers == 0 {
        return html;
    }
    html.push_str("<ul class=\"map beside\" aria-label=\"Beside it\">");
    if servers > 0 {
        let ready = view.workers.iter().filter(|worker| worker.pool.starts_with(UPSTREAM) && worker.state == "ready");
        node(&mut html, "upstream servers", &format!("{} of {servers} take calls", ready.count()), "", "");
    }
    for (service, what) in beside {
        let (class, dots) = dots(&running(view, service));
        node(&mut html, service, what, class, &dots);
    }
    html.push_str("</ul>");
    html
}

fn running<'a>(view: &'a View, service: &str) -> Vec<&'a InstanceRow> {
    view.instances.iter().filter(|instance| instance.services.iter().any(|own| own == service)).collect()
}

/// What a service does now, in a few words.
fn doing(view: &View, service: &str, lately: &Lately<'_>) -> String {
    let count = |id| Unit::Count.format(lately.of(id));
    match service {
        "gateway" => {
            format!("{} requests/s, {} in flight", Unit::Rate.format(lately.of("requests")), count("in_flight"))
        }
        "balancer" => {
            let ready = view.workers.iter().filter(|worker| worker.state == "ready").count();
            format!("{} calls wait, {ready} of {} workers ready", count("waiting"), view.workers_total)
        }
        _ => {
            let (busy, idle) = (lately.of("php.busy").round(), lately.of("php.idle").round());
            let (busy, all) = (Unit::Count.format(busy), Unit::Count.format(busy + idle));
            format!("{busy} of {all} PHP processes busy")
        }
    }
}

/// How a service's instances are; with a class where one is lost.
fn dots(instances: &[&InstanceRow]) -> (&'static str, String) {
    let (all, lost) = (instances.len(), instances.iter().filter(|instance| instance.state != "up").count());
    let text = match (all, lost) {
        (1, 0) => "1 instance".to_owned(),
        (all, 0) => format!("{all} instances"),
        (all, lost) => format!("{lost} of {all} lost"),
    };
    let mut html = String::from("<span class=\"dots\" aria-hidden=\"true\">");
    for instance in instances.iter().take(DOTS) {
        html.push_str(if instance.state == "up" { "<i>●</i>" } else { "<i class=\"out\">○</i>" });
    }
    if all > DOTS {
        html.push('…');
    }
    let _ = write!(html, "</span><small>{text}</small>");
    (if lost > 0 { " out" } else { "" }, html)
}

fn node(html: &mut String, name: &str, what: &str, class: &str, dots: &str) {
    let _ = write!(html, "<li class=\"node{class}\"><b>{}</b><small>{}</small>{dots}</li>", escape(name), escape(what));
}

/// How calls get from one service to the next.
fn edge(html: &mut String, view: &View, from: &str, to: &str, lately: &Lately<'_>) {
    if from == "clients" {
        let opened = Unit::Rate.format(lately.of("connections.opened"));
        return arrow(html, &format!("HTTP, {opened} new/s"));
    }
    let runs_both =
        |instance: &&InstanceRow| [from, to].iter().all(|service| instance.services.iter().any(|own| own == service));
    if view.instances.iter().any(|instance| runs_both(&instance)) {
        return arrow(html, "in one process");
    }
    let sources = running(view, from);
    let links = view
        .links
        .iter()
        .filter(|link| link.peer == to && sources.iter().any(|source| source.instance == link.instance));
    let (links, calls) =
        links.fold((0.0, 0.0), |(links, calls), link| (links + link.links, calls + link.in_flight.max(0.0)));
    let links = if links == 1.0 { "1 link".to_owned() } else { format!("{links} links") };
    arrow(html, &format!("{links}, {calls} calls"));
}

fn arrow(html: &mut String, what: &str) {
    let _ = write!(html, "<li class=\"edge\"><small>{what}</small><span aria-hidden=\"true\"></span></li>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::LinkRow;

    fn instance(name: &str, services: &[&str], state: &'static str) -> InstanceRow {
        let services = services.iter().map(|service| (*service).to_owned()).collect();
        InstanceRow { instance: name.to_owned(), services, state, ..InstanceRow::default() }
    }

    #[test]
    fn links_stand_between_the_services_that_they_join() {
        let link = |instance: &str, peer: &str, links, in_flight| LinkRow {
            instance: instance.to_owned(),
            peer: peer.to_owned(),
            links,
            in_flight,
        };
        let view = View {
            instances: vec![
                instance("g1", &["gateway"], "up"),
                instance("g2", &["gateway"], "up"),
                instance("b", &["balancer"], "up"),
                instance("p", &["php-pool"], "lost"),
            ],
            // The balancer counts the gateways' links, too: from the other side.
            links: vec![
                link("g1", "balancer", 2.0, 3.0),
                link("g2", "balancer", 2.0, 1.0),
                link("b", "gateway", 4.0, 4.0),
                link("b", "php-pool", 1.0, 0.0),
            ],
            ..View::default()
        };
        let html = html(&view, &Lately::new(&[]));
        assert!(html.contains("4 links, 4 calls") && html.contains("1 link, 0 calls"), "{html}");
        assert!(html.contains("2 instances") && html.contains("1 of 1 lost"), "{html}");
        assert!(html.find("<b>gateway").unwrap() < html.find("<b>balancer").unwrap(), "{html}");
    }

    #[test]
    fn what_is_in_one_process_has_no_links() {
        let all = ["gateway", "balancer", "php-pool", "metrics"];
        let view = View { instances: vec![instance("x", &all, "up")], ..View::default() };
        let html = html(&view, &Lately::new(&[]));
        assert_eq!(html.matches("in one process").count(), 2, "{html}");
        assert!(html.contains("this page"), "{html}");
    }
}
