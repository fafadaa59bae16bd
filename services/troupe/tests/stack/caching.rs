//! Answers of PHP functions, cached.

use std::thread;
use std::time::Instant;

use troupe_testkit::http::{Connection, Response};
use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::{Then, Upstream};

use crate::support::{binary, functions, in_all, in_both};

/// A route that caches what the headers of its answers allow.
const CACHED: &str = "[[route]]\npath = \"/api/{function*}\"\nfunctions = \"default\"\ncache = true\n";

fn draw(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["draw"].as_str().unwrap_or_default().to_owned()
}

fn is_hit(response: &Response) -> bool {
    response.header("cache-status").starts_with("troupe-l1; hit")
}

/// Asks the admin listener of the gateway's process, as this machine.
fn ask_admin(stack: &Stack, method: &str, query: &str, fields: &str) -> Response {
    let mut admin = Connection::open(stack.instances[0].admin).unwrap();
    let head =
        format!("{method} /api/cache/purge?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{fields}\r\n");
    admin.send(head.as_bytes()).unwrap();
    admin.response(false).unwrap()
}

/// Orders a purge.
fn purge(stack: &Stack, query: &str) -> Response {
    ask_admin(stack, "POST", query, "X-Troupe-Request: 1\r\n")
}

#[test]
fn an_attribute_is_all_it_takes() {
    in_all(|stack| {
        // The first answer of a route that does not mention the cache tells that it wants to be.
        stack.get("/api/cached");
        let first = stack.get("/api/cached?a");
        let second = stack.get("/api/cached?a");
        assert!(is_hit(&second), "{:?}", second.headers);
        assert_eq!(draw(&first), draw(&second));
        assert_eq!(second.header("troupe-cache-control"), "");
        let mut connection = stack.connect();
        let german = connection.request("GET", "/api/cached?a", &[("Accept-Language", "de")], b"").unwrap();
        assert_eq!(german.json()["language"], "de");
        assert_eq!(draw(&stack.get("/api/cached?a")), draw(&first), "variants stand beside each other");
        assert_ne!(draw(&stack.get("/api/storable")), draw(&stack.get("/api/storable")));
    });
}

/// RFC 9211 §2.7: what the answer is found by, and not what the client wrote.
#[test]
fn people_who_develop_are_told_the_key() {
    let cached =
        CACHED.replace("cache = true", "cache = { ttl = \"60s\", sort_query = true, ignore_query = [\"utm_*\"] }");
    in_both(&format!("node.development = true\n{cached}"), |stack| {
        let mut connection = stack.connect();
        let mut ask = |target: &str| {
            connection.send(format!("GET {target} HTTP/1.1\r\nHost: A.Example:80\r\n\r\n").as_bytes()).unwrap();
            connection.response(false).unwrap().header("cache-status").to_owned()
        };
        let key = "; key=\"http://a.example/api/storable?a=2&b=1\"";
        let missed = ask("/api/./storable?utm_source=x&b=1&a=2");
        assert!(missed.contains("troupe-l1; fwd=uri-miss") && missed.contains(key), "{missed}");
        let hit = ask("/api/storable?a=2&b=1");
        assert!(hit.starts_with("troupe-l1; hit") && hit.contains(key), "{hit}");
    });
}

#[test]
fn headers_decide_where_the_route_says_so() {
    in_both(CACHED, |stack| {
        let twice = |target: &str| [stack.get(target), stack.get(target)].map(|response| draw(&response));
        let kept = twice("/api/storable?cc=max-age%3D60");
        assert_eq!(kept[0], kept[1]);
        for never in ["", "?cc=no-store", "?cc=private,max-age%3D60", "?cc=max-age%3D60&cookie=1", "?cc=max-age%3D0"] {
            let fresh = twice(&format!("/api/storable{never}"));
            assert_ne!(fresh[0], fresh[1], "{never}");
        }
        // Validated by the function itself: the body is the one of before.
        let validated = twice("/api/storable?cc=no-cache&etag=v1");
        assert_eq!(validated[0], validated[1]);
        let again = stack.get("/api/storable?cc=no-cache&etag=v1");
        assert!(again.header("cache-status").contains("fwd=stale; fwd-status=304"), "{:?}", again.headers);
    });
}

