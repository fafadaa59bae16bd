//! The page about metrics and what is scraped say the same, both ways: names, and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use troupe_testkit::redis::Redis;
use troupe_testkit::stack::{Plan, Stack};
use troupe_testkit::tools::{self, PROMTOOL};
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::{wait, websocket};

use super::{SOON, cluster, sum};
use crate::support::{binary, functions};

const PAGE: &str = include_str!("../../../../../docs/metrics.md");

/// The names of the page's tables, with what it says of each.
fn documented() -> BTreeMap<&'static str, &'static str> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once("` | ")).filter(|(name, _)| name.starts_with("troupe_")).collect()
}

/// Label names by family, of all that was scraped.
type Seen = BTreeMap<String, BTreeSet<String>>;

/// Takes the scrape of a process in. Prometheus has labels of its own for who was scraped, and would rename ours.
fn add_process(seen: &mut Seen, text: &str) {
    let mut own = Seen::new();
    add(&mut own, text);
    for (family, labels) in &own {
        let clash = labels.iter().find(|label| ["job", "instance", "service"].contains(&label.as_str()));
        assert_eq!(clash, None, "{family}");
    }
    add(seen, text);
}

/// Takes a scrape in.
fn add(seen: &mut Seen, text: &str) {
    let mut family = String::new();
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("# TYPE ") {
            family = named.split(' ').next().unwrap_or_default().to_owned();
            assert!(text.contains(&format!("# HELP {family} ")), "{family} has no meaning");
            seen.entry(family.clone()).or_default();
        } else if let Some((_, labels)) = line.split_once('{') {
            let names =
                labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name.to_owned());
            seen.entry(family.clone()).or_default().extend(names);
        }
    }
}

/// A stack of all services apart, in which everything is used that is found by configuration and requests: Redis, upstream servers found
/// by name, tunnels, the second tier, purges, uploads, functions that fail.
fn apart(seen: &mut Seen) {
    let redis = Redis::start();
    let server = Upstream::start(|exchange| match exchange.request.field("upgrade") {
        "websocket" => websocket::echo(exchange).map(|()| Then::Close),
        _ => exchange.answer(200, "up"),
    });
    let config = format!(
        "cache.l2 = \"redis\"\ncache.warm = {{ urls = [\"/api/hello\"] }}\n\
         [cache.cdn]\npreset = \"custom\"\nurl = \"http://{}/purge\"\nbodies = {{ all = \"all\" }}\n\
         [[route]]\npath = \"/api/{{function*}}\"\nfunctions = \"default\"\ncache = {{ ttl = \"60s\" }}\n\
         [[route]]\npath = \"/{{rest*}}\"\nupstream = \"app\"\n\
         [upstream.app]\nservers = [\"localhost:{}\", \"no-such-host.invalid:80\"]\n",
        server.address,
        server.address.port(),
    );
    let plan = Plan::apart().several("cache", 1).with_metrics().through_redis(redis.url());
    let mut stack = plan.start(binary(), &functions(), &config);
    for target in ["/api/hello", "/api/hello", "/api/nowhere", "/api/exits", "/api/throws", "/api/killed", "/up"] {
        let _ = stack.get(target);
    }
    let _tunnel = websocket::connect(stack.address, "/ws", &[]).expect("a tunnel");
    // Links that end, and others that cannot be made.
    stack.instance("cache").kill();
    wait::until("the gateway to look for the cache service", SOON, || {
        let text = stack.instance("gateway").admin("/metrics")?.text();
        (sum(&text, "troupe_mesh_failed_dials_total{") > 0.0 && sum(&text, "troupe_mesh_links_ended_total{") > 0.0)
            .then_some(())
    });
    stack.restart("cache");
    let services = ["gateway", "balancer", "php-pool", "cache", "metrics"];
    wait::until("all to be heard of", SOON, || {
        let gateway = stack.instance("gateway").admin("/metrics")?.text();
        let text = cluster(stack.instance("metrics"));
        (sum(&text, "troupe_metrics_instance_up{") == 5.0 && gateway.contains("troupe_gateway_cache_requests_total{"))
            .then_some(())
    });
    for service in services {
        let text = stack.instance(service).admin("/metrics").unwrap().text();
        promtool(&text);
        add_process(seen, &text);
    }
    let text = cluster(stack.instance("metrics"));
    promtool(&text);
    add(seen, &text);
}

/// One process with its second tier in memory and on disk.
fn in_one_process(seen: &mut Seen) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("cache.store.file = {:?}\n", folder.path().join("cache"));
    let mut stack = Stack::one_process(binary(), &functions(), &config);
    assert_eq!(stack.get("/api/hello").status, 200);
    let text = stack.instance("all").admin("/metrics").unwrap().text();
    promtool(&text);
    add_process(seen, &text);
}

#[test]
fn the_page_about_metrics_names_what_is_scraped_and_nothing_else() {
    let mut seen = Seen::new();
    apart(&mut seen);
    in_one_process(&mut seen);
    let documented = documented();
    let unnamed: Vec<_> = seen.keys().filter(|family| !documented.contains_key(family.as_str())).collect();
    assert!(unnamed.is_empty(), "scraped, and not in docs/metrics.md: {unnamed:?}");
    let missing: Vec<_> = documented.keys().filter(|name| !seen.contains_key(**name)).collect();
    assert!(missing.is_empty(), "in docs/metrics.md, and nowhere to be scraped: {missing:#?}");
    for (family, labels) in &seen {
        let said = documented[family.as_str()];
        let unsaid: Vec<_> =
            labels.iter().filter(|label| *label != "le" && !said.contains(&format!("`{label}`"))).collect();
        // The merged view says of whose process figures of processes are, as Prometheus does of what it scrapes.
        let of_a_process = family.starts_with("troupe_node_")
            && unsaid.iter().all(|label| ["service", "instance"].contains(&label.as_str()));
        assert!(
            unsaid.is_empty() || of_a_process,
            "{family} has the labels {unsaid:?}, of which the page says nothing: {said}"
        );
    }
}

/// `promtool check metrics`.
fn promtool(text: &str) {
    if !tools::there(&PROMTOOL) {
        return;
    }
    let mut check = Command::new("promtool");
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = check.spawn().expect("promtool starts");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}
