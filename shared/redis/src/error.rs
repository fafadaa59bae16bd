//! Why a command has no answer.

use std::time::Duration;

use deadpool::managed::PoolError;
use redis::RedisError;

/// Why a command has no answer. None of these says whether it was carried out, except that without a connection it was not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error("cannot connect: {0}")]
    Connect(RedisError),
    /// It took too long to get a connection, or every connection was in use for too long.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The server did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server answered with an error, or the connection broke.
    #[error("{0}")]
    Command(RedisError),
    /// The address of this machine cannot be told.
    #[error("cannot tell the address by which this machine reaches redis: {0}")]
    Route(String),
}

impl Error {
    pub(crate) fn from_pool(error: PoolError<RedisError>, patience: Duration) -> Self {
        match error {
            PoolError::Backend(error) => Self::Connect(error),
            // The others are mistakes in the pool's construction, which has a runtime, no hooks, and is never closed.
            _ => Self::ConnectTimeout(patience),
        }
    }
}
