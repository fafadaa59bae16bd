//! The admin listener's connections: one request at a time.
//!
//! actix's dispatcher decodes whatever it has read, ahead of the answers and while nobody takes them: anybody who pipelines requests
//! and never reads would get a core and as much memory as they like, without a token. Here its codec is asked for the next
//! request when the answer to the one before is with the kernel, and whoever takes no answer is dropped.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use actix_http::body::{BodySize, BoxBody, MessageBody};
use actix_http::h1::{Codec, Message, MessageType};
use actix_http::{ConnectionType, Request, Response, ServiceConfig};
use actix_server::{GracefulShutdownSignal, Server};
use actix_service::{IntoServiceFactory, Service, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::dev::{AppConfig, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::{Decoder, Encoder};

use super::problem;

/// Connections held at once: people, probes and scrapers. More are refused by waiting.
const MAX_CONNECTIONS: usize = 256;

/// A request that is not there by then, counted from the answer before it, ends its connection, with 408 where it has begun;
/// probes send theirs in one packet, and a scraper that comes again later dials anew.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Whoever takes no byte of an answer for this long has stopped reading: what the kernel holds for them is full by then.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a client may take to read its last answer. A socket that is closed with unread bytes destroys what is on its way.
const LINGER: Duration = Duration::from_secs(1);

/// Longest head: a browser's cookies and a token fit several times.
const MAX_HEAD: usize = 16 * 1024;

/// Longest body, which is read and forgotten: no page takes one, but clients send empty forms.
const MAX_BODY: usize = 64 * 1024;

/// What has a client send the body that it holds back until it is told to (RFC 9110 §10.1.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Bytes read at once.
const READ: usize = 4 * 1024;

/// Bytes of an answer that are gathered before they are sent.
const GATHERED: usize = 32 * 1024;

/// Why a request is not answered by a page.
enum Fault {
    /// It is answered with this, and the connection ends.
    Refused(StatusCode),
    /// There is nobody to answer.
    Gone,
}

impl From<io::Error> for Fault {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Makes the server; `app` is made on its one thread.
pub(super) fn build<I, F>(listener: TcpListener, app: impl Fn() -> I + Clone + Send + 'static) -> io::Result<Server>
where
    I: IntoServiceFactory<F, Request>,
    F: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse, Error = actix_web::Error> + 'static,
    F::InitError: std::fmt::Debug,
{
    let server = Server::build()
        .workers(1)
        .worker_max_blocking_threads(2)
        .max_concurrent_connections(MAX_CONNECTIONS)
        .shutdown_timeout(1)
        .disable_signals();
    let stopping = server.graceful_shutdown_signal();
    let server = server.listen("admin", listener, move || {
        let app = map_config(app(), |()| AppConfig::default());
        let stopping = stopping.clone();
        fn_factory(move || {
            let (app, stopping) = (app.new_service(()), stopping.clone());
            async move {
                let app =
                    Rc::new(app.await.map_err(|error| tracing::error!(?error, "the admin pages cannot be made"))?);
                let config = ServiceConfig::default();
                Ok::<_, ()>(fn_service(move |socket: TcpStream| {
                    let (app, config, stopping) = (Rc::clone(&app), config.clone(), stopping.clone());
                    async move {
                        if let Ok(connection) = Connection::new(socket, config) {
                            connection.serve(&*app, &stopping).await;
                        }
                        Ok::<_, ()>(())
                    }
                }))
            }
        })
    })?;
    Ok(server.run())
}

/// One client.
struct Connection {
    socket: TcpStream,
    peer: SocketAddr,
    codec: Codec,
    /// What was read and is no part of a request yet.
    received: BytesMut,
    /// What is answered and not sent yet.
    unsent: BytesMut,
}

impl Connection {
    fn new(socket: TcpStream, config: ServiceConfig) -> io::Result<Self> {
        let peer = socket.peer_addr()?;
        Ok(Self { socket, peer, codec: Codec::new(config), received: BytesMut::new(), unsent: BytesMut::new() })
    }

    /// Answers its requests until either side ends it.
    async fn serve<S>(mut self, app: &S, stopping: &GracefulShutdownSignal)
    where
        S: Service<Request, Response = ServiceResponse, Error = actix_web::Error>,
    {
        loop {
            let request = tokio::select! {
                biased;
                request = timeout(REQUEST_TIMEOUT, self.request()) => request.unwrap_or_else(|_| Err(self.late())),
                () = stopping.notified() => return,
            };
            let answered = match request {
                Ok(request) => {
                    let bodiless = request.method() == Method::HEAD;
                    let mut response = match app.call(request).await {
                        Ok(response) => Response::from(response),
                        Err(error) => error.error_response().into(),
                    };
                    if self.codec.message_type() == MessageType::Stream {
                        // It offers to go on in another protocol, and what it sends next may be of that.
                        response.head_mut().set_connection_type(ConnectionType::Close);
                    }
                    self.answer(response, bodiless).await
                }
                Err(Fault::Refused(status)) => {
                    let detail = status.canonical_reason().unwrap_or("the request is refused");
                    let mut refusal: Response<BoxBody> = problem(status, detail).into();
                    refusal.head_mut().set_connection_type(ConnectionType::Close);
                    self.answer(refusal, false).await
                }
                Err(Fault::Gone) => return,
            };
            if answered.is_err() {
                return;
            }
            if !self.codec.keep_alive() {
                let _ = timeout(LINGER, self.end()).await;
                return;
            }
        }
    }

    /// The next request; its body is read and forgotten, so that the connection can go on.
    async fn request(&mut self) -> Result<Request, Fault> {
        let Message::Item(mut request) = self.message().await? else {
            return Err(Fault::Refused(StatusCode::BAD_REQUEST));
        };
        request.head_mut().peer_addr = Some(self.peer);
        if self.codec.message_type() == MessageType::Payload {
            if request.head().expect() && self.received.is_empty() {
                if announced(&request).is_some_and(|length| length > MAX_BODY) {
                    return Err(Fault::Refused(StatusCode::PAYLOAD_TOO_LARGE));
                }
                self.unsent.extend_from_slice(CONTINUE);
                self.send().await?;
            }
            let mut length = 0;
            while let Message::Chunk(Some(piece)) = self.message().await? {
                length += piece.len();
                if length > MAX_BODY {
                    return Err(Fault::Refused(StatusCode::PAYLOAD_TOO_LARGE));
                }
            }
        }
        Ok(request)
    }

    /// What is said of a request that is not there in time. Whoever has sent none waits for nothing; nor does one that ended the
    /// last one with an empty line too many.
    fn late(&self) -> Fault {
        let in_body = self.codec.message_type() == MessageType::Payload;
        if in_body || self.received.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            return Fault::Refused(StatusCode::REQUEST_TIMEOUT);
        }
        Fault::Gone
    }

    /// What the codec finds next.
    async fn message(&mut self) -> Result<Message<Request>, Fault> {
        loop {
            match self.codec.decode(&mut self.received) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) if self.received.len() >= MAX_HEAD => {
                    return Err(Fault::Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
                }
                Ok(None) => {}
                Err(_) => return Err(Fault::Refused(StatusCode::BAD_REQUEST)),
            }
            self.received.reserve(READ);
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Err(Fault::Gone);
            }
        }
    }

    /// Answers, and returns when the kernel has all of it.
    async fn answer(&mut self, response: Response<BoxBody>, bodiless: bool) -> Result<(), Fault> {
        let (head, mut body) = response.into_parts();
        let size = body.size();
        self.codec.encode(Message::Item((head, size)), &mut self.unsent)?;
        let mut more = !bodiless && !matches!(size, BodySize::None | BodySize::Sized(0));
        while more {
            let mut next = poll_fn(|context| Pin::new(&mut body).poll_next(context));
            // What is at hand goes out together; what is waited for keeps nothing else waiting.
            let piece = match poll_fn(|context| Poll::Ready(Pin::new(&mut next).poll(context))).await {
                Poll::Ready(piece) => piece,
                Poll::Pending => {
                    self.send().await?;
                    next.await
                }
            };
            let piece = piece.transpose().map_err(|_| Fault::Gone)?;
            more = piece.is_some();
            self.codec.encode(Message::Chunk(piece), &mut self.unsent)?;
            if self.unsent.len() >= GATHERED {
                self.send().await?;
            }
        }
        self.send().await?;
        // A long answer's memory is not kept for the next one.
        self.unsent = BytesMut::new();
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Fault> {
        while self.unsent.has_remaining() {
            let sent = timeout(WRITE_TIMEOUT, self.socket.write_buf(&mut self.unsent)).await;
            if sent.map_err(|_| Fault::Gone)?? == 0 {
                return Err(Fault::Gone);
            }
        }
        Ok(())
    }

    /// Ends the sending side, then waits until the client has ended its own.
    async fn end(&mut self) -> io::Result<()> {
        self.socket.shutdown().await?;
        let mut scratch = [0; READ];
        while self.socket.read(&mut scratch).await? > 0 {}
        Ok(())
    }
}

/// The length of the body that a request announces; `None` where it announces none.
fn announced(request: &Request) -> Option<usize> {
    request.head().headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
