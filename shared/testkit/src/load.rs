//! A modest, steady load from clients that behave as real ones do, and what each of its requests came to.
//!
//! A client keeps its connection, and goes on to the next address when one refuses it or says that it closes. Before it sends
//! anything on a kept connection it looks whether that was closed meanwhile. It sends a request again only where a client may
//! by itself (RFC 9110, section 9.2.2; RFC 9112, section 9.3.1): once, of an idempotent method, when a *kept* connection
//! turns out to be closed before a byte of the response. No server can tell a client in time that an idle connection ends; but
//! what looks like that may be a request that was lost, so each one is [told](Record::resent).

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::http::{Connection, Response};
use crate::wait;

/// What the clients do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The gateways; a client begins at one of them.
    pub addresses: Vec<SocketAddr>,
    /// Clients, each with one connection.
    pub clients: usize,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// What they send; nothing with `GET`.
    pub body: &'static [u8],
    /// What they ask for.
    pub target: &'static str,
    /// How long a client rests between two requests, about: half of it to half as much again, each another time, so
    /// that they never all rest at once.
    pub pause: Duration,
}

/// What a request came to.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it was sent.
    pub begun: Instant,
    /// When its response was complete, or it was lost.
    pub ended: Instant,
    /// The status; 0 when the connection ended before the response did.
    pub status: u16,
    /// Whether it was sent again, because the connection that a client had kept was closed before a byte of the response.
    pub resent: bool,
    /// `Retry-After`, or an empty text.
    pub retry_after: String,
    /// Why there is no response, or the response's body when the status is an error.
    pub detail: String,
}

impl Record {
    /// Whether it was answered with 200, and not sent a second time for that.
    pub fn served(&self) -> bool {
        self.status == 200 && !self.resent
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        self.ended - self.begun
    }
}

/// How often the machine is asked whether it still runs.
const PULSE: Duration = Duration::from_millis(10);
/// A pulse that comes later than this was held up; less is a scheduler at work.
const HELD_UP: Duration = Duration::from_millis(50);

/// Clients that run until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    records: Arc<Mutex<Vec<Record>>>,
    clients: Vec<JoinHandle<()>>,
    pulse: JoinHandle<Duration>,
}

