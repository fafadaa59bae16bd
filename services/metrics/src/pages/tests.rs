//! The pages as an admin listener serves them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use troupe_node::admin::{AdminOptions, AdminServer, AdminState, Api, Identity, Readiness};
use troupe_node::metrics::Metrics;
use troupe_node::threads::{Watchdog, WatchdogOptions};

use super::events::MAX_VIEWERS;
use crate::MetricsService;

fn start() -> (MetricsService, AdminServer) {
    let metrics = Metrics::detached();
    let service = actix_rt::System::new().block_on(MetricsService::start(&metrics)).unwrap();
    let identity = Identity { service: "test".into(), instance: "x/1".into(), version: "0", commit: "unknown" };
    let state = AdminState {
        readiness: Readiness::new(),
        watchdog: Watchdog::start(WatchdogOptions::default()).unwrap(),
        metrics,
        api: Api::new(identity),
    };
    let options = AdminOptions::new("127.0.0.1:0".parse().unwrap());
    let admin = AdminServer::start(&options, state, service.pages()).unwrap();
    (service, admin)
}

/// Asks for the events; the connection, and the lines of the answer's head.
fn ask(method: &str, address: SocketAddr) -> (TcpStream, Vec<String>) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} /dashboard/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let head = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).map(|line| line.to_lowercase());
    (stream, head.collect())
}

#[test]
fn a_head_request_of_the_events_takes_no_seat() {
    let (service, admin) = start();
    let asked: Vec<_> = (0..=MAX_VIEWERS).map(|_| ask("HEAD", admin.address())).collect();
    for (_, head) in &asked {
        assert_eq!(head[0], "http/1.1 200 ok");
        assert!(head.contains(&"content-type: text/event-stream".to_owned()), "{head:?}");
    }
    assert_eq!((service.shown.viewers.count(), service.shown.viewers.refused()), (0, 0));
    assert_eq!(ask("GET", admin.address()).1[0], "http/1.1 200 ok");
    admin.stop();
}
