//! The dashboard in a browser (chromedriver).

use std::time::Instant;

use serde_json::{Value, json};
use troupe_testkit::stack::Plan;
use troupe_testkit::tools;

use super::browser::{Browser, LIVE, target};
use super::{SOON, load};
use crate::support::{binary, functions};

#[test]
fn a_browser_shows_what_happens_and_survives_a_restart() {
    let Some(browser) = Browser::start() else { return };
    let mut stack = Plan::apart().with_metrics().start(binary(), &functions(), "");
    let clients = load(&stack, "/api/hello");
    let admin = stack.instance("metrics").admin;
    browser.open(admin);
    browser.until("the charts to be drawn", "document.querySelectorAll('.plot canvas').length >= 8");
    browser.until("requests to be shown", "parseFloat(document.querySelector('.tile dd').textContent) > 5");
    browser.until("all four instances", "document.querySelectorAll('#services tbody tr').length === 4");
    browser.until("the worker", "document.querySelectorAll('#workers tbody tr').length === 1");
    let labelled = "[...document.querySelectorAll('.plot')].every((p) => p.getAttribute('role') === 'img' && p.getAttribute('aria-label'))";
    assert_eq!(browser.run(labelled), true);
    browser.until("the slowest requests", "document.querySelectorAll('#slow tbody tr .bar rect').length >= 5");
    browser.until("the links", "/[1-9]\\d* links?, \\d+ calls/.test(document.getElementById('map').textContent)");
    let wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.run(wide), true, "the page scrolls sideways");
    // A php-pool that dies is told in words.
    stack.instance("php-pool").kill();
    browser.until("the problem to be told", "document.querySelector('.problems .error') !== null");
    stack.restart("php-pool");

    stack.instance("metrics").kill();
    browser.until("the loss to be shown", "document.getElementById('status').dataset.state === 'away'");
    stack.restart("metrics");
    browser.until("the page to be live again", LIVE);
    browser.until("it to be told of all again", "document.querySelectorAll('#services tbody tr').length === 4");

    // More tabs than a browser has connections for one server: those nobody sees hold none.
    for _ in 0..9 {
        let tab = browser.ask("POST", "/window/new", &json!({ "type": "tab" }));
        browser.ask("POST", "/window", &json!({ "handle": tab["handle"] }));
        browser.go(&format!("http://{admin}/dashboard/"));
        browser.until("the tab to be live", LIVE);
    }
    let began = Instant::now();
    let (records, _) = clients.stop();
    assert!(records.iter().any(|record| record.status == 200) && began.elapsed() < SOON);
}

/// Where `scripts/axe.sh` puts it.
const AXE: &str = "axe/node_modules/axe-core/axe.min.js";

/// What axe finds on the page, as text; nothing where it was not downloaded, and that is allowed.
fn faults(browser: &Browser) -> Vec<String> {
    let Ok(axe) = std::fs::read_to_string(target().join(AXE)) else {
        tools::leave_out(&tools::AXE, "axe-core");
        return Vec::new();
    };
    browser.ask("POST", "/execute/sync", &json!({ "script": axe, "args": [] }));
    let found = browser.promised("axe.run(document, { resultTypes: ['violations'] })");
    let violations = found["violations"].as_array().unwrap_or_else(|| panic!("axe: {found}"));
    let told = |violation: &Value| {
        let node = &violation["nodes"][0];
        format!("{} {}: {} in {}", violation["impact"], violation["id"], violation["help"], node["html"])
    };
    violations.iter().map(told).collect()
}

