//! The dashboard's tables, of which each second tells only what it has changed.

use serde_json::json;
use troupe_testkit::stack::{Plan, Stack};

use super::browser::{Browser, LIVE};
use super::load;
use crate::support::{binary, functions};

/// Counts the events that the page is told, and keeps `lost` of its seconds from it.
const COUNTING: &str = "window.told = { snapshot: 0, second: 0, rows: 0, whole: 0 }; window.lost = 0; \
    const listen = EventSource.prototype.addEventListener; \
    EventSource.prototype.addEventListener = function (name, heard) { \
        return listen.call(this, name, (event) => { \
            const { parts, rows } = JSON.parse(event.data); \
            told[name]++; \
            if (name === 'second' && rows?.workers) told.rows++; \
            if (name === 'second' && parts.workers) told.whole++; \
            if (name === 'second' && lost > 0) lost--; else heard(event); \
        }); \
    };";
/// Whether the table of workers, row by row and in its order, is that of a page that is loaded now.
const SAME: &str = "fetch('/dashboard').then((page) => page.text()).then((text) => { \
    const rows = (within) => [...within.querySelectorAll('#workers tbody tr')] \
        .map((row) => [row.dataset.worker, row.innerHTML.replace(/ aria-label=[^>]*/g, '')]).join(); \
    return rows(document) === rows(new DOMParser().parseFromString(text, 'text/html')); })";

/// Whether each button says whom it is about.
const NAMED: &str = "((all) => all.length === 4 && all.every((button) => \
    button.getAttribute('aria-label') === `${button.textContent} ${button.closest('tr').dataset.name}`)) \
    ([...document.querySelectorAll('#workers button')])";

/// A stack with two workers, and a browser that counts what its page is told.
fn watched() -> Option<(Browser, Stack)> {
    let browser = Browser::start()?;
    let mut stack = Plan::apart().two("php-pool").with_metrics().start(binary(), &functions(), "");
    browser.chromium("Page.addScriptToEvaluateOnNewDocument", &json!({ "source": COUNTING }));
    browser.open(stack.instance("metrics").admin);
    browser.until("both workers", "document.querySelectorAll('#workers .state.ready').length === 2");
    Some((browser, stack))
}

/// Waits until the table is right; scores rest when nothing is asked for.
fn until_the_same(browser: &Browser) {
    troupe_testkit::wait::until("the table of a page that is loaded now", super::SOON, || {
        (browser.promised(SAME) == true).then_some(())
    });
}

#[test]
fn the_table_of_workers_is_right_though_only_changes_are_told() {
    let Some((browser, mut stack)) = watched() else { return };
    let clients = load(&stack, "/api/hello");
    browser.until("rows to be told by their changes", "told.rows >= 3");
    assert_eq!(browser.run("document.querySelectorAll('#workers tbody tr').length"), 2);
    // One leaves, and comes back as another.
    stack.instance("php-pool").kill();
    browser.until("one to be gone", "document.querySelectorAll('#workers .state.ready').length === 1");
    stack.restart("php-pool");
    browser.until("two again", "document.querySelectorAll('#workers .state.ready').length === 2");
    clients.stop();
    until_the_same(&browser);
    assert_eq!(browser.run(NAMED), true);
}

#[test]
fn a_page_that_misses_a_second_has_everything_told_anew() {
    let Some((browser, stack)) = watched() else { return };
    browser.until("a first second", "told.second >= 1");
    let before = browser.run("told.snapshot").as_u64().unwrap();
    browser.run("lost = 1");
    browser.until("everything anew", &format!("told.snapshot > {before}"));
    browser.until("the page to go on", &format!("{LIVE} && lost === 0"));
    let clients = load(&stack, "/api/hello");
    browser.until("seconds to be told again", "told.rows >= 1");
    clients.stop();
    until_the_same(&browser);
}
