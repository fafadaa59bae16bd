//! The dashboard: complete without a script, and live in a browser where there is one (chromedriver).

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use troupe_testkit::http::Connection;
use troupe_testkit::load::{self, Load};
use troupe_testkit::stack::{Plan, Stack};
use troupe_testkit::{ports, wait};

use crate::support::{binary, functions};

/// Ten times what it takes.
const SOON: Duration = Duration::from_secs(30);

fn load(stack: &Stack) -> Load {
    Load::start(&load::Plan {
        addresses: stack.addresses.clone(),
        clients: 2,
        method: "GET",
        target: "/api/hello",
        pause: Duration::from_millis(20),
    })
}

#[test]
fn the_page_is_complete_without_a_script() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    for _ in 0..10 {
        assert_eq!(stack.get("/api/hello").status, 200);
    }
    let page = |stack: &mut Stack, path: &str| stack.instance("all").admin(path).unwrap();
    wait::until("the worker to be shown", SOON, || {
        page(&mut stack, "/dashboard").text().contains("<th scope=\"row\">local").then_some(())
    });
    for path in ["/dashboard", "/dashboard/"] {
        let answer = page(&mut stack, path);
        assert_eq!(answer.status, 200);
        let policy = answer.header("content-security-policy").to_owned();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = answer.text();
        assert!(text.contains("<noscript><meta http-equiv=\"refresh\""), "{text}");
        assert!(text.contains("No problems.") && text.contains("gateway, balancer, php-pool, metrics"), "{text}");
        // Nothing is run or styled inside of the page, and nothing comes from elsewhere.
        for foreign in ["style=", "onclick=", "src=\"http", "href=\"http", "<script>"] {
            assert!(!text.contains(foreign), "{foreign} in {text}");
        }
    }
    for file in ["dashboard.js", "dashboard.css", "icon.svg", "uplot.js", "uplot.css", "uplot-license.txt"] {
        let answer = page(&mut stack, &format!("/dashboard/{file}"));
        assert_eq!((answer.status, answer.header("x-content-type-options")), (200, "nosniff"), "{file}");
    }
}

/// Without a token, a page of another name that is made to lead here (DNS rebinding) gets to see nothing.
#[test]
fn the_page_is_not_shown_under_another_name_without_a_token() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    for (host, status) in [("evil.example", 403), ("localhost:9090", 200), ("127.0.0.1", 200)] {
        for path in ["/dashboard", "/dashboard/events"] {
            let mut connection = Connection::open(admin).unwrap();
            connection.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
            assert_eq!(connection.head().unwrap().status, status, "{path} asked of {host}");
        }
    }
}

/// Reads events off a stream: their names and data.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head = b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n";
        std::io::Write::write_all(&mut stream, head).unwrap();
        Self(BufReader::new(stream))
    }

    fn next(&mut self) -> (String, Value) {
        let mut name = String::new();
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
            if let Some(text) = line.strip_prefix("event: ") {
                name = text.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (name, serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[test]
fn a_stream_begins_with_everything_and_goes_on_second_by_second() {
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let admin = stack.instance("all").admin;
    let mut streams: Vec<Events> = (0..10).map(|_| Events::open(admin)).collect();
    for stream in &mut streams {
        let (name, all) = stream.next();
        assert_eq!(name, "snapshot");
        let mut tick = all["tick"].as_u64().unwrap();
        assert_eq!(all["columns"]["requests"].as_array().unwrap().len(), all["at"].as_array().unwrap().len());
        for _ in 0..2 {
            let (name, told) = stream.next();
            let now = told["tick"].as_u64().unwrap();
            assert!(name == "snapshot" || (name == "second" && now == tick + 1), "{name} {now} after {tick}");
            assert!(told["parts"]["tiles"].as_str().unwrap().contains("Requests per second"));
            tick = now;
        }
    }
    // One too many of them is told so, and those who leave make room.
    let more: Vec<Events> = (0..22).map(|_| Events::open(admin)).collect();
    wait::until("the seats to be taken", SOON, || {
        let mut late = Connection::open(admin).unwrap();
        late.send(b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        late.head().is_ok_and(|head| head.status == 503).then_some(())
    });
    drop((streams, more));
    wait::until("the seats to be free", SOON, || {
        let text = stack.instance("all").admin("/metrics").unwrap().text();
        text.contains("\ntroupe_metrics_viewers 0\n").then_some(())
    });
}

/// A browser under remote control.
struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
}

impl Browser {
    /// `None` on a machine without chromedriver.
    fn start() -> Option<Self> {
        let address = ports::free();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", address.port())).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = command.spawn().ok()?;
        wait::until("the driver to listen", SOON, || TcpStream::connect(address).ok().map(drop));
        let arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1600"];
        let wanted = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}}}});
        let mut browser = Self { driver, address, session: String::new() };
        let session = browser.ask("POST", "/session", &wanted);
        browser.session = format!("/session/{}", session["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
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

    fn go(&self, url: &str) {
        self.ask("POST", "/url", &json!({ "url": url }));
    }

    fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({ "script": format!("return {script}"), "args": [] }))
    }

    fn until(&self, what: &str, script: &str) {
        wait::until(what, SOON, || (self.run(script) == true).then_some(()));
    }
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

const LIVE: &str = "document.getElementById('status').dataset.state === 'live'";

#[test]
fn a_browser_shows_what_happens_and_survives_a_restart() {
    let Some(browser) = Browser::start() else { return };
    let mut stack = Plan::apart().with_metrics().start(binary(), &functions(), "");
    let clients = load(&stack);
    let admin = stack.instance("metrics").admin;
    browser.go(&format!("http://{admin}/dashboard"));
    browser.until("the page to be live", LIVE);
    browser.until("the charts to be drawn", "document.querySelectorAll('.plot canvas').length >= 8");
    browser.until("requests to be shown", "parseFloat(document.querySelector('.tile dd').textContent) > 5");
    browser.until("all four instances", "document.querySelectorAll('#services tbody tr').length === 4");
    browser.until("the worker", "document.querySelectorAll('#workers tbody tr').length === 1");
    let labelled = "[...document.querySelectorAll('.plot')].every((p) => p.getAttribute('role') === 'img' && p.getAttribute('aria-label'))";
    assert_eq!(browser.run(labelled), true);
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