impl Load {
    /// Starts the clients.
    pub fn start(plan: &Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let pulse = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || held_up(&stop))
        };
        let mut load = Self { stop, done: Arc::default(), records: Arc::default(), clients: Vec::new(), pulse };
        for index in 0..plan.clients {
            let (stop, done, records) = (Arc::clone(&load.stop), Arc::clone(&load.done), Arc::clone(&load.records));
            let plan = plan.clone();
            let pause = plan.pause.mul_f64(0.5 + index as f64 / plan.clients as f64);
            load.clients.push(thread::spawn(move || {
                let mut client = Client { at: index % plan.addresses.len(), kept: None, plan };
                while !stop.load(Ordering::Relaxed) {
                    let record = client.request();
                    records.lock().expect("no client panics").push(record);
                    done.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(pause);
                }
            }));
        }
        load
    }

    /// Waits until `count` more requests have ended.
    ///
    /// # Panics
    /// When they do not within a minute.
    pub fn run(&self, count: usize) {
        let until = self.done.load(Ordering::Relaxed) + count;
        wait::until("requests to end", Duration::from_secs(60), || {
            (self.done.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    /// Lets the clients finish their requests. Returns what all of them came to, by the time of their beginning, and how
    /// long the machine stood still in all meanwhile, which is nobody's fault and by which bounds of time are to be
    /// extended.
    ///
    /// # Panics
    /// When a client has panicked.
    pub fn stop(self) -> (Vec<Record>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("no client panics");
        }
        let stood_still = self.pulse.join().expect("the pulse does not panic");
        let mut records = std::mem::take(&mut *self.records.lock().expect("no client panics"));
        records.sort_by_key(|record| record.begun);
        (records, stood_still)
    }
}

/// Sleeps again and again; how much later than asked for it woke, in all.
fn held_up(stop: &AtomicBool) -> Duration {
    let mut total = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        thread::sleep(PULSE);
        let late = begun.elapsed().saturating_sub(PULSE);
        if late > HELD_UP {
            total += late;
        }
    }
    total
}

struct Client {
    plan: Plan,
    at: usize,
    kept: Option<Connection>,
}

impl Client {
    fn request(&mut self) -> Record {
        let begun = Instant::now();
        let mut resent = false;
        let result = self.exchange(&mut resent);
        let ended = Instant::now();
        match result {
            Ok(response) => {
                if response.header("connection").eq_ignore_ascii_case("close") {
                    self.next();
                }
                let detail = if response.status < 400 { String::new() } else { response.text() };
                let retry_after = response.header("retry-after").to_owned();
                Record { begun, ended, status: response.status, resent, retry_after, detail }
            }
            Err(error) => {
                self.next();
                Record { begun, ended, status: 0, resent, retry_after: String::new(), detail: error.to_string() }
            }
        }
    }

    fn exchange(&mut self, resent: &mut bool) -> io::Result<Response> {
        if let Some(mut connection) = self.kept.take().filter(Connection::is_open) {
            match connection.request(self.plan.method, self.plan.target, &[], self.plan.body) {
                Ok(response) => {
                    self.kept = Some(connection);
                    return Ok(response);
                }
                Err(error) if may_be_resent(self.plan.method, &connection, &error) => *resent = true,
                Err(error) => return Err(error),
            }
        }
        let mut connection = self.connect()?;
        let response = connection.request(self.plan.method, self.plan.target, &[], self.plan.body)?;
        self.kept = Some(connection);
        Ok(response)
    }

    /// A connection to the first gateway that takes one.
    fn connect(&mut self) -> io::Result<Connection> {
        let mut refused = None;
        for _ in 0..self.plan.addresses.len() {
            match Connection::open(self.plan.addresses[self.at]) {
                Ok(connection) => return Ok(connection),
                Err(error) => refused = Some(error),
            }
            self.next();
        }
        Err(refused.unwrap_or_else(|| ErrorKind::NotConnected.into()))
    }

    fn next(&mut self) {
        self.kept = None;
        self.at = (self.at + 1) % self.plan.addresses.len();
    }
}

/// Whether a request that failed on a kept connection may be sent again without being asked: it may have been carried out.
fn may_be_resent(method: &str, connection: &Connection, error: &io::Error) -> bool {
    let closed = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    closed && !connection.began_response() && method != "POST"
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A server that answers the first request on a connection, and takes the second without a word before it closes; what
    /// comes on another connection it answers, when somebody comes while it looks.
    fn forgetful(listener: &TcpListener) {
        let (mut first, _) = listener.accept().expect("a client");
        answer(&mut first);
        let _ = first.read(&mut [0; 1024]).expect("a second request");
        drop(first);
        listener.set_nonblocking(true).expect("a listener that does not wait");
        let looked = Instant::now();
        while looked.elapsed() < Duration::from_millis(500) {
            if let Ok((mut second, _)) = listener.accept() {
                second.set_nonblocking(false).expect("a connection that waits");
                return answer(&mut second);
            }
            thread::sleep(PULSE);
        }
    }

    fn answer(connection: &mut TcpStream) {
        assert!(connection.read(&mut [0; 1024]).expect("a request") > 0);
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("a client that listens");
    }

    fn two_requests(method: &'static str) -> Vec<(u16, bool)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addresses = vec![listener.local_addr().expect("an address")];
        let plan = Plan { addresses, clients: 1, method, body: b"", target: "/", pause: Duration::ZERO };
        let mut client = Client { at: 0, kept: None, plan };
        let server = thread::spawn(move || forgetful(&listener));
        let records: Vec<_> = (0..2).map(|_| client.request()).collect();
        drop(client);
        server.join().expect("the server does not panic");
        records.iter().map(|record| (record.status, record.resent)).collect()
    }

    #[test]
    fn what_a_server_took_without_a_word_is_sent_again_and_told_where_that_is_allowed() {
        assert_eq!(two_requests("GET"), [(200, false), (200, true)]);
    }

    #[test]
    fn what_may_have_been_carried_out_is_lost_and_not_sent_again() {
        assert_eq!(two_requests("POST"), [(200, false), (0, false)]);
    }

    #[test]
    fn a_connection_that_was_closed_while_nobody_used_it_is_not_used() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let connection = Connection::open(listener.local_addr().expect("an address")).expect("it listens");
        let (server, _) = listener.accept().expect("a client");
        assert!(connection.is_open());
        drop(server);
        wait::until("the end to arrive", Duration::from_secs(10), || (!connection.is_open()).then_some(()));
    }
}
