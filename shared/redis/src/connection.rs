//! Connections, and what makes them for the pool.

use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleResult};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisConnectionInfo, RedisFuture, RedisResult, Value,
};

use crate::settings::{Login, Node, Place, Server, Settings, Topology};

/// How many times the timeout of a command a new connection may take: it is several round trips, with a cluster or
/// Sentinels to several servers, and happens where nobody waits for an answer.
const CONNECT_TIMEOUTS: u32 = 10;
/// The part of it that one node of a cluster may take: the others are asked when one is away.
const NODE_TIMEOUTS: u32 = 3;
/// What is spoken with all servers. They speak it since version 6; an older one is refused when the connection is made.
const PROTOCOL: ProtocolVersion = ProtocolVersion::RESP3;
/// How often a cluster's connection asks another node by itself, as when a slot has moved.
const CLUSTER_RETRIES: u32 = 3;
/// Pauses in milliseconds between these.
const CLUSTER_RETRY_PAUSE: (u64, u64) = (1, 20);

/// A connection to whatever stands behind the settings.
#[derive(Clone)]
pub struct Connection(Kind);

#[derive(Clone)]
enum Kind {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.0 {
            Kind::Server(connection) => connection.req_packed_command(command),
            Kind::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.0 {
            Kind::Server(connection) => connection.req_packed_commands(commands, offset, count),
            Kind::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.0 {
            Kind::Server(connection) => connection.get_db(),
            Kind::Cluster(connection) => connection.get_db(),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.0 {
            Kind::Server(_) => "server",
            Kind::Cluster(_) => "cluster",
        };
        out.debug_tuple("Connection").field(&kind).finish()
    }
}

/// Makes connections for the pool.
///
/// Pooled by `deadpool` itself and not by `deadpool-redis`, which has a pool of a type of its own for each kind of Redis and
/// spends a round trip on every connection before it is used. Here whoever sees a connection fail throws it away.
pub(crate) struct Connector {
    source: Source,
    timeout: Duration,
}

enum Source {
    Server(Client),
    Sentinel { sentinels: Vec<Node>, login: Login, master: String, database: u8, servers: Login },
    Cluster { client: Box<ClusterClient>, nodes: Vec<Client> },
}

impl Connector {
    /// Checks what can be checked without a network.
    pub(crate) fn new(settings: &Settings) -> RedisResult<Self> {
        let (login, timeout) = (&settings.login, settings.timeout);
        let source = match &settings.topology {
            Topology::Single(server) => Source::Server(client_of(server, login)?),
            Topology::Sentinel { sentinels, login: own, master, database } => Source::Sentinel {
                sentinels: sentinels.clone(),
                login: own.clone(),
                master: master.clone(),
                database: *database,
                servers: login.clone(),
            },
            Topology::Cluster { nodes } => {
                let infos = nodes
                    .iter()
                    .map(|node| Ok(tcp(node).into_connection_info()?.set_redis_settings(redis_info(login, 0))));
                let infos: Vec<_> = infos.collect::<RedisResult<_>>()?;
                let client = ClusterClient::builder(infos.clone())
                    .use_protocol(PROTOCOL)
                    .connection_timeout(timeout * NODE_TIMEOUTS)
                    .response_timeout(timeout)
                    // It would hold for connections with more patience as well; every wait here is bounded by whoever waits.
                    .overall_response_timeout(None)
                    .retries(CLUSTER_RETRIES)
                    .min_retry_wait(CLUSTER_RETRY_PAUSE.0)
                    .max_retry_wait(CLUSTER_RETRY_PAUSE.1)
                    .build()?;
                let nodes = infos.into_iter().map(Client::open).collect::<RedisResult<_>>()?;
                Source::Cluster { client: Box::new(client), nodes }
            }
        };
        Ok(Self { source, timeout })
    }

    /// How long a connection may take to be made.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout * CONNECT_TIMEOUTS
    }

    /// A connection on which an answer may take `patience`.
    pub(crate) async fn connect(&self, patience: Duration) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience()))
            .set_response_timeout(Some(patience));
        let kind = match &self.source {
            Source::Server(client) => Kind::Server(client.get_multiplexed_async_connection_with_config(&config).await?),
            Source::Sentinel { .. } => Kind::Server(self.sentinel()?.get_async_connection_with_config(&config).await?),
            Source::Cluster { client, .. } => {
                let config = ClusterConfig::new()
                    .set_connection_timeout(self.timeout * NODE_TIMEOUTS)
                    .set_response_timeout(patience);
                Kind::Cluster(client.get_async_connection_with_config(config).await?)
            }
        };
        Ok(Connection(kind))
    }

    /// A client of one server, to subscribe with: what is published in a cluster reaches all of its nodes.
    pub(crate) async fn one_server(&self) -> RedisResult<Client> {
        match &self.source {
            Source::Server(client) => Ok(client.clone()),
            Source::Sentinel { .. } => self.sentinel()?.async_get_client().await,
            Source::Cluster { nodes, .. } => {
                let any = nodes.get(fastrand::usize(..nodes.len().max(1)));
                any.cloned().ok_or_else(|| (redis::ErrorKind::InvalidClientConfig, "a cluster without nodes").into())
            }
        }
    }

    /// A client of the Sentinels. One per connection: it keeps connections to Sentinels, and there is nothing to keep them for.
    fn sentinel(&self) -> RedisResult<SentinelClient> {
        let Source::Sentinel { sentinels, login, master, database, servers } = &self.source else {
            return Err((redis::ErrorKind::InvalidClientConfig, "no sentinels are configured").into());
        };
        let mut builder =
            SentinelClientBuilder::new(sentinels.iter().map(tcp), master.clone(), SentinelServerType::Master)?
                .set_client_to_redis_db(i64::from(*database))
                .set_client_to_redis_protocol(PROTOCOL);
        if let Some(username) = &servers.username {
            builder = builder.set_client_to_redis_username(username.clone());
        }
        if let Some(password) = &servers.password {
            builder = builder.set_client_to_redis_password(password.clone());
        }
        if let Some(username) = &login.username {
            builder = builder.set_client_to_sentinel_username(username.clone());
        }
        if let Some(password) = &login.password {
            builder = builder.set_client_to_sentinel_password(password.clone());
        }
        builder.build()
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = redis::RedisError;

    async fn create(&self) -> RedisResult<Connection> {
        self.connect(self.timeout).await
    }

    async fn recycle(&self, _: &mut Connection, _: &Metrics) -> RecycleResult<redis::RedisError> {
        // One that failed was not given back.
        Ok(())
    }
}

fn client_of(server: &Server, login: &Login) -> RedisResult<Client> {
    let address = match &server.place {
        Place::Tcp(node) => tcp(node),
        Place::Unix(path) => ConnectionAddr::Unix(path.clone()),
    };
    let login = Login {
        username: login.username.clone().or_else(|| server.login.username.clone()),
        password: login.password.clone().or_else(|| server.login.password.clone()),
    };
    Client::open(address.into_connection_info()?.set_redis_settings(redis_info(&login, server.database)))
}

fn tcp(node: &Node) -> ConnectionAddr {
    ConnectionAddr::Tcp(node.host.clone(), node.port)
}

fn redis_info(login: &Login, database: i64) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_db(database).set_protocol(PROTOCOL);
    if let Some(username) = &login.username {
        info = info.set_username(username);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password);
    }
    info
}
