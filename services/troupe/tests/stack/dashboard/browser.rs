//! A browser under remote control, by chromedriver.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use troupe_testkit::http::Connection;
use troupe_testkit::tools::{self, CHROMIUM};
use troupe_testkit::{ports, wait};

use super::SOON;

/// True of a page that is told of each second.
pub(super) const LIVE: &str = "document.getElementById('status').dataset.state === 'live'";

/// See the module.
pub(super) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// `None` on a machine without one, where that is allowed.
    pub(super) fn start() -> Option<Self> {
        if !tools::there(&CHROMIUM) {
            return None;
        }
        let address = ports::free();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", address.port())).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = command.spawn().expect("chromedriver starts");
        wait::until("the driver to listen", SOON, || TcpStream::connect(address).ok().map(drop));
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1600"];
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let mut browser = Self { driver, address, session: String::new() };
        let session = browser.ask("POST", "/session", &wanted);
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    pub(super) fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut connection = Connection::open(self.address).unwrap();
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let path = format!("{}{path}", self.session);
        // The driver speaks to nobody but this machine.
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        connection.send((head + &body).as_bytes()).unwrap();
        let answer = connection.response(false).unwrap().json();
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }

    pub(super) fn go(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url }));
    }

    /// Goes to the dashboard at `admin`, until it is live.
    pub(super) fn open(&self, admin: SocketAddr) {
        self.go(&format!("http://{admin}/dashboard"));
        self.until("the page to be live", LIVE);
    }

    pub(super) fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({ "script": format!("return {script}"), "args": [] }))
    }

    pub(super) fn until(&self, what: &str, script: &str) {
        wait::until(what, SOON, || (self.run(script) == true).then_some(()));
    }

    /// Waits until the part of the page with this id says `words`, or says them no more.
    pub(super) fn says(&self, id: &str, words: &str, said: bool) {
        let words = json!(words);
        let script = format!("document.getElementById('{id}').textContent.includes({words}) === {said}");
        self.until(&format!("{id} to say {words}: {said}"), &script);
    }

    /// Runs a script that ends with a promise.
    pub(super) fn promised(&self, script: &str) -> Value {
        let script = format!("const done = arguments[0]; ({script}).then(done, (error) => done(String(error)));");
        self.ask("POST", "/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// A command of Chromium's own.
    pub(super) fn chromium(&self, command: &str, parameters: &Value) -> Value {
        self.ask("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Shows pages as a screen of this size and colour scheme does.
    pub(super) fn looks(&self, width: u32, height: u32, scheme: &str) {
        let phone = width < 600;
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone });
        self.chromium("Emulation.setDeviceMetricsOverride", &size);
        self.chromium("Emulation.setScrollbarsHidden", &json!({ "hidden": true }));
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.chromium("Emulation.setEmulatedMedia", &media);
    }

    /// Keeps a picture of the whole page below `target/dashboard`.
    pub(super) fn picture(&self, name: &str) {
        let shot = self.chromium("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        let bytes = STANDARD.decode(shot["data"].as_str().expect("a picture")).expect("base64");
        assert!(bytes.len() > 10_000 && bytes.starts_with(b"\x89PNG"), "{name}: {} bytes", bytes.len());
        let folder = target().join("dashboard");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }
}

/// The workspace's own folder for what tests leave behind.
pub(super) fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder").to_owned()
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty()
            && let Ok(mut connection) = Connection::open(self.address)
        {
            // The browser ends with its session, not with the driver.
            let head = format!("DELETE {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.session);
            let _ = connection.send(head.as_bytes()).and_then(|()| connection.response(false));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
