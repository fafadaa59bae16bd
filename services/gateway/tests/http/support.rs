//! A gateway with a service of the test behind it, and a client that sends bytes as they are.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use troupe_contracts::invoke::{Invoke, Reply, Times};
use troupe_contracts::report::Load;
use troupe_gateway::config::{GatewayConfig, Listen, RouteConfig};
use troupe_gateway::{Gateway, Options, PortFactory, Running};
use troupe_mesh::body::Body;
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::Failure;
use troupe_mesh::port::{CallFuture, Port, Service};
use troupe_wire::head::ResponseHeadBuilder;

/// Far longer than anything here takes, so that a hang is a failure and a slow machine is none.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

type Answering = Pin<Box<dyn Future<Output = Result<Reply, Failure>>>>;

struct Fake<F>(F);

impl<F: Fn(Envelope<Invoke>) -> Answering> Service<Invoke> for Fake<F> {
    fn call(&self, envelope: Envelope<Invoke>) -> CallFuture<Invoke> {
        (self.0)(envelope)
    }
}

/// Starts a gateway whose calls go to `service`.
pub(crate) fn serve<F, A>(config: GatewayConfig, routes: &[RouteConfig], service: F) -> Running
where
    F: Fn(Envelope<Invoke>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Reply, Failure>> + 'static,
{
    serve_with(config, routes, Options { threads: 2, ..Options::default() }, service)
}

/// The same, with options.
pub(crate) fn serve_with<F, A>(config: GatewayConfig, routes: &[RouteConfig], options: Options, service: F) -> Running
where
    F: Fn(Envelope<Invoke>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Result<Reply, Failure>> + 'static,
{
    let ports: PortFactory = Arc::new(move |_| {
        let service = service.clone();
        Port::inline(Rc::new(Fake(move |envelope| -> Answering { Box::pin(service(envelope)) })))
    });
    Gateway::bind(config, routes, options, ports).expect("binds")
}

/// Answers with what was asked, as lines of text.
pub(crate) async fn echo(envelope: Envelope<Invoke>) -> Result<Reply, Failure> {
    let mut call = envelope.call;
    let mut text =
        format!("{} {} {} {}\n", call.head.method(), call.head.target(), call.function, call.head.authority());
    for (name, value) in call.head.fields() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value)));
    }
    if let Some(trace) = envelope.trace {
        text.push_str(&format!("traceparent: {trace}\n"));
    }
    text.push('\n');
    let kind = match &call.body {
        Body::Empty => "empty",
        Body::Full(_) => "full",
        Body::Stream(_) => "stream",
    };
    let mut len = 0;
    let mut body = Vec::new();
    while let Some(piece) = call.body.next().await {
        let Ok(piece) = piece else {
            return Err(Failure::new(
                troupe_mesh::failure::Outcome::Cancelled,
                troupe_mesh::failure::Stage::Php,
                "broken body",
            ));
        };
        len += piece.len();
        if body.len() < 4096 {
            body.extend_from_slice(&piece);
        }
    }
    text.push_str(&format!("body {kind} {len} {}", String::from_utf8_lossy(&body)));
    Ok(reply(200, &[("Content-Type", "text/plain")], Body::full(text.into())))
}

pub(crate) fn reply(status: u16, fields: &[(&str, &str)], body: Body) -> Reply {
    let mut builder = ResponseHeadBuilder::default();
    for (name, value) in fields {
        builder.field(name.as_bytes(), value.as_bytes()).expect("a field");
    }
    Reply { head: builder.finish(status), load: Load::default(), times: Times::default(), body }
}

pub(crate) fn config() -> GatewayConfig {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    GatewayConfig { listen: vec![Listen { address }], access_log: false, ..GatewayConfig::default() }
}

pub(crate) fn functions() -> Vec<RouteConfig> {
    vec![any_function()]
}

/// A route on which the whole path names the function.
pub(crate) fn any_function() -> RouteConfig {
    RouteConfig { path: "/{function*}".into(), functions: Some("default".into()), ..RouteConfig::default() }
}

/// A client connection.
pub(crate) struct Client(pub(crate) TcpStream);

/// What came back.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(running: &Running) -> Self {
        let socket = TcpStream::connect(running.addresses()[0]).expect("connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("sets a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("sets a timeout");
        socket.set_nodelay(true).expect("sets nodelay");
        Self(socket)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(bytes.as_ref()).expect("sends");
        self
    }

    /// Reads one response; `head_only` for answers to HEAD.
    pub(crate) fn response(&mut self, head_only: bool) -> Response {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0
                .read_exact(&mut byte)
                .unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&head)));
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("an ASCII head");
        let status: u16 = head[9..12].parse().expect("a status");
        let mut response = Response { status, head, body: Vec::new() };
        if head_only || status == 204 || status == 304 || (100..200).contains(&status) {
            return response;
        }
        if let Some(len) = response.field("content-length") {
            response.body = vec![0; len.parse().expect("a length")];
            self.0.read_exact(&mut response.body).expect("a body");
        } else if response.field("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line(), 16).expect("a chunk size");
                let at = response.body.len();
                response.body.resize(at + size, 0);
                self.0.read_exact(&mut response.body[at..]).expect("a chunk");
                assert_eq!(self.line(), "");
                if size == 0 {
                    break;
                }
            }
        } else {
            self.0.read_to_end(&mut response.body).expect("a body until the end");
        }
        response
    }

    pub(crate) fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")).response(false)
    }

    /// Whether the server has closed the connection, without a byte more.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            self.0.read_exact(&mut byte).expect("a line");
            line.push(byte[0]);
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).expect("an ASCII line")
    }
}

impl Response {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn problem(&self) -> serde_json::Value {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{}", self.head);
        serde_json::from_slice(&self.body).expect("a JSON document")
    }
}

/// Lets the gateway go on meanwhile. Nothing here depends on how far it gets.
#[allow(
    clippy::disallowed_methods,
    reason = "the client side of these tests blocks; the gateway has threads of its own"
)]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A body of `len` bytes that repeats.
pub(crate) fn bytes(len: usize) -> Bytes {
    Bytes::from((0..len).map(|index| b'a' + (index % 26) as u8).collect::<Vec<u8>>())
}
