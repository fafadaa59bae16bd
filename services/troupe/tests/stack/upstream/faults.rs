//! Servers that die, freeze, refuse or are not there.

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use troupe_testkit::ports;
use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::{Then, Upstream};
use troupe_testkit::wait;

use super::{config, in_both, metric, one_process};
use crate::support::{binary, functions};

/// Ten times what takes a worker out or brings it back.
const BOUND: Duration = Duration::from_secs(30);
const READY: &str = "troupe_balancer_workers_ready{pool=\"upstream:app\"}";

fn honest() -> Upstream {
    Upstream::start(|exchange| {
        exchange.read_body()?;
        exchange.answer(200, "honest")
    })
}

/// How often something failed for this cause.
fn errors(stack: &mut Stack, cause: &str) -> f64 {
    metric(stack, &format!("troupe_balancer_upstream_errors_total{{pool=\"upstream:app\",cause=\"{cause}\"}}"))
}

/// Answers the first request of each connection, and closes at the second without a word.
fn forgetful() -> Upstream {
    let seen = Mutex::new(HashSet::new());
    Upstream::start(move |exchange| {
        exchange.read_body()?;
        match seen.lock().unwrap().insert(exchange.request.connection) {
            true => exchange.answer(200, "once"),
            false => Ok(Then::Close),
        }
    })
}

#[test]
fn a_kept_connection_that_ended_is_replaced_where_that_is_safe() {
    let server = forgetful();
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        assert_eq!(client.request("GET", "/", &[], b"").unwrap().status, 200);
        assert_eq!(client.request("GET", "/", &[], b"").unwrap().status, 200, "sent again on a new connection");
        assert_eq!(client.request("PUT", "/", &[], b"x").unwrap().status, 200, "PUT is idempotent");
        let before = server.requests().len();
        assert_eq!(client.request("POST", "/", &[], b"x").unwrap().status, 502, "it may have been worked on");
        assert_eq!(server.requests().len(), before + 1);
        assert_eq!(client.request("POST", "/", &[], b"x").unwrap().status, 200, "on a connection of its own");
    });
}

#[test]
fn connections_that_the_server_closed_meanwhile_are_not_used() {
    let server = honest();
    in_both(&[&server], "", |stack| {
        let mut client = stack.connect();
        for method in ["GET", "POST", "POST"] {
            assert_eq!(client.request(method, "/", &[], b"x").unwrap().status, 200);
            server.hang_up();
            thread::sleep(Duration::from_millis(100));
        }
    });
}

#[test]
fn a_call_whose_only_server_hangs_up_is_a_502() {
    let server = Upstream::start(|exchange| {
        exchange.read_body()?;
        Ok(Then::Close)
    });
    let stack = one_process(&[&server], "");
    assert_eq!(stack.connect().request("POST", "/", &[], b"x").unwrap().status, 502);
    assert_eq!(server.requests().len(), 1, "it may have been worked on");
    assert_eq!(stack.get("/").status, 502);
    assert_eq!(server.requests().len(), 3, "a GET is tried once more");
}

#[test]
fn a_server_that_dies_costs_no_call_and_comes_back() {
    let one = honest();
    let address = ports::free();
    let alive = || {
        Upstream::listen(address, |exchange| {
            exchange.read_body()?;
            exchange.answer(200, "other")
        })
    };
    let mut stack = {
        let first = alive();
        let stack = one_process(&[&one, &first], "");
        burst(&stack);
        assert!(!first.requests().is_empty(), "both are used");
        stack
    };
    wait::until("the dead one to be out", BOUND, || {
        // A connection that is refused starts nothing, so that even a POST is tried elsewhere.
        let texts = burst(&stack);
        assert!(texts.iter().all(|text| text == "honest"), "{texts:?}");
        (metric(&mut stack, READY) == 1.0).then_some(())
    });
    let second = alive();
    wait::until("it to be back", BOUND, || (metric(&mut stack, READY) == 2.0).then_some(()));
    wait::until("it to be used", BOUND, || {
        burst(&stack);
        (!second.requests().is_empty()).then_some(())
    });
}

/// What POSTs of several clients at once are answered, each with 200.
fn burst(stack: &Stack) -> Vec<String> {
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = stack.connect();
            thread::spawn(move || {
                let mut post = || client.request("POST", "/", &[], b"x").unwrap();
                (0..5).map(|_| post()).map(|reply| (reply.status, reply.text())).collect::<Vec<_>>()
            })
        })
        .collect();
    let replies = clients.into_iter().flat_map(|client| client.join().unwrap());
    replies.map(|(status, text)| if status == 200 { text } else { format!("{status}: {text}") }).collect()
}

