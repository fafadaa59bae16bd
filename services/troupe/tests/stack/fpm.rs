//! The same PHP under nginx with php-fpm and as a function: what differs is what the documentation says.

mod peer;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::Value;
use troupe_testkit::http::{Connection, Response};
use troupe_testkit::stack::Stack;

use crate::support::binary;
use peer::Fpm;

/// Code by name. It is the body of a script for php-fpm and of a function for Troupe.
const CASES: &[(&str, &str)] = &[
    ("server", "echo json_encode($_SERVER);"),
    (
        "globals",
        "echo json_encode([$_GET, $_POST, $_COOKIE, $_REQUEST, array_map(fn($f) => array_diff_key($f, ['tmp_name' => 1]), $_FILES)]);",
    ),
    (
        "input",
        "echo json_encode([file_get_contents('php://input'), filter_input(INPUT_GET, 'a'), filter_input(INPUT_SERVER, 'REQUEST_METHOD')]);",
    ),
    (
        "filtered",
        "$_GET = $_POST = $_COOKIE = $_SERVER = ['a' => 'changed']; echo json_encode([filter_input(INPUT_GET, 'a'), filter_has_var(INPUT_GET, 'c_d'),
         filter_input(INPUT_POST, 'a'), filter_input(INPUT_POST, 'k', FILTER_DEFAULT, FILTER_REQUIRE_ARRAY), filter_input(INPUT_COOKIE, 'b'),
         filter_input(INPUT_SERVER, 'REQUEST_METHOD'), filter_input_array(INPUT_GET, ['b' => ['flags' => FILTER_REQUIRE_ARRAY], 'z' => FILTER_VALIDATE_INT])]);
         foreach (['filter_input', 'filter_has_var'] as $f) { try { $f(77, 'a'); } catch (ValueError $e) { echo $e->getMessage(); } }",
    ),
    (
        "headers",
        "header('X-A: 1'); header('X-A: 2', false); header('X-B: 1'); header('X-B: 2'); header('X-C:nospace'); header('X-Utf: ü');
         setcookie('a', 'b c'); setcookie('d', 'e', ['expires' => 2000000000, 'path' => '/p', 'domain' => 'x.test', 'secure' => true,
         'httponly' => true, 'samesite' => 'Lax']); setrawcookie('r', 'a%20b'); setcookie('gone', ''); header_remove('X-B'); echo headers_sent() ? 1 : 0;",
    ),
    ("replaced", "header('Set-Cookie: a=1'); header('Set-Cookie: b=2'); setcookie('c', '3'); echo 'x';"),
    ("removed", "header('A: 1'); setcookie('z', '1'); header_remove(); setcookie('y', '1'); header_remove('set-cookie'); header('HTTP/1.0 201'); echo http_response_code();"),
    ("status", "header('HTTP/1.1 404 Nope'); echo http_response_code();"),
    ("protocol", "header($_SERVER['SERVER_PROTOCOL'] . ' 503 Oops'); echo 'x';"),
    ("statuses", "foreach ([200, 404, 600, 99, 0] as $s) { var_dump(http_response_code($s)); } http_response_code(200);"),
    ("cgi_status", "header('Status: 404 Not Found'); echo http_response_code();"),
    ("cgi_status_twice", "header('Status: 500'); header('Status: 201 Made', true, 202); echo json_encode(headers_list());"),
    ("mimetype", "ini_set('default_mimetype', 'text/plain'); ini_set('default_charset', 'ISO-8859-1'); echo 'x';"),
    ("no_charset", "ini_set('default_charset', ''); echo 'x';"),
    ("no_mimetype", "ini_set('default_mimetype', 'application/x'); echo 'x';"),
    ("found", "header('Location: /x'); echo http_response_code();"),
    ("moved", "http_response_code(301); header('Location: /x'); echo http_response_code();"),
    ("again", "header('Location: /x', true, 307); echo 'm';"),
    ("unauthorised", "header('WWW-Authenticate: Basic realm=x'); echo http_response_code();"),
    ("plain", "header('Content-Type: text/plain'); echo 'x';"),
    ("latin", "header('Content-Type: text/plain; charset=latin1'); echo 'x';"),
    ("image", "header('Content-Type: image/png'); echo 'x';"),
    ("injected", "@header(\"X: a\\r\\nY: b\"); @header(\"Z: a\\0b\"); echo json_encode(headers_list());"),
    (
        "bad_cookies",
        "foreach ([['a=b', '1'], ['', '1'], ['a', 'b;c']] as [$n, $v]) { try { setrawcookie($n, $v); } catch (ValueError $e) { echo $e->getMessage(); } }",
    ),
    ("exits", "http_response_code(403); echo 'before'; exit(' and bye');"),
    ("buffers", "ob_start(); echo 'a'; ob_start(fn($b) => strtoupper($b)); echo 'b'; ob_end_flush(); $x = ob_get_clean(); echo \"[$x]\"; ob_start(); echo 'left';"),
    ("late", "register_shutdown_function(function () { echo 'late'; }); echo 'x';"),
    ("length", "header('Content-Length: 3'); echo 'abc';"),
    ("callback", "header_register_callback(function () { header('X-Cb: 1'); }); echo 'x';"),
    ("finished", "echo 'done'; fastcgi_finish_request(); echo 'not seen';"),
    ("not_modified", "http_response_code(304); header('ETag: W/x');"),
    (
        "nulls",
        "@setcookie('a', null, -1, '/'); @setcookie('b', 'x', null, null, null, null, null); @setrawcookie('c', 'y', 0, null); @header('X-A: 1', null, null);
         @header('X-A: 2', null); @header(null); echo json_encode([@http_response_code(null), @is_uploaded_file(null), @move_uploaded_file(null, null),
         @filter_has_var(INPUT_GET, null), @filter_input(INPUT_GET, null), @filter_input(INPUT_GET, 'a', FILTER_DEFAULT, null)]);",
    ),
    (
        "private_callbacks",
        "class Own { private function late() { echo 'late'; } private static function last($x) { echo \"last $x\"; } public function head() { header('X-Cb: 1'); }
             public function go() { register_shutdown_function([$this, 'late']); register_shutdown_function([self::class, 'last'], 1); register_shutdown_function('Own::last', 2);
                 call_user_func('register_shutdown_function', fn() => $this->late()); call_user_func('register_shutdown_function', [$this, 'late']); header_register_callback([$this, 'head']); }
             public function __call($n, $a) { echo 'magic'; } }
         (new Own)->go(); register_shutdown_function([new Own, 'late']);
         foreach ([['Own', 'last'], 'nothing_of_that_name', [1], 5, ['Own', 'nothing']] as $callback) {
             foreach (['register_shutdown_function', 'header_register_callback'] as $function) {
                 try { $function($callback); echo 'taken'; } catch (TypeError $error) { echo $error->getMessage(), PHP_EOL; }
             }
         }",
    ),
    ("session", "session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1; echo $_SESSION['n'];"),
    ("session_after", "header('Cache-Control: public, max-age=60'); header('Pragma: x'); session_start(); echo count(headers_list());"),
    ("session_before", "session_start(); header('Cache-Control: public, max-age=60'); echo count(headers_list());"),
    ("session_removed", "session_start(); header_remove('Set-Cookie'); header_remove('Cache-Control'); header_remove('Expires'); echo 'x';"),
    ("session_all_removed", "setcookie('a', '1'); session_start(); session_commit(); header_remove(); setcookie('b', '1'); echo 'x';"),
    ("session_unstarted", "session_id('abcdefabcdefabcdefabcdefab'); echo 'x';"),
    ("session_named", "session_id('abcdefabcdefabcdefabcdefab'); session_start(); echo 'x';"),
    ("session_renewed", "session_start(); setcookie('a', '1'); session_regenerate_id(); echo count(headers_list());"),
    ("session_logout", "session_start(); setcookie(session_name(), '', 1); session_destroy(); echo 'x';"),
    ("session_own_cookie", "setcookie(session_name(), 'mine'); setcookie('a', '1'); session_start(); echo 'x';"),
    ("session_twice", "session_start(); session_write_close(); header('Cache-Control: private'); session_start(); echo session_write_close() ? 1 : 0;"),
    ("session_read", "session_start(['read_and_close' => true, 'cache_limiter' => 'private_no_expire']); header_remove('Last-Modified'); echo session_status();"),
    ("session_no_cookie", "session_start(['use_cookies' => 0, 'use_only_cookies' => 0]); echo 'x';"),
    (
        "session_settings",
        "session_set_cookie_params(['lifetime' => 100, 'path' => '/q', 'samesite' => 'Strict', 'secure' => true]); session_cache_limiter('private');
         session_cache_expire(5); session_start(); session_abort(); session_cache_limiter('public'); session_set_cookie_params(5); header_remove('Last-Modified'); echo 'x';",
    ),
    ("session_callback", "header_register_callback(function () { header_remove('Set-Cookie'); header('Pragma: cb'); }); session_start(); echo 'x';"),
];

