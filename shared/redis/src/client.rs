//! The client: a pool of connections, and a bound on every wait.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Object, Pool, PoolConfig, Timeouts};
use redis::RedisResult;
use tokio::time::timeout;

use crate::connection::{Connection, Connector};
use crate::error::Error;
use crate::route;
use crate::settings::{Settings, Topology};
use crate::subscription::Subscription;

/// Connections of one process at most. Each carries many commands at once, so they are few.
const MAX_CONNECTIONS: usize = 4;

/// Redis. Clones share the connections, which belong to the event loops that they were made on.
#[derive(Clone)]
pub struct Redis {
    pool: Pool<Connector>,
    shared: Arc<Shared>,
}

struct Shared {
    topology: Topology,
    namespace: String,
    timeout: Duration,
    settings: Settings,
}

impl fmt::Debug for Redis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Redis")
            .field("topology", &self.shared.topology)
            .field("namespace", &self.shared.namespace)
            .field("timeout", &self.shared.timeout)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Checks the settings; connects to nothing.
    ///
    /// # Errors
    ///
    /// When the settings contradict themselves.
    pub fn open(settings: &Settings) -> Result<Self, Error> {
        let connector = Connector::new(settings).map_err(Error::Connect)?;
        let timeouts = Timeouts {
            wait: Some(settings.timeout),
            create: Some(connector.patience()),
            recycle: Some(settings.timeout),
        };
        let config = PoolConfig { max_size: MAX_CONNECTIONS, timeouts, ..PoolConfig::default() };
        let pool = Pool::builder(connector).config(config).runtime(Runtime::Tokio1).build();
        let pool = pool.map_err(|_| Error::ConnectTimeout(settings.timeout))?;
        let shared = Shared {
            topology: settings.topology.clone(),
            namespace: settings.namespace.clone(),
            timeout: settings.timeout,
            settings: settings.clone(),
        };
        Ok(Self { pool, shared: Arc::new(shared) })
    }

    /// The same with connections of its own: for another event loop.
    #[must_use]
    pub fn again(&self) -> Self {
        // The settings were good once; shared connections are slower, not wrong.
        Self::open(&self.shared.settings).unwrap_or_else(|_| self.clone())
    }

    /// Whether keys are on several nodes, so that commands about different ones cannot be sent as one.
    pub fn is_cluster(&self) -> bool {
        matches!(self.shared.topology, Topology::Cluster { .. })
    }

    /// A connection of its own, on which an answer may take `patience`: for commands that wait. It is not made anew when it
    /// ends.
    ///
    /// # Errors
    ///
    /// When there is no connection in time.
    pub async fn alone(&self, patience: Duration) -> Result<Connection, Error> {
        self.within(self.pool.manager().connect(patience)).await
    }

    /// What the names of all keys begin with.
    pub fn namespace(&self) -> &str {
        &self.shared.namespace
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        self.shared.topology.to_string()
    }

    /// Has `ask` use a connection. A command may take the configured timeout; a connection that has to be made first may
    /// take ten times as long. After an error or a timeout the connection is closed.
    ///
    /// # Errors
    ///
    /// When there is no connection, the server answers with an error, or the time is up.
    pub async fn query<T>(&self, ask: impl AsyncFnOnce(&mut Connection) -> RedisResult<T>) -> Result<T, Error> {
        let patience = self.pool.manager().patience();
        let mut connection = self.pool.get().await.map_err(|error| Error::from_pool(error, patience))?;
        let answer = timeout(self.shared.timeout, ask(&mut connection)).await;
        let error = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if error.is_timeout() => Error::Timeout(self.shared.timeout),
            Ok(Err(error)) => Error::Command(error),
            Err(_) => Error::Timeout(self.shared.timeout),
        };
        // A late answer must not meet the next command, and a server that has become a replica must not keep it.
        drop(Object::take(connection));
        Err(error)
    }

    /// Listens to `channels` on a connection of its own.
    ///
    /// # Errors
    ///
    /// When there is no connection in time.
    pub async fn subscribe(&self, channels: &[String]) -> Result<Subscription, Error> {
        let connector = self.pool.manager();
        let subscribe = async {
            let mut listener = connector.one_server().await?.get_async_pubsub().await?;
            listener.subscribe(channels).await?;
            Ok(Subscription::new(listener))
        };
        self.within(subscribe).await
    }

    /// The address of this machine that a connection to Redis has. With several servers, to the first that is known by
    /// name; over a Unix socket, loopback. Nothing is sent.
    ///
    /// # Errors
    ///
    /// When no server's name can be looked up, or there is no way to it.
    pub async fn local_address(&self, wanted: impl Fn(IpAddr) -> bool) -> Result<IpAddr, Error> {
        let patience = self.pool.manager().patience();
        let route = timeout(patience, route::local_address(&self.shared.topology, wanted)).await;
        route.unwrap_or_else(|_| Err(Error::Route(format!("no look-up within {patience:?}"))))
    }

    async fn within<T>(&self, connect: impl Future<Output = RedisResult<T>>) -> Result<T, Error> {
        let patience = self.pool.manager().patience();
        match timeout(patience, connect).await {
            Ok(outcome) => outcome.map_err(Error::Connect),
            Err(_) => Err(Error::ConnectTimeout(patience)),
        }
    }
}
