//! The dashboard: complete without a script, live with one, and who may see it and change something by it.

mod browser;
mod keys;
mod looks;
mod orders;
mod rows;
mod words;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use troupe_testkit::http::Connection;
use troupe_testkit::load::{self, Load};
use troupe_testkit::stack::Stack;
use troupe_testkit::wait;

use crate::support::{binary, functions};

/// Ten times what it takes.
const SOON: Duration = Duration::from_secs(30);

fn load(stack: &Stack, target: &'static str) -> Load {
    Load::start(&load::Plan {
        addresses: stack.addresses.clone(),
        clients: 2,
        method: "GET",
        body: b"",
        target,
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
        assert!(text.contains("data-act=\"restart\"") && text.contains("in one process"), "{text}");
        assert!(
            text.contains("No problems.") && text.contains("gateway, balancer, php-pool, cache, metrics"),
            "{text}"
        );
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
        assert!(all["parts"]["tiles"].as_str().unwrap().contains("Requests per second"));
        let mut tick = all["tick"].as_u64().unwrap();
        assert_eq!(all["columns"]["requests"].as_array().unwrap().len(), all["at"].as_array().unwrap().len());
        for _ in 0..2 {
            let (name, told) = stream.next();
            let now = told["tick"].as_u64().unwrap();
            assert!(name == "snapshot" || (name == "second" && now == tick + 1), "{name} {now} after {tick}");
            tick = now;
        }
    }
    // Where nothing happens, most of the page is not told again.
    let stream = &mut streams[0];
    wait::until("a second without news", SOON, || {
        let (name, told) = stream.next();
        let parts = told["parts"].as_object().unwrap();
        (name == "second" && !parts.contains_key("workers") && !parts.contains_key("problems")).then_some(())
    });
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