/// Fields that say who answered, when, or how the bytes are framed.
const UNCOMPARED_FIELDS: [&str; 7] =
    ["server", "date", "connection", "transfer-encoding", "content-length", "x-request-id", "keep-alive"];

/// Variables that nginx and php-fpm have from their own configuration or for themselves, or that must differ.
const UNCOMPARED_VARIABLES: [&str; 21] = [
    "DOCUMENT_ROOT",
    "DOCUMENT_URI",
    "FCGI_ROLE",
    "HOME",
    "HTTP_CONNECTION",
    "HTTP_CONTENT_LENGTH",
    "HTTP_CONTENT_TYPE",
    "HTTP_TRACEPARENT",
    "HTTP_X_REQUEST_ID",
    "PHP_SELF",
    "REMOTE_PORT",
    "REMOTE_USER",
    "REQUEST_ID",
    "REQUEST_TIME",
    "REQUEST_TIME_FLOAT",
    "REQUEST_URI",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "SERVER_PORT",
    "SERVER_SOFTWARE",
    "USER",
];

struct Request {
    method: &'static str,
    query: &'static str,
    fields: &'static [(&'static str, &'static str)],
    body: &'static [u8],
}

const GET: Request = Request { method: "GET", query: "?a=1&b[]=2&b[]=3&c.d=4&e%20f=5&=x&g", fields: &[], body: b"" };

