//! Upstream servers and the balancer's own keys change while requests go on.

use serde_json::Value;
use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::Upstream;
use troupe_testkit::wait;

use super::{File, SOON, load_of, out, reload};
use crate::support::{binary, functions};

const ROUTES: &str = "
[[route]]
path = \"/api/{function*}\"
functions = \"default\"
[[route]]
path = \"/app\"
upstream = \"app\"
";

fn named(name: &'static str) -> Upstream {
    Upstream::start(move |exchange| {
        exchange.read_body()?;
        exchange.answer(200, name)
    })
}

/// The group `name` of `servers`, each a table's inside or empty; `more` goes into the group's table.
fn group(name: &str, servers: &[(&Upstream, &str)], more: &str) -> String {
    let server = |(server, more): &(&Upstream, &str)| format!("{{ address = \"{}\"{more} }}", server.address);
    let servers: Vec<String> = servers.iter().map(server).collect();
    format!("[upstream.{name}]\nservers = [{}]\n{more}\n", servers.join(", "))
}

/// Reads the configuration anew in every process that it concerns: first what routes lead to, and on the way back last.
fn reload_all(stack: &mut Stack, coming: bool) {
    let mut services = vec!["balancer", "gateway"];
    if !coming {
        services.reverse();
    }
    for service in services {
        let done = reload(stack.instance(service).admin, &[]);
        assert_eq!(done.status.code(), Some(0), "{service}: {}", out(&done));
    }
}

/// The worker of `pool` at a server, as the balancer shows it.
fn worker(stack: &mut Stack, pool: &str, server: &Upstream) -> Option<Value> {
    let told = stack.instance("balancer").admin("/api/workers").unwrap().json();
    let pool = told["pools"].as_array()?.iter().find(|found| found["pool"] == pool)?.clone();
    let name = server.address.to_string();
    pool["workers"].as_array()?.iter().find(|worker| worker["worker"] == name.as_str()).cloned()
}

#[test]
fn servers_weights_caps_and_timeouts_change_and_no_request_is_lost() {
    let (one, two) = (named("one"), named("two"));
    for apart in [false, true] {
        let before = format!("{ROUTES}{}", group("app", &[(&one, "")], ""));
        let mut stack = match apart {
            true => Stack::apart(binary(), &functions(), ""),
            false => Stack::one_process(binary(), &functions(), ""),
        };
        let file = File::of(&stack);
        // The group itself comes while the process runs.
        assert_eq!(stack.get("/app").status, 404);
        file.add(&before);
        reload_all(&mut stack, true);
        assert_eq!(stack.get("/app").status, 200);
        let clients = load_of(&stack, "/app");
        clients.run(20);

        // A second server, with a weight, and other bounds.
        let seen = two.requests().len();
        let servers = [(&one, ", max_connections = 7"), (&two, ", weight = 5")];
        file.add(&format!("{ROUTES}{}", group("app", &servers, "timeouts.first_byte = \"9s\"\nqueue.max = 77\n")));
        let done = reload(stack.instance("balancer").admin, &[]);
        let taken = "taken upstream.app.queue.max, upstream.app.servers, upstream.app.timeouts.first_byte";
        assert!(out(&done).contains(taken), "{}", out(&done));
        wait::until("the new server to be called", SOON, || (two.requests().len() > seen + 5).then_some(()));
        wait::until("the bound of connections", SOON, || {
            (worker(&mut stack, "upstream:app", &one)?["cap"] == 7).then_some(())
        });
        wait::until("the weight, behind the slow start", SOON, || {
            (worker(&mut stack, "upstream:app", &two)?["gain"] == 5.0).then_some(())
        });
        let told = stack.instance("balancer").admin("/api/workers").unwrap().json();
        assert!(told.to_string().contains("\"queue_max\":77"), "{told}");

        // The first one leaves.
        file.add(&format!("{ROUTES}{}", group("app", &[(&two, "")], "")));
        reload_all(&mut stack, true);
        wait::until("the first to be gone", SOON, || worker(&mut stack, "upstream:app", &one).is_none().then_some(()));
        let last = one.requests().len();
        clients.run(50);
        assert_eq!(one.requests().len(), last, "a server that has left was called");

        // And is swapped for the other at one go: there is no moment without any.
        for server in [&one, &two, &one] {
            file.add(&format!("{ROUTES}{}", group("app", &[(server, "")], "")));
            reload_all(&mut stack, true);
            clients.run(20);
        }
        let (records, _) = clients.stop();
        let lost: Vec<_> = records.iter().filter(|record| record.status != 200).collect();
        assert!(lost.is_empty(), "of {} requests were lost {lost:?}", records.len());
        assert_eq!(stack.get("/app").body, b"one");

        // The group goes, and leaves nothing behind.
        file.add("");
        reload_all(&mut stack, false);
        assert_eq!(stack.get("/app").status, 404);
        wait::until("the pool to be gone", SOON, || {
            let told = stack.instance("balancer").admin("/api/workers").unwrap().json();
            (!told.to_string().contains("upstream:app")).then_some(())
        });
    }
}

