//! What operators see.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use troupe_gateway::Options;
use troupe_gateway::config::GatewayConfig;
use troupe_node::config::LogFormat;
use troupe_node::telemetry::Origin;

use crate::support::*;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn lines(&self, count: usize) -> Vec<String> {
        let start = Instant::now();
        loop {
            let text = String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text");
            if text.lines().count() >= count {
                return text.lines().map(str::to_owned).collect();
            }
            assert!(start.elapsed() < PATIENCE, "{text}");
            pause(Duration::from_millis(10));
        }
    }
}

#[test]
fn an_access_log_that_is_off_writes_nothing() {
    for on in [true, false] {
        let written = Written::default();
        let options = Options { threads: 1, log_to: Some(Box::new(written.clone())), ..Options::default() };
        let running = serve_with(GatewayConfig { access_log: on, ..config() }, &functions(), options, echo);
        let mut client = Client::connect(&running);
        assert_eq!(client.get("/hello").status, 200);
        assert_eq!(client.get("/health").status, 200);
        if on {
            written.lines(2);
        }
        // Longer than entries are collected for.
        pause(Duration::from_millis(500));
        assert_eq!(written.0.lock().expect("no panic").is_empty(), !on);
    }
}

fn logged(format: LogFormat, apart: bool) -> Vec<String> {
    let written = Written::default();
    let options = Options {
        threads: 1,
        log_format: format,
        log_origin: Origin { service: "gateway".into(), instance: "host/7".into(), apart },
        log_to: Some(Box::new(written.clone())),
        ..Options::default()
    };
    let running = serve_with(GatewayConfig { access_log: true, ..config() }, &functions(), options, echo);
    let mut client = Client::connect(&running);
    client.send("GET /hello?a=b HTTP/1.1\r\nHost: a\r\nX-Request-Id: id-1\r\nUser-Agent: \"x\"\r\n\r\n");
    assert_eq!(client.response(false).status, 200);
    assert_eq!(client.send("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n").response(true).status, 200);
    assert_eq!(client.send("nonsense\r\n\r\n").response(false).status, 400);
    written.lines(3)
}

#[test]
fn the_access_log_has_a_line_for_each_request() {
    let lines = logged(LogFormat::Text, false);
    assert!(
        lines[0].starts_with("127.0.0.1 - - [") && lines[0].contains("\"GET /hello?a=b HTTP/1.1\" 200 "),
        "{}",
        lines[0]
    );
    assert!(lines[0].contains("\"-\" \"\\\"x\\\"\" ") && lines[0].contains("ms id-1 "), "{}", lines[0]);
    let traces = lines.iter().map(|line| line.rsplit(' ').next().unwrap_or_default());
    assert!(traces.clone().all(|trace| trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit())));
    assert_eq!(traces.collect::<std::collections::HashSet<_>>().len(), 3, "{lines:?}");
    // Where other services log, too, a line says whose it is.
    assert!(logged(LogFormat::Text, true).iter().all(|line| line.ends_with(" gateway host/7")));
    assert!(lines[1].contains("\"HEAD /health HTTP/1.1\" 200 0 "), "{}", lines[1]);
    assert!(lines[2].contains("\"- - -\" 400 "), "{}", lines[2]);
}

#[test]
fn the_access_log_is_json_for_programs() {
    let lines: Vec<serde_json::Value> =
        logged(LogFormat::Json, false).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["status"], &lines[0]["target"], &lines[0]["route"]),
        (&200.into(), &"/hello?a=b".into(), &"/{function*}".into())
    );
    assert_eq!((&lines[0]["request_id"], &lines[0]["user_agent"]), (&"id-1".into(), &"\"x\"".into()));
    assert_eq!((&lines[1]["method"], &lines[2]["status"]), (&"HEAD".into(), &400.into()));
    assert!(lines[0]["duration_us"].as_u64().unwrap() < 10_000_000);
    assert!(lines.iter().all(|line| line["trace_id"].as_str().is_some_and(|trace| trace.len() == 32)), "{lines:?}");
    assert!(lines.iter().all(|line| line["service"] == "gateway" && line["instance"] == "host/7"), "{lines:?}");
}