const REQUESTS: [Request; 6] = [
    GET,
    Request {
        method: "POST",
        query: "?a=q&k[y]=2&k[x]=3&k[]=4",
        fields: &[
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Cookie", "a=1; b=%41+x; c[d]=2; a=3; e"),
            ("User-Agent", "t"),
            ("X_Under", "1"),
            ("0", "zero"),
        ],
        body: b"a=b&k[x]=1&k[]=5&sp+ace=%00z&a=c",
    },
    Request {
        method: "POST",
        query: "",
        fields: &[("Content-Type", "multipart/form-data; boundary=XX")],
        body: b"--XX\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\nv\r\n\
            --XX\r\nContent-Disposition: form-data; name=\"MAX_FILE_SIZE\"\r\n\r\n5\r\n\
            --XX\r\nContent-Disposition: form-data; name=\"l\"; filename=\"l.txt\"\r\nContent-Type: text/plain\r\n\r\nlonger\r\n\
            --XX\r\nContent-Disposition: form-data; name=\"a[x][]\"; filename=\"C:\\d\\t.txt\"\r\nContent-Type: text/plain\r\n\r\nhello\r\n\
            --XX\r\nContent-Disposition: form-data; name=\"e\"; filename=\"\"\r\n\r\n\r\n--XX--\r\n",
    },
    Request { method: "GET", query: "", fields: &[("Authorization", "Basic dXNlcjpwYTpzcw==")], body: b"" },
    Request { method: "PUT", query: "", fields: &[("Content-Type", "application/json")], body: b"{\"a\":1}" },
    Request { method: "HEAD", query: "", fields: &[], body: b"" },
];

#[test]
fn php_sees_and_says_what_it_does_under_php_fpm() {
    let fpm = Fpm::start(CASES);
    let functions = tempfile::TempDir::new().unwrap();
    for (name, code) in CASES {
        std::fs::write(functions.path().join(format!("{name}.php")), format!("<?php return function () {{ {code} }};"))
            .unwrap();
    }
    let config = "[[route]]\npath = \"/{function*}\"\nfunctions = \"default\"\n[php.default.ini]\n\"session.save_path\" = \"/tmp\"\n";
    let stack = Stack::one_process(binary(), functions.path(), config);
    troupe_testkit::wait::until("the functions to be loaded", std::time::Duration::from_secs(30), || {
        (stack.get("/status").status == 404).then_some(())
    });
    for (name, _) in CASES {
        let requests =
            if matches!(*name, "server" | "globals" | "input" | "filtered") { &REQUESTS[..] } else { &[GET][..] };
        for request in requests {
            let there = ask(fpm.address, &format!("/{name}.php"), request);
            let here = ask(stack.address(), &format!("/{name}"), request);
            let what = format!("{name}, {} {:?}", request.method, request.fields);
            assert_eq!(here.status, there.status, "{what}: {}", here.text());
            assert_eq!(fields(&here), fields(&there), "{what}");
            match *name {
                "server" => assert_eq!(variables(&here), variables(&there), "{what}"),
                _ => assert_eq!(here.text(), there.text(), "{what}"),
            }
        }
    }
}

fn ask(address: SocketAddr, path: &str, request: &Request) -> Response {
    let mut connection = Connection::open(address).unwrap();
    connection.request(request.method, &format!("{path}{}", request.query), request.fields, request.body).unwrap()
}

fn fields(response: &Response) -> Vec<(String, String)> {
    let mut fields: Vec<_> = response
        .headers
        .iter()
        .filter(|(name, _)| !UNCOMPARED_FIELDS.contains(&name.as_str()))
        .map(|(name, value)| {
            // A session's id is random, and what is left of a cookie's life depends on the second.
            let id = value.split_once("PHPSESSID=").and_then(|(_, rest)| rest.split(';').next()).unwrap_or_default();
            let life = value.split_once("Max-Age=").and_then(|(_, rest)| rest.split(';').next()).unwrap_or_default();
            let value = if id.is_empty() { value.clone() } else { value.replace(id, "ID") };
            (name.clone(), if life.len() > 1 { value.replace(life, "LIFE") } else { value })
        })
        .collect();
    fields.sort();
    fields
}

/// What both have to have with the same value; of what PHP calls the path, only that it is there.
fn variables(response: &Response) -> BTreeMap<String, Value> {
    let Value::Object(all) = response.json() else { return BTreeMap::new() };
    for name in [
        "DOCUMENT_URI",
        "PHP_SELF",
        "REQUEST_TIME",
        "REQUEST_TIME_FLOAT",
        "SCRIPT_NAME",
        "SCRIPT_FILENAME",
        "DOCUMENT_ROOT",
    ] {
        assert!(all.contains_key(name), "{name} is missing: {all:?}");
    }
    // Empty is what both are without a path behind the script's.
    all.into_iter().filter(|(name, _)| !UNCOMPARED_VARIABLES.contains(&name.as_str()) && name != "PATH_INFO").collect()
}
