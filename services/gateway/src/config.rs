//! `[gateway]` and `[[route]]`.

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use troupe_node::config::text;
use troupe_node::units::{Duration, Percent, Size};

use crate::cache::config::RouteCache;

/// The HTTP front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Where HTTP is served: addresses, or tables { address = "..." }.
    pub listen: Vec<Listen>,
    /// Connections held at once, over all listeners; the next one waits in the kernel's backlog.
    #[schemars(range(min = 1))]
    pub max_connections: u32,
    /// Requests after which a keep-alive connection is closed.
    #[schemars(range(min = 1))]
    pub max_requests_per_connection: u32,
    /// From the complete head (and spooled body) to the first byte of the reply; travels with the call. Who has it then answers 504.
    pub request_timeout: Duration,
    /// Longest pause between two pieces of a body, either way; streams have no total limit.
    pub stream_idle: Duration,
    /// Longest time a client may take to send a request's head.
    pub head_timeout: Duration,
    /// How long an idle connection is kept for its next request.
    pub keep_alive: Duration,
    /// How long a connection that is being closed may take to take in its last bytes.
    pub disconnect_timeout: Duration,
    /// Largest request head, request line included; at most "60KiB".
    pub max_head: Size,
    /// Largest request body.
    pub max_body: Size,
    /// Networks (CIDR) of proxies in front whose X-Forwarded-* headers are believed.
    #[schemars(schema_with = "text::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Share of the traces that begin here whose flag says sampled, which PHP and servers that trace go by. A client that
    /// sends a traceparent decides for itself.
    pub trace_sampled: Percent,
    /// Answer GET /health on these listeners: 200 while serving, 503 while draining.
    pub health: bool,
    /// Show the metrics service's dashboard at /dashboard, to whoever has the token of admin.token_file.
    pub dashboard: bool,
    /// Write one line per request; lines for people on a terminal, JSON otherwise (as log.format says).
    pub access_log: bool,
}

/// One address to listen on. In a file a string, or a table for what options are to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ListenForm", into = "ListenForm")]
pub struct Listen {
    /// The address; port 0 lets the kernel choose.
    pub address: SocketAddr,
}

/// One way from a request to what answers it. The most specific one wins: host, then literal before `{name}` before
/// `{rest*}` in each segment, then method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The host the route is for; left out: every host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path: literal segments, {name} for one segment, {rest*} for all that follow.
    pub path: String,
    /// The methods; left out: all of them (HEAD runs as GET).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The PHP pool that answers, with the function that {function} or {function*} in the path names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<String>,
    /// The one function that answers, whatever the path; of the pool in `functions`, else of pool "default".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The group of HTTP servers that answers, [upstream.NAME]; stands in the place of functions and function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Hand request bodies over as they arrive, instead of when they are complete.
    #[serde(default)]
    pub streaming: bool,
    /// Cache answers: true (as their headers say), false (never), or a table of details. Left out: those that ask for it
    /// by the `#[Cache]` attribute or a Troupe-Cache-Control header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<RouteCache>,
}

/// What a listener looks like in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum ListenForm {
    Address(SocketAddr),
    Table(ListenTable),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenTable {
    address: SocketAddr,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: vec![Listen { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)) }],
            max_connections: 100_000,
            max_requests_per_connection: 100_000,
            request_timeout: Duration::from_secs(30),
            stream_idle: Duration::from_secs(60),
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            disconnect_timeout: Duration::from_secs(5),
            max_head: Size::from_kib(32),
            max_body: Size::from_mib(64),
            trusted_proxies: Vec::new(),
            trace_sampled: Percent::new(100),
            health: true,
            dashboard: false,
            access_log: true,
        }
    }
}

impl RouteConfig {
    /// The route of an empty configuration: every path names a function of the default pool.
    #[must_use]
    pub fn serve_functions() -> Self {
        Self { path: "/api/{function*}".to_owned(), functions: Some("default".to_owned()), ..Self::default() }
    }

    /// The PHP pool this route leads to, unless it leads to an upstream.
    #[must_use]
    pub fn pool(&self) -> &str {
        self.functions.as_deref().unwrap_or("default")
    }
}

impl From<ListenForm> for Listen {
    fn from(form: ListenForm) -> Self {
        match form {
            ListenForm::Address(address) | ListenForm::Table(ListenTable { address }) => Self { address },
        }
    }
}

impl From<Listen> for ListenForm {
    fn from(listen: Listen) -> Self {
        Self::Address(listen.address)
    }
}

impl JsonSchema for Listen {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Listen".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let address = text::socket_address(generator);
        json_schema!({ "anyOf": [
            address,
            {
                "type": "object",
                "properties": { "address": address },
                "required": ["address"],
                "additionalProperties": false,
            },
        ] })
    }
}