#[test]
fn a_server_that_fails_is_out_and_what_may_be_repeated_is_served_by_the_other() {
    let bad = Upstream::start(|exchange| {
        exchange.read_body()?;
        Ok(Then::Close)
    });
    let good = honest();
    in_both(&[&bad, &good], "", |stack| {
        let mut client = stack.connect();
        // Calls are counted for the budget of retries 32 at a time, and each failure makes the bad one dearer.
        for _ in 0..300 {
            assert_eq!(client.request("GET", "/", &[], b"").unwrap().text(), "honest");
        }
        let asked = bad.requests().len();
        assert!((1..60).contains(&asked), "{asked} of 300 calls were tried on the one that fails");
    });
}

#[test]
fn a_frozen_server_costs_a_timeout_and_then_gets_no_calls() {
    let frozen = Upstream::start(|exchange| {
        exchange.await_close();
        Ok(Then::Close)
    });
    let good = honest();
    let mut stack = one_process(&[&frozen, &good], "timeouts = { first_byte = \"500ms\" }");
    let mut client = stack.connect();
    let statuses: Vec<u16> = (0..100).map(|_| client.request("GET", "/", &[], b"").unwrap().status).collect();
    let late = statuses.iter().filter(|status| **status == 504).count();
    assert!((1..=10).contains(&late) && statuses.iter().all(|status| matches!(status, 200 | 504)), "{statuses:?}");
    assert!(errors(&mut stack, "reply_timeout") >= 1.0);
}

#[test]
fn a_name_that_cannot_be_resolved_stops_nothing_else() {
    let good = honest();
    let more = format!(
        "servers = [\"no-such-host.invalid:80\", \"{}\"]\n[upstream.nowhere]\nservers = [\"no-such-host.invalid:81\"]\n\
         [[route]]\nhost = \"nowhere.test\"\npath = \"/{{rest*}}\"\nupstream = \"nowhere\"\n",
        good.address
    );
    let config = format!("mesh.connect_wait = \"1s\"\n{}", config(&[], "").replace("servers = []", &more));
    let mut stack = Stack::one_process(binary(), &functions(), &config);
    for _ in 0..5 {
        assert_eq!(stack.get("/").text(), "honest");
    }
    for pool in ["upstream:app", "upstream:nowhere"] {
        wait::until("the look-ups in vain to be counted", BOUND, || {
            // A resolver may say no, or nothing.
            let causes = ["dns", "empty", "timeout"];
            let name = |cause| format!("troupe_discovery_failed_lookups_total{{peer=\"{pool}\",cause=\"{cause}\"}}");
            (causes.map(|cause| metric(&mut stack, &name(cause))).iter().sum::<f64>() >= 1.0).then_some(())
        });
    }
    let mut client = stack.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: nowhere.test\r\n\r\n").unwrap();
    let reply = client.response(false).unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
}

#[test]
fn a_name_is_a_server_for_each_of_its_addresses() {
    let good = honest();
    let more = format!("servers = [\"localhost:{}\"]", good.address.port());
    let stack = Stack::one_process(binary(), &functions(), &config(&[], "").replace("servers = []", &more));
    wait::until("an answer", BOUND, || (stack.get("/").status == 200).then_some(()));
    assert_eq!(good.requests().pop().unwrap().field("host"), "troupe.test");
}

/// A machine that is away answers nothing, not even with a refusal: its connections time out.
#[test]
fn a_server_that_does_not_accept_costs_the_connect_timeout_and_no_call() {
    let away = Unaccepting::new();
    let good = honest();
    for (servers, status) in
        [(format!("[\"{}\", \"{}\"]", away.address, good.address), 200), (format!("[\"{}\"]", away.address), 503)]
    {
        let more = format!("servers = {servers}\ntimeouts = {{ connect = \"300ms\" }}\nqueue = {{ wait = \"2s\" }}");
        let config = config(&[], "").replace("servers = []", &more);
        let mut stack = Stack::one_process(binary(), &functions(), &config);
        let mut client = stack.connect();
        for _ in 0..5 {
            assert_eq!(client.request("GET", "/", &[], b"").unwrap().status, status);
            assert_eq!(client.request("POST", "/", &[], b"x").unwrap().status, status, "nothing was sent");
        }
        let failed = "troupe_balancer_upstream_connects_total{pool=\"upstream:app\",outcome=\"failed\"}";
        wait::until("a failed connection to be counted", BOUND, || (metric(&mut stack, failed) >= 1.0).then_some(()));
        assert!(errors(&mut stack, "connect_timeout") >= 1.0);
    }
}