#[test]
fn a_hundred_at_once_are_one_call_or_a_hundred() {
    let config = format!("{CACHED}[php.default.processes]\nmin = 4\nmax = 100\n");
    in_both(&config, |stack| {
        let address = stack.address;
        let at_once = |target: &str| {
            let target = target.to_owned();
            let clients: Vec<_> = (0..100)
                .map(|_| {
                    let target = target.clone();
                    thread::spawn(move || draw(&troupe_testkit::http::get(address, &target).unwrap()))
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect::<std::collections::HashSet<_>>().len()
        };
        assert_eq!(at_once("/api/storable?cc=max-age%3D60&ms=300"), 1);
        // What is not stored is not shared, and nobody waits for another: one by one it would take ten seconds.
        let began = Instant::now();
        assert_eq!(at_once("/api/storable?cc=no-store&ms=100"), 100);
        assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    });
}

#[test]
fn an_unsafe_request_and_a_purge_take_it_out() {
    in_both(CACHED, |stack| {
        let target = "/api/storable?cc=max-age%3D600";
        let host = "http://troupe.test";
        let mut connection = stack.connect();
        let mut get = |target: &str| connection.request("GET", target, &[], b"").unwrap();
        let first = draw(&get(target));
        assert_eq!(draw(&get(target)), first);
        assert_eq!(stack.connect().request("POST", target, &[], b"").unwrap().status, 200);
        let second = draw(&get(target));
        assert_ne!(first, second);

        let encoded = format!("url={host}/api/storable%3Fcc=max-age%253D600");
        let purged = purge(stack, &encoded);
        assert_eq!(
            (purged.status, purged.json()["urls"].as_u64(), purged.json()["responses"].as_u64()),
            (200, Some(1), Some(1)),
            "{}",
            purged.text()
        );
        let third = draw(&get(target));
        assert_ne!(second, third);
        assert_eq!(purge(stack, "prefix=http://troupe.test/api/stor").json()["urls"], 1);
        assert_ne!(draw(&get(target)), third);

        get("/api/cached?x");
        let kept = draw(&get("/api/cached?x"));
        assert_eq!(purge(stack, "group=nobody").json()["urls"], 0);
        assert_eq!(draw(&get("/api/cached?x")), kept);
        assert_eq!(purge(stack, "group=draws").json()["urls"], 1);
        assert_ne!(draw(&get("/api/cached?x")), kept);
        assert_eq!(purge(stack, "host=elsewhere").json()["urls"], 0);
        assert_eq!(purge(stack, "host=troupe.test").json()["urls"], 2);

        draw(&get(target));
        let admin = format!("http://{}", stack.instances[0].admin);
        let command = |arguments: &[&str]| {
            std::process::Command::new(crate::support::binary())
                .args(arguments)
                .args(["--admin", &admin])
                .output()
                .unwrap()
        };
        let told = command(&["purge", &format!("{host}{target}")]);
        assert_eq!(String::from_utf8_lossy(&told.stdout), "removed: 1 URLs, 1 answers\n", "{told:?}");
        assert_eq!(
            (command(&["purge", "nonsense"]).status.code(), command(&["purge"]).status.code()),
            (Some(1), Some(2))
        );

        for (query, status) in [("", 400), ("all=true&group=x", 400), ("url=nonsense", 400)] {
            assert_eq!(purge(stack, query).status, status, "{query}");
        }
        assert_eq!(ask_admin(stack, "POST", "all=true", "").status, 403, "a browser's page");
        assert_eq!(ask_admin(stack, "GET", "all=true", "").status, 405);
    });
}

#[test]
fn a_function_that_fails_is_stood_in_for() {
    let route = "[[route]]\npath = \"/api/{function*}\"\nfunctions = \"default\"\ncache = { ttl = \"1s\", stale_if_error = \"10m\" }\n";
    in_both(route, |stack| {
        let target = "/api/fails-later";
        let file = stack.home().join("fails-later");
        let ask = format!("{target}?file={}", file.display());
        let first = stack.get(&ask);
        let body = draw(&first);
        std::fs::write(&file, "").unwrap();
        let stale = troupe_testkit::wait::until("a stale answer", std::time::Duration::from_secs(20), || {
            let response = stack.get(&ask);
            response.header("cache-status").contains("detail=origin-failed").then_some(response)
        });
        assert_eq!(draw(&stale), body);
        assert!(stale.header("age").parse::<u64>().unwrap() >= 1);
        std::fs::remove_file(&file).unwrap();
        troupe_testkit::wait::until("a new answer", std::time::Duration::from_secs(20), || {
            (draw(&stack.get(&ask)) != body).then_some(())
        });
    });
}

#[test]
fn what_the_cache_does_is_counted() {
    in_both(CACHED, |stack| {
        let target = "/api/storable?cc=max-age%3D600";
        for _ in 0..3 {
            stack.get(target);
        }
        stack.get("/api/storable?cc=no-store");
        let counted = |result: &str| {
            let text = stack.instances[0].admin("/metrics").map(|metrics| metrics.text()).unwrap_or_default();
            text.lines()
                .filter(|line| {
                    line.starts_with("troupe_gateway_cache_requests_total")
                        && line.contains(&format!("result=\"{result}\""))
                })
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                .sum::<u64>()
        };
        troupe_testkit::wait::until("the counts", std::time::Duration::from_secs(20), || {
            (counted("hit") >= 2 && counted("miss") >= 2).then_some(())
        });
        let text = stack.instances[0].admin("/metrics").map(|metrics| metrics.text()).unwrap_or_default();
        assert!(
            text.contains("troupe_gateway_cache_bytes{tier=\"l1\"}")
                && text.contains("troupe_gateway_cache_evicted_total"),
            "{text}"
        );
    });
}

/// RFC 9111 §3.1: trailer fields become no fields of the head, neither of what is passed on nor of what is stored: they are left
/// out, and what they say of caching counts for nothing.
#[test]
fn trailers_never_become_fields() {
    let server = Upstream::start(|exchange| {
        exchange.send(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTrailer: X-Late, Cache-Control\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nX-Late: 1\r\nCache-Control: no-store\r\nContent-Length: 1\r\n\r\n",
        )?;
        Ok(Then::Keep)
    });
    let config = format!(
        "[[route]]\npath = \"/{{rest*}}\"\nupstream = \"app\"\ncache = true\n[upstream.app]\nservers = [\"{}\"]\n",
        server.address
    );
    let mut stacks = 0;
    for stack in [Stack::one_process(binary(), &functions(), &config), Stack::apart(binary(), &functions(), &config)] {
        stacks += 1;
        let first = stack.get("/a");
        let second = stack.get("/a");
        assert!(is_hit(&second) && !is_hit(&first), "{:?}", second.headers);
        for answer in [first, second] {
            assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
            assert_eq!(answer.header("cache-control"), "max-age=600");
            assert!(
                !answer.headers.iter().any(|(name, _)| name == "x-late" || name == "trailer"),
                "{:?}",
                answer.headers
            );
        }
        assert_eq!(server.requests().iter().filter(|request| request.target() == "/a").count(), stacks);
    }
}

#[test]
fn what_has_to_make_room_is_counted_by_route() {
    let body = "x".repeat(20_000);
    let server = Upstream::start(move |exchange| {
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))?;
        Ok(Then::Keep)
    });
    let route = |path: &str| format!("[[route]]\npath = \"{path}\"\nupstream = \"app\"\ncache = true\n");
    let config = format!(
        "cache.l1 = {{ size = \"1MiB\", max_object = \"64KiB\" }}\n{}{}[upstream.app]\nservers = [\"{}\"]\n",
        route("/many/{rest*}"),
        route("/few/{rest*}"),
        server.address
    );
    let stack = Stack::one_process(binary(), &functions(), &config);
    let mut client = stack.connect();
    assert_eq!(client.request("GET", "/few/1", &[], b"").unwrap().status, 200);
    for n in 0..250 {
        assert_eq!(client.request("GET", &format!("/many/{n}"), &[], b"").unwrap().status, 200);
    }
    let page = stack.instances[0].admin("/metrics").unwrap().text();
    let evicted = |route: &str| {
        let wanted = format!("route=\"{route}\"");
        let mut lines = page.lines().filter(|line| line.starts_with("troupe_gateway_cache_evicted_total{"));
        let line = lines.find(|line| line.contains(&wanted) && line.contains("tier=\"l1\""));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    // A mebibyte holds about fifty of them.
    let (many, few) = (evicted("/many/{rest*}").unwrap(), evicted("/few/{rest*}").unwrap());
    assert!((150.0..=250.0).contains(&many) && few <= 1.0, "{many} {few}");
}
