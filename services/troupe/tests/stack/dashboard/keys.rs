//! The dashboard by keyboard alone: real key events, as a person without a mouse makes them.

use serde_json::json;
use troupe_testkit::stack::Plan;

use super::browser::Browser;
use crate::support::{binary, functions};

/// Presses of Tab after which everything on the page has been reached.
const MOST: usize = 60;

/// What has the focus: an id, an action, or what it is.
const FOCUSED: &str =
    "((e) => e.id || e.dataset.act || e.dataset.minutes || e.className || e.tagName)(document.activeElement)";
/// Whether a person sees what has the focus: there is an outline, and it is within the window.
const SEEN: &str = "((e) => { const style = getComputedStyle(e), box = e.getBoundingClientRect(); \
    return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 \
        && box.width > 0 && box.bottom > 0 && box.top < innerHeight; })(document.activeElement)";

impl Browser {
    fn press(&self, key: &str, code: u32, text: &str) {
        let event = |kind: &str| json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": if kind == "keyDown" { text } else { "" } });
        for kind in ["keyDown", "keyUp"] {
            self.chromium("Input.dispatchKeyEvent", &event(kind));
        }
    }

    fn tab(&self) {
        self.press("Tab", 9, "");
    }

    fn enter(&self) {
        self.press("Enter", 13, "\r");
    }

    fn focused(&self) -> String {
        self.run(FOCUSED).as_str().unwrap_or_default().to_owned()
    }

    /// Presses Tab until this has the focus.
    fn tab_to(&self, wanted: &str) {
        for _ in 0..MOST {
            if self.focused() == wanted {
                return;
            }
            self.tab();
        }
        panic!("{wanted} is not reached by Tab");
    }
}

/// The page, live and with both workers.
fn open(browser: &Browser, admin: std::net::SocketAddr) {
    browser.open(admin);
    browser.until("both workers", "document.querySelectorAll('#workers [data-act=drain]').length === 2");
}

#[test]
fn everything_is_reached_by_tab_in_the_pages_order_and_is_seen() {
    let Some(browser) = Browser::start() else { return };
    let mut stack = Plan::apart().two("php-pool").with_metrics().start(binary(), &functions(), "");
    let admin = stack.instance("metrics").admin;
    open(&browser, admin);
    let mut order: Vec<String> = Vec::new();
    for _ in 0..MOST {
        browser.tab();
        let focused = browser.focused();
        if focused == "BODY" || (focused == "skip" && !order.is_empty()) {
            break;
        }
        assert_eq!(browser.run(SEEN), true, "{focused} has the focus, and nobody sees that");
        order.push(focused);
    }
    let actions = ["drain", "restart", "drain", "restart"];
    let expected: Vec<&str> =
        ["skip", "pause", "5", "15", "scroll"].into_iter().chain(actions).chain(["scroll", "A"]).collect();
    // Tables scroll, and can be focused for that; that of slow requests is there once there is one.
    order.dedup_by(|one, other| *one == "scroll" && one == other);
    assert_eq!(order, expected);
}

#[test]
fn a_worker_is_drained_by_keys_alone() {
    let Some(browser) = Browser::start() else { return };
    let mut stack = Plan::apart().two("php-pool").with_metrics().start(binary(), &functions(), "");
    let admin = stack.instance("metrics").admin;
    open(&browser, admin);
    // Past everything, to the workers.
    browser.tab_to("skip");
    browser.enter();
    assert_eq!(browser.focused(), "workers-title");
    browser.tab_to("drain");
    let name = browser.run("document.activeElement.closest('tr').dataset.name");
    browser.enter();
    browser.until("the question", "document.getElementById('ask').open");
    assert_eq!(browser.run("document.getElementById('ask').contains(document.activeElement)"), true);
    // Escape leaves it, and the focus is where it was.
    browser.press("Escape", 27, "");
    browser.until("the question to be gone", "!document.getElementById('ask').open");
    assert_eq!(
        (browser.focused(), browser.run("document.activeElement.closest('tr').dataset.name")),
        ("drain".into(), name.clone())
    );
    assert_eq!(browser.run("document.getElementById('said').textContent"), "", "nothing was asked for");
    // It stays there while seconds come in and the table is renewed.
    browser.promised("new Promise((done) => setTimeout(done, 2500))");
    assert_eq!(
        (browser.focused(), browser.run("document.activeElement.closest('tr').dataset.name")),
        ("drain".into(), name.clone())
    );
    browser.enter();
    browser.until("the question", "document.getElementById('ask').open");
    browser.tab_to("ask-yes");
    browser.enter();
    browser.until("the outcome", "document.getElementById('said').className === 'done'");
    browser.until("the state", "document.querySelectorAll('#workers .state.draining').length === 1");
    // The same place undrains it now.
    browser.tab_to("undrain");
    assert_eq!(browser.run("document.activeElement.closest('tr').dataset.name"), name);
    // A pause, by the space bar.
    browser.run("document.getElementById('pause').focus()");
    browser.press(" ", 32, " ");
    browser.until("the pause", "document.getElementById('status').dataset.state === 'paused'");
}
