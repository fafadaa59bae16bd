//! The pool of connections to one server, against a real listener.

use tokio::net::TcpListener;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(50);

/// A server with a listener behind it, which takes connections and says nothing.
async fn server(threads: usize, cap: u32, keep_alive: KeepAliveConfig) -> (Arc<Server>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = UpstreamConfig { max_connections: cap, keep_alive, ..UpstreamConfig::default() };
    let entry = ServerConfig { address: address.to_string(), weight: 1, max_connections: None };
    let what = ("upstream:test".into(), address.to_string().into(), address);
    let meters = Arc::new(Meters::new("upstream:test"));
    (Arc::new(Server::new(what, Settings::new(&entry, &config), meters, threads)), listener)
}

fn deadline() -> Deadline {
    Deadline::after(PATIENCE)
}

fn waiting(wait: Duration) -> KeepAliveConfig {
    let wait = troupe_node::units::Duration::from_millis(u64::try_from(wait.as_millis()).unwrap());
    KeepAliveConfig { wait, ..KeepAliveConfig::default() }
}

#[tokio::test]
async fn the_connection_that_was_used_last_is_used_first() {
    let (server, listener) = server(1, 8, KeepAliveConfig::default()).await;
    let mut connections = Vec::new();
    let mut accepted = Vec::new();
    for _ in 0..3 {
        connections.push(server.acquire(0, Wanted::Kept, deadline()).await.unwrap());
        accepted.push(listener.accept().await.unwrap());
    }
    assert_eq!((server.open(), server.idle()), (3, 0));
    let ports: Vec<u16> = accepted.iter().map(|(_, address)| address.port()).collect();
    for connection in connections {
        connection.served(0);
    }
    assert_eq!((server.open(), server.idle()), (3, 3));
    let mut again = Vec::new();
    for _ in 0..3 {
        let connection = server.acquire(0, Wanted::Kept, deadline()).await.unwrap();
        assert!(connection.is_reused());
        again.push(connection.local_port());
        drop(connection);
    }
    assert_eq!(again, ports.into_iter().rev().collect::<Vec<_>>());
    assert_eq!((server.open(), server.idle()), (0, 0), "what is dropped is counted out");
}

#[tokio::test]
async fn beyond_the_cap_a_call_waits_for_a_connection_and_not_for_ever() {
    let (server, _listener) = server(2, 1, waiting(SOON)).await;
    let only = server.acquire(0, Wanted::Kept, deadline()).await.unwrap();
    let begun = Instant::now();
    let full = server.acquire(1, Wanted::Kept, deadline()).await;
    assert!(matches!(full, Err(Fault::Full)) && begun.elapsed() >= SOON, "the cap is every thread's");
    drop(only);
    assert!(server.acquire(1, Wanted::Kept, deadline()).await.is_ok(), "what was dropped makes room");
}

#[tokio::test]
async fn who_waits_gets_what_another_thread_puts_back() {
    let (server, listener) = server(2, 1, waiting(PATIENCE)).await;
    let only = server.acquire(0, Wanted::Kept, deadline()).await.unwrap();
    let (_socket, address) = listener.accept().await.unwrap();
    let mut next = pin!(server.acquire(1, Wanted::Kept, deadline()));
    assert!(tokio::time::timeout(SOON, &mut next).await.is_err(), "it waits");
    assert_eq!(server.load().waiting, 1);
    only.served(0);
    let taken = tokio::time::timeout(PATIENCE, next).await.unwrap().unwrap();
    assert_eq!((taken.local_port(), taken.is_reused()), (address.port(), true));
    assert_eq!((server.load().waiting, server.open()), (0, 1));
}

#[tokio::test]
async fn a_wait_ends_with_the_call() {
    let (server, _listener) = server(1, 1, waiting(PATIENCE)).await;
    let _only = server.acquire(0, Wanted::Kept, deadline()).await.unwrap();
    let late = tokio::time::timeout(PATIENCE, server.acquire(0, Wanted::Kept, Deadline::after(SOON))).await.unwrap();
    assert!(matches!(late, Err(Fault::Full)));
    assert_eq!(server.load().waiting, 0);
}

/// Between its end and the next turn of the event loop, which is where a POST was lost.
#[tokio::test]
async fn a_call_that_may_not_be_sent_again_gets_no_connection_whose_end_the_event_loop_has_not_heard_of() {
    let (server, listener) = server(1, 8, KeepAliveConfig::default()).await;
    for (wanted, reused) in [(Wanted::Kept, true), (Wanted::Sure, false)] {
        server.acquire(0, Wanted::New, deadline()).await.unwrap().served(0);
        let (socket, _) = listener.accept().await.unwrap();
        drop(socket);
        let connection = server.acquire(0, wanted, deadline()).await.unwrap();
        assert_eq!(connection.is_reused(), reused, "{wanted:?}");
        if !reused {
            let _ = listener.accept().await.unwrap();
        }
    }
    server.acquire(0, Wanted::New, deadline()).await.unwrap().served(0);
    let _socket = listener.accept().await.unwrap();
    assert!(server.acquire(0, Wanted::Sure, deadline()).await.unwrap().is_reused(), "what stands is used");
}

#[tokio::test]
async fn connections_that_were_closed_or_spoke_meanwhile_are_not_used() {
    let (server, listener) = server(1, 8, KeepAliveConfig::default()).await;
    for speaks in [false, true] {
        server.acquire(0, Wanted::Kept, deadline()).await.unwrap().served(0);
        let (socket, _) = listener.accept().await.unwrap();
        if speaks {
            socket.writable().await.unwrap();
            socket.try_write(b"HTTP/1.1 408 x\r\n\r\n").unwrap();
        } else {
            drop(socket);
        }
        // The kernel carries it over at once, on one machine; a moment more does not matter.
        tokio::time::sleep(SOON).await;
        let connection = server.acquire(0, Wanted::Kept, deadline()).await.unwrap();
        assert!(!connection.is_reused(), "speaks: {speaks}");
        assert_eq!(server.open(), 1);
        let _ = listener.accept().await.unwrap();
    }
}
