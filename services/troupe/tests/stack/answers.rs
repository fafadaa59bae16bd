//! What a client gets to see.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use troupe_testkit::http::Connection;
use troupe_testkit::stack::Stack;
use troupe_testkit::wait;

use crate::support::{in_all, in_both};

/// Ten times what a line of the log takes on a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_function_answers_json() {
    in_all(|stack| {
        let response = stack.get("/api/hello?name=Ada");
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), "application/json");
        assert_eq!(response.json(), serde_json::json!({"message": "hello", "name": "Ada"}));
        assert!(!response.header("x-request-id").is_empty());
    });
}

#[test]
fn what_the_client_sends_arrives() {
    in_all(|stack| {
        let mut connection = stack.connect();
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Cookie", "a=1; b=two%20words"),
            ("X-Request-Id", "kept-42"),
            ("traceparent", trace),
        ];
        let response = connection.request("POST", "/api/echo?q[x]=1&q[y]=2", &headers, b"k=v&l[]=1&l[]=2").unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        let seen = response.json();
        assert_eq!(seen["method"], "POST");
        assert_eq!(seen["uri"], "/api/echo?q[x]=1&q[y]=2");
        assert_eq!(seen["get"], serde_json::json!({"q": {"x": "1", "y": "2"}}));
        assert_eq!(seen["post"], serde_json::json!({"k": "v", "l": ["1", "2"]}));
        assert_eq!(seen["cookie"], serde_json::json!({"a": "1", "b": "two words"}));
        assert_eq!(seen["id"], "kept-42");
        assert_eq!(response.header("x-request-id"), "kept-42");
        let parent = seen["trace"].as_str().unwrap();
        assert!(parent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && parent.ends_with("-01"), "{parent}");
        assert_ne!(parent, trace, "PHP's parent is the gateway's span");
    });
}

#[test]
fn headers_cookies_and_the_status_are_the_functions_own() {
    in_all(|stack| {
        let response = stack.get("/api/headers");
        assert_eq!(response.status, 418);
        assert_eq!(response.header("x-one"), "1");
        assert_eq!(response.headers_named("x-many"), ["a", "b"]);
        let cookies = response.headers_named("set-cookie");
        assert!(cookies[0].starts_with("first=1") && cookies[1].starts_with("second=2"), "{cookies:?}");
        assert!(response.header("content-type").starts_with("text/html"));
        assert_eq!(response.text(), "<p>teapot</p>");
    });
}

#[test]
fn what_is_not_there_is_a_problem_document() {
    let config = "[[route]]\npath = \"/api/{function*}\"\nfunctions = \"default\"\n\
                  [[route]]\npath = \"/only\"\nfunction = \"hello\"\nfunctions = \"default\"\nmethods = [\"GET\", \"PUT\"]\n";
    in_both(config, |stack| {
        for (target, status) in [("/api/no-such-function", 404), ("/nowhere", 404)] {
            let response = stack.get(target);
            assert_eq!(response.status, status, "{target}");
            assert_eq!(response.header("content-type"), "application/problem+json");
            assert_eq!(response.json()["status"], status);
        }
        let mut connection = stack.connect();
        let response = connection.request("DELETE", "/only", &[], b"").unwrap();
        assert_eq!(response.status, 405);
        assert!(response.header("allow").contains("GET") && response.header("allow").contains("PUT"));
        let page = connection.request("GET", "/nowhere", &[("Accept", "text/html")], b"").unwrap();
        assert!(page.header("content-type").starts_with("text/html"));
    });
}

#[test]
fn head_has_the_head_of_get_and_no_body() {
    in_all(|stack| {
        let mut connection = stack.connect();
        let got = connection.request("GET", "/api/hello", &[], b"").unwrap();
        let head = connection.request("HEAD", "/api/hello", &[], b"").unwrap();
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length"), got.body.len().to_string());
        assert_eq!(connection.request("GET", "/api/hello", &[], b"").unwrap().body, got.body);
    });
}

#[test]
fn bodies_of_any_size_pass_both_ways() {
    in_all(|stack| {
        let mut connection = stack.connect();
        for size in [1, 31_000, 33_000, 200_000, 5_000_000] {
            let body: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
            let headers = [("Content-Type", "application/octet-stream")];
            let response = connection.request("POST", "/api/echo", &headers, &body).unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.json()["length"], size, "upload of {size}");
        }
        let response = connection.request("GET", "/api/stream?pieces=100&bytes=100000", &[], b"").unwrap();
        assert_eq!(response.body.len(), 10_000_000);
    });
}

#[test]
fn an_upload_is_a_file_for_the_function() {
    in_all(|stack| {
        let file = vec![b'z'; 300_000];
        let mut body = b"--X\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\nNotes\r\n\
            --X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\
            Content-Type: application/octet-stream\r\n\r\n"
            .to_vec();
        body.extend_from_slice(&file);
        body.extend_from_slice(b"\r\n--X--\r\n");
        let headers = [("Content-Type", "multipart/form-data; boundary=X")];
        let response = stack.connect().request("POST", "/api/echo", &headers, &body).unwrap();
        let seen = response.json();
        assert_eq!(seen["post"]["title"], "Notes", "{}", response.text());
        assert_eq!(seen["files"]["file"][0], "a.bin");
        assert_eq!(seen["files"]["file"][1], 300_000);
        assert_eq!(seen["files"]["file"][2], 0);
    });
}