#[test]
fn requests_go_from_one_group_to_another_and_back_without_a_gap() {
    let (one, two) = (named("one"), named("two"));
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let file = File::of(&stack);
    let first = format!("{ROUTES}{}", group("app", &[(&one, "")], ""));
    let second = format!("{}{}", ROUTES.replace("\"app\"", "\"other\""), group("other", &[(&two, "")], ""));
    file.add(&first);
    reload_all(&mut stack, true);
    let clients = load_of(&stack, "/app");
    for (config, body) in [(&second, "two"), (&first, "one"), (&second, "two")] {
        file.add(config);
        reload_all(&mut stack, true);
        assert_eq!(stack.get("/app").body, body.as_bytes());
        clients.run(20);
    }
    let (records, _) = clients.stop();
    let lost: Vec<_> = records.iter().filter(|record| record.status != 200).collect();
    assert!(lost.is_empty(), "of {} requests were lost {lost:?}", records.len());
}

#[test]
fn a_request_under_way_ends_with_the_server_that_left() {
    let slow = Upstream::start(|exchange| {
        exchange.read_body()?;
        std::thread::sleep(std::time::Duration::from_secs(3));
        exchange.answer(200, "slow")
    });
    let quick = named("quick");
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let file = File::of(&stack);
    file.add(&format!("{ROUTES}{}", group("app", &[(&slow, "")], "")));
    reload_all(&mut stack, true);
    let mut client = stack.connect();
    let pending = std::thread::spawn(move || client.request("GET", "/app", &[], b"").unwrap());
    wait::until("the request to be there", SOON, || (slow.requests().len() == 1).then_some(()));
    file.add(&format!("{ROUTES}{}", group("app", &[(&quick, "")], "")));
    reload_all(&mut stack, true);
    assert_eq!(stack.get("/app").body, b"quick");
    let answer = pending.join().unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"slow"[..]));
}

#[test]
fn a_broken_server_list_changes_nothing() {
    let one = named("one");
    let mut stack = Stack::one_process(binary(), &functions(), "");
    let file = File::of(&stack);
    let right = format!("{ROUTES}{}", group("app", &[(&one, "")], ""));
    file.add(&right);
    reload_all(&mut stack, true);
    let admin = stack.instance("all").admin;
    for (wrong, said) in [
        (right.replace(&one.address.to_string(), "no address at all"), "no address at all"),
        (right.replace("[upstream.app]", "[upstream.apq]"), "not configured"),
        (format!("balancer.decay = \"0s\"\n{right}"), "balancer.decay"),
    ] {
        file.add(&format!("log.level = \"debug\"\n{wrong}"));
        let refused = reload(admin, &[]);
        assert_eq!(refused.status.code(), Some(78), "{}", out(&refused));
        assert!(out(&refused).contains(said), "{said}: {}", out(&refused));
        assert_eq!(stack.get("/app").body, b"one");
        assert!(worker(&mut stack, "upstream:app", &one).is_some());
    }
}
