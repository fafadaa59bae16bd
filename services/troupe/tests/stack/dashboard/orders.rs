//! Who may see the dashboard, at the admin listener and at a gateway, and what is done with workers by it.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;
use troupe_testkit::http::{Connection, Response};
use troupe_testkit::stack::{Plan, Stack};
use troupe_testkit::wait;

use super::SOON;
use crate::support::{binary, functions};

const GUARD: &str = "X-Troupe-Request: 1\r\n";
/// `:a word that is long enough`, as basic auth sends it.
const BASIC: &str = "Authorization: Basic OmEgd29yZCB0aGF0IGlzIGxvbmcgZW5vdWdo\r\n";
const WRONG: &str = "Authorization: Bearer a guess\r\n";

fn ask(address: SocketAddr, method: &str, path: &str, fields: &str) -> Response {
    let mut connection = Connection::open(address).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    connection.send(head.as_bytes()).unwrap();
    connection.response(false).unwrap()
}

/// `POST /dashboard/workers/ACT` for the worker at `index` of the balancer's table.
fn order(stack: &mut Stack, at: SocketAddr, act: &str, index: usize, fields: &str) -> Response {
    let workers = workers(stack);
    let (pool, instance) = ("default", workers[index]["instance"].as_str().unwrap().to_owned());
    let page = ask(at, "GET", "/dashboard", fields).text();
    let balancer = page.split("data-balancer=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    ask(at, "POST", &format!("/dashboard/workers/{act}?balancer={balancer}&worker={pool}/{instance}"), fields)
}

fn workers(stack: &mut Stack) -> Vec<Value> {
    let all = stack.instance("balancer").admin("/api/workers").unwrap().json();
    all["pools"][0]["workers"].as_array().unwrap().clone()
}

fn state(stack: &mut Stack, instance: &Value) -> Value {
    workers(stack)
        .into_iter()
        .find(|worker| worker["instance"] == *instance)
        .map_or(Value::Null, |worker| worker["state"].clone())
}

fn await_table(at: SocketAddr, fields: &str, rows: usize) {
    wait::until("the workers to be shown", SOON, || {
        (ask(at, "GET", "/dashboard", fields).text().matches("data-act=\"restart\"").count() == rows).then_some(())
    });
}

#[test]
fn orders_reach_the_balancer_and_what_came_of_them_comes_back() {
    let mut stack = Plan::apart().two("php-pool").with_metrics().start(binary(), &functions(), "");
    let at = stack.instance("metrics").admin;
    await_table(at, "", 2);
    let one = workers(&mut stack)[0]["instance"].clone();
    // A page of another origin can make a browser send a POST, but not the header.
    let refused = order(&mut stack, at, "drain", 0, "");
    assert_eq!(refused.status, 403, "{}", refused.text());

    let done = order(&mut stack, at, "drain", 0, GUARD);
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(state(&mut stack, &one), "draining");
    // The table may have changed its order.
    let other = workers(&mut stack).iter().position(|worker| worker["instance"] != one).unwrap();
    let only = order(&mut stack, at, "drain", other, GUARD);
    assert_eq!(only.status, 409, "{}", only.text());
    assert!(only.text().contains("only worker"), "{}", only.text());
    let held = workers(&mut stack).iter().position(|worker| worker["instance"] == one).unwrap();
    assert_eq!(order(&mut stack, at, "undrain", held, GUARD).status, 200);
    assert_eq!(state(&mut stack, &one), "ready");

    let renewed = order(&mut stack, at, "restart", 0, GUARD);
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    assert!(renewed.json()["said"].as_str().unwrap().ends_with("processes replaced"), "{}", renewed.text());
    let log = stack.instance("balancer").log();
    assert!(log.contains("workers/drain") && log.contains("the dashboard"), "{log}");

    for (path, status) in [
        ("/dashboard/workers/explode?balancer=x&worker=y", 404),
        ("/dashboard/workers/drain?balancer=x", 400),
        ("/dashboard/workers/drain?balancer=nobody&worker=default/local", 404),
        ("/dashboard/other", 404),
    ] {
        assert_eq!(ask(at, "POST", path, GUARD).status, status, "{path}");
    }
    // An order to a process that is gone is refused, not lost.
    let name = ask(at, "GET", "/dashboard", "").text();
    let name = name.split("data-balancer=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    stack.instance("balancer").kill();
    let path = format!("/dashboard/workers/undrain?balancer={name}&worker=default/x");
    wait::until("the silence to be noticed", SOON, || (ask(at, "POST", &path, GUARD).status == 503).then_some(()));
}

/// A stack whose gateways show the dashboard, with a token.
fn shown(apart: bool) -> (Stack, SocketAddr) {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.keep().join("admin.token");
    fs::write(&token, "a word that is long enough").unwrap();
    let config = format!("gateway.dashboard = true\nadmin.token_file = {:?}\n", token.display().to_string());
    let stack = match apart {
        true => Plan::apart().with_metrics().start(binary(), &functions(), &config),
        false => Stack::one_process(binary(), &functions(), &config),
    };
    let address = stack.address;
    (stack, address)
}

#[test]
fn a_gateway_shows_the_dashboard_to_whoever_has_the_token() {
    for apart in [false, true] {
        let (mut stack, at) = shown(apart);
        let anonymous = wait::until("an answer", SOON, || {
            let answer = ask(at, "GET", "/dashboard", "");
            (answer.status != 503).then_some(answer)
        });
        assert_eq!(anonymous.status, 401, "{}", anonymous.text());
        assert!(anonymous.headers_named("www-authenticate").iter().any(|asked| asked.starts_with("Basic")));
        await_table(at, BASIC, 1);
        let page = ask(at, "GET", "/dashboard/", BASIC);
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
        assert_eq!(ask(at, "GET", "/dashboard/dashboard.js", "").status, 200);
        assert_eq!(ask(at, "GET", "/dashboard/other", BASIC).status, 404);
        assert_eq!(ask(at, "GET", "/dashboards", BASIC).status, 404, "that is no part of it");

        // Its stream goes on second by second, and is no request that takes long.
        let mut stream = Connection::open(at).unwrap();
        stream.send(format!("GET /dashboard/events HTTP/1.1\r\nHost: x\r\n{BASIC}\r\n").as_bytes()).unwrap();
        assert_eq!(stream.head().unwrap().header("content-type"), "text/event-stream");
        let mut text = String::new();
        while text.matches("event: second").count() < 2 {
            text.push_str(&String::from_utf8_lossy(&stream.chunk().unwrap().expect("the stream goes on")));
        }
        assert!(text.starts_with("event: snapshot"), "{text:.40}");
        assert!(!ask(at, "GET", "/dashboard", BASIC).text().contains("/dashboard/events"), "it shows itself as slow");

        let refused = ask(at, "POST", "/dashboard/workers/restart?balancer=x&worker=y", BASIC);
        assert_eq!(refused.status, 403, "{}", refused.text());
        let unknown = ask(at, "POST", "/dashboard/workers/restart?balancer=x&worker=y", &format!("{BASIC}{GUARD}"));
        assert_eq!(unknown.status, 404, "{}", unknown.text());

        // A drain ends the stream, and does not wait for it.
        let service = if apart { "gateway" } else { "all" };
        stack.instance(service).signal(rustix::process::Signal::TERM);
        while let Ok(Some(_)) = stream.chunk() {}
        assert_eq!(stack.instance(service).wait().code(), Some(0), "{}", stack.logs());
    }
}

#[test]
fn guesses_at_the_token_are_limited_and_logged() {
    let (mut stack, at) = shown(true);
    let at_admin = stack.instance("metrics").admin;
    wait::until("the gateway to have its link", SOON, || {
        (ask(at, "GET", "/dashboard", BASIC).status == 200).then_some(())
    });
    let statuses: Vec<u16> = (0..12).map(|_| ask(at, "GET", "/dashboard/events", WRONG).status).collect();
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10..], [429; 2]);
    assert_eq!(ask(at, "GET", "/dashboard", BASIC).status, 429, "the right one waits, too");
    // The admin listener counts the same guesses.
    assert_eq!(ask(at_admin, "GET", "/dashboard", WRONG).status, 429);
    let log = stack.instance("metrics").log();
    assert!(log.contains("too many wrong credentials"), "{log}");
}
