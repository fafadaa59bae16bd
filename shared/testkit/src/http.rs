//! A small blocking HTTP/1.1 client that keeps its connection and hides nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for a byte: far above anything a test expects.
const PATIENCE: Duration = Duration::from_secs(60);

/// A response as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of the field `name` (in lower case), or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(candidate, _)| candidate == name).map_or("", |(_, value)| value)
    }

    /// All values of the field `name`.
    pub fn headers_named(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(candidate, _)| candidate == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// One connection to a server.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<TcpStream>,
    /// Whether a byte of the response to the last request has come.
    began: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream), began: false })
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.began = false;
        self.reader.get_mut().write_all(bytes)
    }

    /// Sends a request with a `Content-Length` body and reads its response.
    ///
    /// # Errors
    /// When the connection ends before the response does.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: troupe.test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || method == "POST" || method == "PUT" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes)?;
        self.response(method == "HEAD")
    }

    /// Reads one response, interim ones skipped.
    ///
    /// # Errors
    /// When the connection ends before the response does, or what came is not HTTP.
    pub fn response(&mut self, to_head: bool) -> io::Result<Response> {
        let mut response = self.head()?;
        while (100..200).contains(&response.status) && response.status != 101 {
            response = self.head()?;
        }
        if to_head || response.status == 204 || response.status == 304 {
            return Ok(response);
        }
        if response.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            while let Some(piece) = self.chunk()? {
                response.body.extend_from_slice(&piece);
            }
        } else if let Ok(length) = response.header("content-length").parse() {
            response.body = vec![0; length];
            self.reader.read_exact(&mut response.body)?;
        } else {
            self.reader.read_to_end(&mut response.body)?;
        }
        Ok(response)
    }

    /// Reads a response's head, without its body.
    ///
    /// # Errors
    /// As for [`Connection::response`].
    pub fn head(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {line:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Response { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads one chunk of a chunked body; `None` at its proper end.
    ///
    /// # Errors
    /// When the connection ends inside the body.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("not a chunk size: {line:?}")))?;
        let mut piece = vec![0; size];
        self.reader.read_exact(&mut piece)?;
        self.line()?;
        Ok((size > 0).then_some(piece))
    }

    /// Reads and forgets so many bytes of a body.
    ///
    /// # Errors
    /// When the connection ends before.
    pub fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.reader).take(bytes), &mut io::sink())?;
        if skipped < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// What has come, once something has; empty at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn piece(&mut self) -> io::Result<Vec<u8>> {
        let piece = self.reader.fill_buf()?.to_vec();
        self.reader.consume(piece.len());
        Ok(piece)
    }

    /// Another handle of the connection, for a thread that writes, or to end one side of it.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn handle(&self) -> io::Result<TcpStream> {
        self.reader.get_ref().try_clone()
    }

    /// Whether a byte has come since bytes were last sent.
    pub fn began_response(&self) -> bool {
        self.began
    }

    /// Whether a request may be sent, as far as can be seen: the server has neither closed the connection nor said something that
    /// nobody asked for.
    pub fn is_open(&self) -> bool {
        let stream = self.reader.get_ref();
        let quiet = stream.set_nonblocking(true).is_ok()
            && matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).is_ok() && quiet && self.reader.buffer().is_empty()
    }

    /// Reads until the server has closed the connection, whatever it says.
    pub fn hear_out(&mut self) {
        while let Ok(bytes @ 1..) = self.reader.fill_buf().map(<[u8]>::len) {
            self.reader.consume(bytes);
        }
    }

    /// Whether the server has closed the connection and left nothing unread.
    pub fn closed(&mut self) -> bool {
        matches!(self.reader.fill_buf(), Ok([]) | Err(_))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.began = true;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// One `GET` on a connection of its own.
///
/// # Errors
/// When nobody listens or the connection ends too early.
pub fn get(address: SocketAddr, target: &str) -> io::Result<Response> {
    Connection::open(address)?.request("GET", target, &[("Connection", "close")], b"")
}
