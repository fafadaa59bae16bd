//! How tunnels end: by either side, in order or not, and by the death of what is between.

use rustix::process::Signal;
use troupe_testkit::processes;

use super::*;

fn ended(stack: &mut Stack, cause: &str) -> f64 {
    let name = format!("troupe_balancer_upstream_tunnels_ended_total{{pool=\"upstream:app\",cause=\"{cause}\"}}");
    figure(stack, "balancer", &name)
}

#[test]
fn a_server_that_dies_ends_the_tunnel() {
    let server = mirror();
    in_all(&[&server], "", |stack| {
        let mut client = open(stack);
        client.send(b"there").unwrap();
        assert_eq!(read(&mut client, 5), b"there");
        server.hang_up();
        assert!(client.closed());
        await_tunnels(stack, 0.0);
        assert_eq!(stack.get("/").text(), "plain");
    });
}

#[test]
fn a_client_that_dies_ends_the_servers_connection() {
    let server = mirror();
    in_all(&[&server], "", |stack| {
        for unread in [false, true] {
            let mut client = open(stack);
            client.send(b"there").unwrap();
            // Unread bytes make a reset of the end.
            if !unread {
                assert_eq!(read(&mut client, 5), b"there");
            }
            await_tunnels(stack, 1.0);
            drop(client);
            await_tunnels(stack, 0.0);
        }
        assert_eq!(ended(stack, "client"), 2.0);
    });
}

#[test]
fn a_client_that_ends_its_side_hears_the_server_out() {
    let server = raw(|exchange| {
        let mut heard = 0;
        while let Ok(bytes @ 1..) = exchange.piece().map(|piece| piece.len()) {
            heard += bytes;
        }
        let _ = exchange.send(format!("heard {heard}"));
        thread::sleep(Duration::from_millis(200));
        let _ = exchange.send(", bye");
    });
    in_all(&[&server], "", |stack| {
        let mut client = open(stack);
        client.send(&vec![b'x'; MIB]).unwrap();
        client.handle().unwrap().shutdown(Shutdown::Write).unwrap();
        let words = format!("heard {MIB}, bye");
        assert_eq!(String::from_utf8(read(&mut client, words.len())).unwrap(), words);
        assert!(client.piece().unwrap().is_empty(), "an end in order");
        await_tunnels(stack, 0.0);
        assert_eq!(ended(stack, "client"), 1.0);
    });
}

#[test]
fn a_server_that_ends_its_side_is_heard_out_by_the_client() {
    let server = raw(|exchange| {
        let _ = exchange.send(vec![b'y'; MIB]);
        let _ = exchange.handle().and_then(|handle| handle.shutdown(Shutdown::Write));
        exchange.await_close();
    });
    in_all(&[&server], "", |stack| {
        let mut client = open(stack);
        // It is still sending when the end comes.
        client.send(b"something").unwrap();
        assert_eq!(read(&mut client, MIB).len(), MIB);
        assert!(client.piece().unwrap().is_empty(), "an end in order");
        await_tunnels(stack, 0.0);
        assert_eq!(ended(stack, "server"), 1.0);
    });
}

#[test]
fn a_balancer_that_is_killed_ends_the_tunnels_through_it() {
    let server = mirror();
    let mut stack = Stack::apart(support::binary(), &support::functions(), &config(&[&server], ""));
    let mut client = open(&stack);
    client.send(b"there").unwrap();
    assert_eq!(read(&mut client, 5), b"there");
    stack.instance("balancer").kill();
    assert!(client.closed());
    stack.restart("balancer");
    wait::until("tunnels again", BOUND, || {
        let mut client = stack.connect();
        client.send(handshake("/").as_bytes()).ok()?;
        (client.head().ok()?.status == 101).then_some(())
    });
}

#[test]
fn a_server_that_is_drained_keeps_its_tunnels_and_gets_no_new_ones() {
    let (one, other) = (mirror(), mirror());
    in_both(&[&one, &other], "", |stack| {
        let mut clients: Vec<_> = (0..8).map(|_| open(stack)).collect();
        assert!(!one.requests().is_empty() && !other.requests().is_empty(), "both are used");
        let drained = std::process::Command::new(support::binary())
            .args(["drain", &one.address.to_string(), "--wait", "1s", "--admin"])
            .arg(format!("http://{}", stack.instance("balancer").admin))
            .output()
            .unwrap();
        assert_eq!(drained.status.code(), Some(75), "its tunnels are still there: {drained:?}");
        let (before, new) = (one.requests().len(), other.requests().len());
        clients.extend((0..8).map(|_| open(stack)));
        assert_eq!((one.requests().len(), other.requests().len()), (before, new + 8));
        for client in &mut clients {
            client.send(b"there").unwrap();
            assert_eq!(read(client, 5), b"there");
        }
    });
}