#[test]
fn each_way_a_server_fails_is_counted_by_its_cause() {
    let lies = Upstream::start(|exchange| {
        exchange.read_body()?;
        exchange.send(b"HTTP/1.1 nonsense\r\n\r\n")?;
        Ok(Then::Close)
    });
    let closes = Upstream::start(|exchange| {
        exchange.read_body()?;
        Ok(Then::Close)
    });
    let silent = Upstream::start(|exchange| {
        exchange.await_close();
        Ok(Then::Close)
    });
    let pauses = Upstream::start(|exchange| {
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
        exchange.await_close();
        Ok(Then::Close)
    });
    let nobody = ports::free();
    for (cause, address, timeouts, status) in [
        ("refused", nobody, "", 503),
        ("protocol", lies.address, "", 502),
        ("closed", closes.address, "", 502),
        ("reply_timeout", silent.address, "first_byte = \"300ms\"", 504),
        ("body_timeout", pauses.address, "idle = \"300ms\"", 200),
    ] {
        let more = format!("servers = [\"{address}\"]\ntimeouts = {{ {timeouts} }}\nqueue = {{ wait = \"1s\" }}");
        let mut stack = Stack::one_process(binary(), &functions(), &config(&[], "").replace("servers = []", &more));
        let mut client = stack.connect();
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").unwrap();
        match client.response(false) {
            Ok(reply) => assert_eq!(reply.status, status, "{cause}"),
            // A body that pauses is cut off.
            Err(error) => assert_eq!(status, 200, "{cause}: {error}"),
        }
        wait::until(cause, BOUND, || (errors(&mut stack, cause) >= 1.0).then_some(()));
        let page = stack.instance("balancer").admin("/metrics").unwrap().text();
        let others = page.lines().filter(|line| line.starts_with("troupe_balancer_upstream_errors_total{"));
        let others: Vec<&str> = others.filter(|line| !line.ends_with(" 0") && !line.contains(cause)).collect();
        assert!(others.is_empty(), "{cause}: {others:?}");
    }
}

/// Less than the shortest of the waits that a timeout of these tests comes before: the client's, the gateway's and the group's others.
const SOON: Duration = Duration::from_secs(15);

/// Nothing but `timeouts.write` ends this in time: the server takes nothing in, and answers nothing.
#[test]
fn a_server_that_takes_no_body_in_is_given_up_after_the_write_timeout() {
    let full = Upstream::start(|_| {
        // Neither reads nor closes.
        thread::sleep(BOUND * 2);
        Ok(Then::Close)
    });
    in_both(&[&full], "timeouts = { write = \"300ms\" }", |stack| {
        let mut client = stack.connect();
        let began = Instant::now();
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000000\r\n\r\n").unwrap();
        let piece = vec![b'u'; 64 * 1024];
        // More than the buffers on the way hold. Once it is answered nobody takes the rest.
        let _ = (0..900).try_for_each(|_| client.send(&piece));
        let reply = client.response(false).unwrap();
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!((reply.status, reply.json()["stage"].as_str()), (504, Some("upstream")), "{}", reply.text());
        wait::until("it to be counted", BOUND, || (errors(stack, "write_timeout") >= 1.0).then_some(()));
        assert_eq!(errors(stack, "reply_timeout"), 0.0, "it was the body that was not taken");
    });
}

/// Nothing but `timeouts.first_byte` ends this in time: the server takes all of it in, and answers nothing.
#[test]
fn a_server_that_answers_nothing_is_given_up_after_the_first_byte_timeout() {
    let silent = Upstream::start(|exchange| {
        exchange.read_body()?;
        exchange.await_close();
        Ok(Then::Close)
    });
    in_both(&[&silent], "timeouts = { first_byte = \"300ms\" }", |stack| {
        for (method, body) in [("GET", &b""[..]), ("POST", &[b'u'; 100_000][..])] {
            let (before, began) = (errors(stack, "reply_timeout"), Instant::now());
            let reply = stack.connect().request(method, "/", &[], body).unwrap();
            assert!(began.elapsed() < SOON, "{method}: {:?}", began.elapsed());
            assert_eq!((reply.status, reply.json()["stage"].as_str()), (504, Some("upstream")), "{}", reply.text());
            wait::until("it to be counted", BOUND, || (errors(stack, "reply_timeout") > before).then_some(()));
        }
        assert_eq!(errors(stack, "write_timeout"), 0.0, "it took the body in");
    });
}

/// A request that is overdue before `timeouts.first_byte` is the server's fault as well.
#[test]
fn a_server_that_lets_a_request_become_overdue_is_counted() {
    let silent = Upstream::start(|exchange| {
        exchange.await_close();
        Ok(Then::Close)
    });
    let config = format!("gateway.request_timeout = \"500ms\"\n{}", config(&[&silent], ""));
    let mut stack = Stack::one_process(binary(), &functions(), &config);
    assert_eq!(stack.get("/").status, 504);
    wait::until("it to be counted", BOUND, || (errors(&mut stack, "reply_timeout") >= 1.0).then_some(()));
}

/// A listener whose queue is full: the kernel drops whoever comes.
struct Unaccepting {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Unaccepting {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let queued = std::iter::from_fn(|| TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok());
        let queued = queued.take(64).collect();
        Self { address, _listener: listener, _queued: queued }
    }
}
