//! An HTTP server that does as the test says: lies, waits, hangs up.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::websocket::Duplex;

/// Longest wait for a byte of a request: far above anything a test expects.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is kept of a request's body; all of it is counted.
const KEPT: usize = 64 * 1024;

/// A request as it came over the wire.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Request line and fields, without the empty line.
    pub head: String,
    /// The beginning of the body, without its framing.
    pub body: Vec<u8>,
    /// The body's length.
    pub length: u64,
    /// Which connection it came by, counted from 0.
    pub connection: usize,
}

impl Request {
    /// The method.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// All values of the field `name` (in lower case).
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    /// The first value of the field `name`, or an empty text.
    pub fn field(&self, name: &str) -> &str {
        self.fields(name).first().copied().unwrap_or_default()
    }
}

/// What becomes of a connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next request is read.
    Keep,
    /// It is closed.
    Close,
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// The request; its body once it was read.
    pub request: Request,
    reader: &'a mut BufReader<TcpStream>,
    requests: &'a Mutex<Vec<Request>>,
    read: bool,
    noted: bool,
}

impl Exchange<'_> {
    /// Reads the request's body.
    ///
    /// # Errors
    /// When it breaks off.
    pub fn read_body(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.read, true) {
            return Ok(());
        }
        if self.request.field("transfer-encoding") == "chunked" {
            loop {
                let size = self.line()?;
                let size = u64::from_str_radix(&size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                self.take(size)?;
                self.line()?;
                if size == 0 {
                    return Ok(());
                }
            }
        }
        let length = self.request.field("content-length").parse().unwrap_or(0);
        self.take(length)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.note();
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Sends a whole answer with its length.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn answer(&mut self, status: u16, body: &str) -> io::Result<Then> {
        self.send(format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len()))?;
        Ok(Then::Keep)
    }

    /// Waits until the other side has closed the connection.
    pub fn await_close(&mut self) {
        while let Ok(bytes @ 1..) = self.reader.fill_buf().map(<[u8]>::len) {
            self.reader.consume(bytes);
        }
    }

    /// What has come behind the request, once something has; empty at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn piece(&mut self) -> io::Result<Vec<u8>> {
        let piece = self.reader.fill_buf()?.to_vec();
        self.reader.consume(piece.len());
        Ok(piece)
    }

    /// How many bytes have come behind the request by now.
    pub fn at_hand(&self) -> usize {
        let mut room = [0; 1024];
        let socket = self.reader.get_ref();
        let _ = socket.set_nonblocking(true);
        let there = socket.peek(&mut room).unwrap_or(0);
        let _ = socket.set_nonblocking(false);
        there + self.reader.buffer().len()
    }

    /// Another handle of the connection, for a thread that writes.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn handle(&self) -> io::Result<TcpStream> {
        self.reader.get_ref().try_clone()
    }

    pub(crate) fn duplex(&mut self) -> Duplex<'_> {
        Duplex(self.reader)
    }

    /// Before its answer, so that who has the answer finds the request.
    fn note(&mut self) {
        if !std::mem::replace(&mut self.noted, true) {
            lock(self.requests).push(self.request.clone());
        }
    }

    fn take(&mut self, mut left: u64) -> io::Result<()> {
        while left > 0 {
            let bytes = self.reader.fill_buf()?;
            let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if taken == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let kept = taken.min(KEPT.saturating_sub(self.request.body.len()));
            self.request.body.extend_from_slice(&bytes[..kept]);
            self.reader.consume(taken);
            self.request.length += taken as u64;
            left -= taken as u64;
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// How requests are answered.
type Script = dyn Fn(&mut Exchange<'_>) -> io::Result<Then> + Send + Sync;

/// The server. It ends when this is dropped.
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<thread::JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    accepted: AtomicUsize,
    in_flight: AtomicUsize,
    most: AtomicUsize,
    over: AtomicBool,
}

impl Upstream {
    /// Starts a server that answers as `script` does.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(script: impl Fn(&mut Exchange<'_>) -> io::Result<Then> + Send + Sync + 'static) -> Self {
        Self::listen("127.0.0.1:0".parse().expect("an address"), script)
    }

    /// As [`Upstream::start`], on an address of one's own.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn listen(
        address: SocketAddr,
        script: impl Fn(&mut Exchange<'_>) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("listen");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: Mutex::default(),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            over: AtomicBool::new(false),
        });
        let listening = Arc::clone(&shared);
        let accepting = Some(thread::spawn(move || accept(&listener, &listening)));
        Self { address, shared, accepting }
    }

    /// Answers every request with these bytes, and keeps the connection or not.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn saying(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        let bytes = bytes.into();
        Self::start(move |exchange| {
            exchange.read_body()?;
            exchange.send(&bytes)?;
            Ok(then)
        })
    }

    /// The requests so far, in the order in which their answers were begun or they were given up.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// The most requests that were being answered at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// Closes every connection that is open now.
    pub fn hang_up(&self) {
        for connection in lock(&self.shared.connections).drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which closes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.hang_up();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let connection = shared.accepted.fetch_add(1, Ordering::SeqCst);
        // Here, not on the thread that serves it: whoever hangs up meets every connection that was accepted.
        if let Ok(handle) = stream.try_clone() {
            lock(&shared.connections).push(handle);
        }
        let serving = Arc::clone(shared);
        thread::spawn(move || serve(stream, connection, &serving));
    }
}

fn serve(stream: TcpStream, connection: usize, shared: &Shared) {
    let _ = stream.set_nodelay(true);
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut reader = BufReader::new(stream);
    while let Ok(head) = read_head(&mut reader) {
        let request = Request { head, connection, ..Request::default() };
        let requests = &shared.requests;
        let mut exchange = Exchange { request, reader: &mut reader, requests, read: false, noted: false };
        let now = shared.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most.fetch_max(now, Ordering::SeqCst);
        let then = (shared.script)(&mut exchange);
        shared.in_flight.fetch_sub(1, Ordering::SeqCst);
        let body = if matches!(then, Ok(Then::Keep)) { exchange.read_body() } else { Ok(()) };
        exchange.note();
        if body.is_err() || !matches!(then, Ok(Then::Keep)) {
            break;
        }
    }
    let _ = reader.get_mut().shutdown(Shutdown::Both);
}

fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        reader.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    head.truncate(head.len() - 4);
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}