#[test]
fn a_reload_leaves_tunnels_alone_also_those_of_a_server_that_is_no_longer_named() {
    let (one, other) = (mirror(), mirror());
    in_both(&[&one, &other], "", |stack| {
        let (before, at_other) = (one.requests().len(), other.requests().len());
        let mut clients: Vec<_> = (0..8).map(|_| open(stack)).collect();
        assert!(one.requests().len() > before && other.requests().len() > at_other, "both are used");
        let path = stack.home().join("troupe.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let less = text
            .replace(&format!("{:?}, ", one.address.to_string()), "")
            .replace("[upstream.app]", "[upstream.app]\ntimeouts = { tunnel = \"1ms\" }");
        assert_ne!(less, text);
        std::fs::write(&path, less).unwrap();
        let admin = format!("http://{}", stack.instance("balancer").admin);
        let done = std::process::Command::new(support::binary()).args(["reload", "--admin", &admin]).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{done:?}");
        wait::until("the server to be gone", BOUND, || {
            let workers = stack.instance("balancer").admin("/api/workers")?.text();
            (!workers.contains(&one.address.to_string())).then_some(())
        });
        thread::sleep(Duration::from_millis(300));
        for client in &mut clients {
            client.send(b"there").unwrap();
            assert_eq!(read(client, 5), b"there");
        }
        assert!(open(stack).closed(), "new ones have the new bound");
        drop(clients);
        await_tunnels(stack, 0.0);
        std::fs::write(&path, text).unwrap();
    });
}

/// Links that are told to go away take no new calls, and end with the last of those that they have.
#[test]
fn a_balancer_that_drains_leaves_tunnels_their_time() {
    let server = mirror();
    let config = format!("node.drain_timeout = \"20s\"\n{}", config(&[&server], ""));
    let mut stack =
        troupe_testkit::stack::Plan::apart().two("balancer").start(support::binary(), &support::functions(), &config);
    // Over both.
    let mut clients: Vec<_> = (0..8).map(|_| open(&stack)).collect();
    stack.instance_at("balancer", 0).signal(Signal::TERM);
    thread::sleep(Duration::from_millis(500));
    for client in &mut clients {
        client.send(b"there").unwrap();
        assert_eq!(read(client, 5), b"there");
    }
    clients.push(open(&stack));
    drop(clients);
    let instance = stack.instance_at("balancer", 0);
    assert_eq!(instance.wait().code(), Some(0), "{}", instance.log());
}

/// Clients and servers that leave at any moment leave nothing behind.
#[test]
fn unlucky_tunnels_leave_nothing() {
    let turn = AtomicU64::new(0);
    let server = Upstream::start(move |exchange| {
        if exchange.request.field("upgrade") != "websocket" {
            return exchange.answer(200, "plain");
        }
        match turn.fetch_add(1, Ordering::SeqCst) % 6 {
            0 => return Ok(Then::Close),
            1 => return exchange.answer(403, "no"),
            2 => exchange.send(SWITCHED)?,
            3 => exchange.send(format!("{SWITCHED}begun"))?,
            _ => {
                exchange.send(SWITCHED)?;
                while exchange.piece().is_ok_and(|piece| !piece.is_empty() && exchange.send(piece).is_ok()) {}
            }
        }
        Ok(Then::Close)
    });
    in_both(&[&server], "", |stack| {
        let descriptors = |stack: &Stack| -> Vec<usize> {
            stack.instances.iter().map(|instance| processes::descriptors(instance.pid())).collect()
        };
        assert_eq!(stack.get("/").text(), "plain");
        let before = descriptors(stack);
        let address = stack.address;
        let clients: Vec<_> = (0..8)
            .map(|client| {
                thread::spawn(move || {
                    for round in 0..60 {
                        let mut connection = Connection::open(address).unwrap();
                        let early = ["", "early"][round % 2];
                        connection.send(format!("{}{early}", handshake("/")).as_bytes()).unwrap();
                        match (round + client) % 4 {
                            0 => {}
                            1 => drop(connection.handle().unwrap().shutdown(Shutdown::Write)),
                            2 => drop(connection.head()),
                            _ => {
                                let _ = connection.head();
                                let _ = connection.send(&[b'x'; 10_000]);
                                let _ = connection.piece();
                            }
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        await_tunnels(stack, 0.0);
        for (service, name) in [
            ("gateway", "troupe_gateway_requests_in_flight"),
            ("gateway", "troupe_gateway_connections"),
            ("balancer", "troupe_balancer_upstream_connections{pool=\"upstream:app\"}"),
        ] {
            wait::until(&format!("{name} to be 0"), BOUND, || (figure(stack, service, name) == 0.0).then_some(()));
        }
        wait::until(&format!("descriptors to be {before:?} again"), BOUND, || {
            descriptors(stack).iter().zip(&before).all(|(now, before)| *now <= before + 6).then_some(())
        });
        assert!(!stack.logs().contains("panicked"), "{}", stack.logs());
        assert_eq!(stack.get("/").text(), "plain");
    });
}

/// They are finished if they end by themselves in time, and cut off if not.
#[test]
fn a_drain_waits_for_tunnels_and_then_cuts_them_off() {
    let server = mirror();
    for ends in [true, false] {
        let timeout = if ends { "20s" } else { "1s" };
        let config = format!("node.drain_timeout = \"{timeout}\"\n{}", config(&[&server], ""));
        let mut stack = Stack::one_process(support::binary(), &support::functions(), &config);
        let mut client = open(&stack);
        stack.instance("all").signal(Signal::TERM);
        wait::until("the listener to close", BOUND, || TcpStream::connect(stack.address).is_err().then_some(()));
        client.send(b"there").unwrap();
        assert_eq!(read(&mut client, 5), b"there", "it goes on while the drain waits");
        if ends {
            drop(client);
        } else {
            assert!(client.closed());
        }
        let instance = stack.instance("all");
        let code = instance.wait().code();
        assert_eq!(code, Some(if ends { 0 } else { 1 }), "{}", instance.log());
    }
}