#[test]
fn it_looks_well_and_axe_finds_nothing_in_light_and_dark_on_screens_and_phones() {
    let Some(browser) = Browser::start() else { return };
    let mut stack = Plan::apart().two("gateway").two("php-pool").with_metrics().start(binary(), &functions(), "");
    let clients = load(&stack, "/api/hello");
    let admin = stack.instance("metrics").admin;
    for (name, width, height, scheme) in [
        ("light", 1280, 1600, "light"),
        ("dark", 1280, 1600, "dark"),
        ("phone-light", 390, 844, "light"),
        ("phone-dark", 390, 844, "dark"),
    ] {
        browser.looks(width, height, scheme);
        browser.open(admin);
        browser.until("the workers", "document.querySelectorAll('#workers tbody tr').length === 2");
        browser.until("slow requests", "document.querySelectorAll('#slow tbody tr').length >= 5");
        browser.until(
            "some seconds",
            "[...document.querySelectorAll('.plot')].filter((p) => p.querySelector('canvas')).length >= 8",
        );
        let wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        assert_eq!(browser.run(wide), true, "{name}: the page scrolls sideways");
        if width >= 1280 {
            let whole = "[...document.querySelectorAll('.scroll')].every((t) => t.scrollWidth <= t.clientWidth)";
            assert_eq!(browser.run(whole), true, "{name}: columns of a table are out of view");
        }
        browser.picture(name);
        assert_eq!(faults(&browser), Vec::<String>::new(), "{name}");
    }
    // Without a script it is the same page.
    browser.looks(1280, 1600, "light");
    browser.chromium("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.go(&format!("http://{admin}/dashboard"));
    browser.picture("without-script");
    browser.chromium("Emulation.setScriptExecutionDisabled", &json!({ "value": false }));
    assert_eq!(browser.run("document.querySelectorAll('#workers tbody tr').length"), 2);
    assert_eq!(browser.run("getComputedStyle(document.querySelector('#workers td.act')).display"), "none");
    clients.stop();
}

#[test]
fn the_caches_tiles_and_charts_tell_what_each_tier_answers_under_load() {
    let Some(browser) = Browser::start() else { return };
    let config = "[[route]]\npath = \"/api/{function*}\"\nfunctions = \"default\"\ncache = { ttl = \"2s\" }\n";
    let mut stack = Plan::apart().two("gateway").with_cache().with_metrics().start(binary(), &functions(), config);
    let clients = load(&stack, "/api/hello");
    let admin = stack.instance("metrics").admin;
    browser.looks(1280, 1600, "light");
    browser.open(admin);
    let tile = |name: &str, part: &str| {
        format!(
            "[...document.querySelectorAll('.tile')].filter((t) => t.querySelector('dt').textContent === '{name}')\
             .map((t) => t.querySelector('dd')).some((dd) => {part})"
        )
    };
    // Two clients ask fifty times a second and more for what is fresh for two seconds: nearly all of it is in memory.
    browser.until("the hits in memory", &tile("Cache hits, gateways", "parseFloat(dd.textContent) >= 80"));
    browser.until("what is stored", &tile("Cache hits, gateways", "/[1-9][\\d.]* .?i?B stored/.test(dd.textContent)"));
    // What one gateway has fetched the other finds there.
    browser.until("the hits in the second tier", &tile("Cache hits, second tier", "parseFloat(dd.textContent) > 0"));
    browser.until(
        "the charts",
        "['Cache in the gateways', 'Second tier of the cache'].every((title) => [...document.querySelectorAll('.plot')]\
         .some((p) => p.getAttribute('aria-label').startsWith(title) && p.querySelector('canvas')))",
    );
    browser.picture("cache");
    assert_eq!(faults(&browser), Vec::<String>::new());
    clients.stop();
}

#[test]
fn a_worker_is_drained_by_a_button_that_asks_first() {
    let Some(browser) = Browser::start() else { return };
    let mut stack = Plan::apart().two("php-pool").with_metrics().start(binary(), &functions(), "");
    let admin = stack.instance("metrics").admin;
    browser.go(&format!("http://{admin}/dashboard"));
    browser.until("both workers", "document.querySelectorAll('#workers [data-act=drain]').length === 2");
    browser.run("document.querySelector('#workers [data-act=drain]').click()");
    browser.until("the question", "document.getElementById('ask').open");
    browser.run("document.getElementById('ask-no').click()");
    assert_eq!(browser.run("document.getElementById('said').textContent"), "", "nothing was asked for");
    browser.run("document.querySelector('#workers [data-act=drain]').click()");
    assert_eq!(faults(&browser), Vec::<String>::new(), "the question");
    browser.picture("question");
    browser.run("document.getElementById('ask-yes').click()");
    browser.until("the outcome", "document.getElementById('said').className === 'done'");
    browser.until("the state", "document.querySelectorAll('#workers .state.draining').length === 1");
    // The other one is the only one left.
    browser.run("document.querySelector('#workers [data-act=drain]').click()");
    browser.run("document.getElementById('ask-yes').click()");
    browser.until("the refusal", "/only worker/.test(document.getElementById('said').textContent)");
    browser.run("document.querySelector('#workers [data-act=undrain]').click()");
    browser.run("document.getElementById('ask-yes').click()");
    browser.until("both again", "document.querySelectorAll('#workers .state.ready').length === 2");
}

#[test]
fn the_charts_go_back_as_far_as_is_chosen() {
    let Some(browser) = Browser::start() else { return };
    let mut stack = Plan::apart().with_metrics().start(binary(), &functions(), "");
    let admin = stack.instance("metrics").admin;
    browser.open(admin);
    let chosen = "document.querySelector('#spans [aria-current]').textContent";
    assert_eq!(
        (browser.run(chosen), browser.run("document.querySelectorAll('#spans a').length")),
        ("5 min".into(), 2.into())
    );
    let choose =
        |minutes: u32| browser.run(&format!("document.querySelector('#spans [data-minutes=\"{minutes}\"]').click()"));
    choose(15);
    browser.until("it to be live", LIVE);
    assert_eq!((browser.run(chosen), browser.run("location.search")), ("15 min".into(), "?minutes=15".into()));
    assert_eq!(browser.run("document.getElementById('charts-title').textContent"), "The last 15 minutes");
    // A stream is listed once it has ended.
    choose(5);
    browser.until(
        "the stream that began with 15 minutes",
        "performance.getEntriesByType('resource').some((entry) => entry.name.endsWith('/dashboard/events?minutes=15'))",
    );
    assert_eq!((browser.run(chosen), browser.run("location.search")), ("5 min".into(), "?minutes=5".into()));
    // Loaded anew, or without a script, it is what was chosen.
    browser.chromium("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.go(&format!("http://{admin}/dashboard?minutes=15"));
    assert_eq!(browser.run(chosen), "15 min");
    browser.chromium("Emulation.setScriptExecutionDisabled", &json!({ "value": false }));
}