#[test]
fn a_generator_streams_piece_by_piece() {
    in_all(|stack| {
        let mut connection = stack.connect();
        connection.send(b"GET /api/stream?pieces=3&ms=50 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let head = connection.head().unwrap();
        assert_eq!(head.status, 200);
        assert!(head.header("content-type").starts_with("text/event-stream"));
        let mut pieces = Vec::new();
        while let Some(piece) = connection.chunk().unwrap() {
            pieces.push(String::from_utf8(piece).unwrap());
        }
        assert_eq!(pieces, ["data: 0\n\n", "data: 1\n\n", "data: 2\n\n"]);
    });
}

#[test]
fn exit_keeps_status_headers_and_output() {
    in_all(|stack| {
        for _ in 0..20 {
            let response = stack.get("/api/exits");
            assert_eq!((response.status, response.text().as_str()), (403, "x"));
            assert_eq!(response.header("x-before"), "exit");
        }
    });
}

#[test]
fn errors_in_php_are_500_and_keep_their_secrets() {
    in_all(|stack| {
        for function in ["throws", "exhausts"] {
            let response = stack.get(&format!("/api/{function}"));
            assert_eq!(response.status, 500, "{function}");
            assert!(!response.text().contains("secret"), "{}", response.text());
            assert_eq!(response.json()["status"], 500);
        }
        wait::until("the operator to be told", SOON, || stack.logs().contains("a secret of the house").then_some(()));
        assert_eq!(stack.get("/api/hello").status, 200);
    });
}

#[test]
fn noise_ends_in_the_log_and_nowhere_else() {
    in_all(|stack| {
        assert_eq!(stack.get("/api/noisy").json(), serde_json::json!({"quiet": true}));
        for noise in ["noise on stdout", "noise on stderr", "noise from a child", "a warning to be logged"] {
            wait::until(noise, SOON, || stack.logs().contains(noise).then_some(()));
        }
    });
}

#[test]
fn sessions_of_two_users_never_mix() {
    in_all(|stack| {
        let alice = stack.get("/api/session?user=alice");
        let cookie = alice.header("set-cookie").split(';').next().unwrap().to_owned();
        let mut connection = stack.connect();
        for round in 0..20 {
            let bob = connection.request("GET", "/api/session?user=bob", &[], b"").unwrap();
            assert_eq!(bob.json()["user"], "bob", "round {round}");
            let again = connection.request("GET", "/api/session", &[("Cookie", &cookie)], b"").unwrap();
            assert_eq!(again.json()["user"], "alice", "round {round}");
        }
    });
}

#[test]
fn processes_draw_different_random_numbers() {
    in_both("[php.default.processes]\nmin = 8\nmax = 8\n", |stack| {
        let address = stack.address;
        let draws: Vec<_> = (0..8)
            .map(|_| thread::spawn(move || troupe_testkit::http::get(address, "/api/random").unwrap().json()))
            .map(|thread| thread.join().unwrap())
            .collect();
        let different: HashSet<_> = draws.iter().map(|draw| draw["draw"].as_u64().unwrap()).collect();
        assert_eq!(different.len(), 8, "{draws:?}");
    });
}

#[test]
fn many_clients_at_once_get_their_own_answers() {
    in_all(|stack| {
        let address = stack.address;
        let clients: Vec<_> = (0..64)
            .map(|client| {
                thread::spawn(move || {
                    let mut connection = Connection::open(address).unwrap();
                    for round in 0..50 {
                        let name = format!("{client}-{round}");
                        let target = format!("/api/hello?name={name}");
                        let response = connection.request("GET", &target, &[], b"").unwrap();
                        assert_eq!(response.status, 200, "{}", response.text());
                        assert_eq!(response.json()["name"], name);
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
    });
}

/// PHP's limit of a file is the pool's `ini`, or PHP's own default: it is not an error of the request.
#[test]
fn a_file_beyond_phps_limit_is_left_out_and_says_so() {
    let upload = |stack: &mut Stack, bytes: usize| {
        let head = "--X\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n\
                    --X\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.bin\"\r\n\r\n";
        let mut body = head.as_bytes().to_vec();
        body.resize(body.len() + bytes, b'x');
        body.extend_from_slice(b"\r\n--X--\r\n");
        let headers = [("Content-Type", "multipart/form-data; boundary=X")];
        let answer = stack.connect().request("POST", "/api/uploads", &headers, &body).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["note"], "hello");
        let file = answer.json()["file"].clone();
        (file["error"].as_u64().unwrap(), file["size"].as_u64().unwrap())
    };
    const MIB: usize = 1 << 20;
    in_both("", |stack| {
        assert_eq!(upload(stack, 2 * MIB), (0, 2 << 20));
        assert_eq!(upload(stack, 2 * MIB + 1), (1, 0), "UPLOAD_ERR_INI_SIZE");
    });
    in_both("[php.default.ini]\nupload_max_filesize = \"3M\"\n", |stack| {
        assert_eq!(upload(stack, 3 * MIB), (0, 3 << 20));
        assert_eq!(upload(stack, 3 * MIB + 1), (1, 0));
    });
}
