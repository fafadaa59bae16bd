//! The admin listener: `/livez`, `/readyz`, `/metrics`, the commands' interface below `/api/`, and what services add to it.
//!
//! It runs on threads of its own, so it answers while the data threads are busy or stuck; that is what `/livez` is for.
//! It belongs on a private address. Beyond loopback it needs a token, which everything but the two probes asks for.

mod access;
mod api;
mod pages;
mod readiness;
mod serve;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use actix_server::ServerHandle;
use actix_web::{App, web};

pub use access::{Access, Caller, Denied, GUARD_HEADER};
pub use api::{Answer, Api, Ask, Identity, Refusal};
pub use pages::problem;
pub use readiness::{Condition, Readiness, Report};

use crate::config::AdminConfig;
use crate::metrics::Metrics;
use crate::threads::Watchdog;

/// A data thread that does not answer for this long is a problem worth telling, long before `/livez` fails.
const STALLED_FOR_PEOPLE: Duration = Duration::from_secs(1);

/// A token file holds one secret; anything longer is some other file.
const MAX_TOKEN_BYTES: u64 = 4096;

/// How the admin listener is set up.
#[derive(Debug, Clone)]
pub struct AdminOptions {
    /// Where it listens (`admin.listen`); port 0 lets the kernel choose.
    pub listen: SocketAddr,
    /// A file with the bearer token that `/metrics` and the commands ask for (`admin.token_file`).
    pub token_file: Option<PathBuf>,
    /// A data thread that does not answer for this long makes `/livez` fail. Restarting is a remedy for a hang, not for a
    /// busy second.
    pub live_within: Duration,
}

impl AdminOptions {
    /// The default: no token, ten seconds.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, token_file: None, live_within: Duration::from_secs(10) }
    }
}

impl From<&AdminConfig> for AdminOptions {
    fn from(config: &AdminConfig) -> Self {
        let token_file = &config.token_file;
        Self {
            token_file: (!token_file.as_os_str().is_empty()).then(|| token_file.clone()),
            ..Self::new(config.listen)
        }
    }
}

/// What the admin pages show.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// Whether traffic should be sent here.
    pub readiness: Readiness,
    /// Whether the data threads answer.
    pub watchdog: Watchdog,
    /// What `/metrics` renders.
    pub metrics: Metrics,
    /// What `/api/` answers.
    pub api: Api,
}

/// Why the admin listener does not stand.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be bound.
    #[error("cannot listen for admin requests on {address}: {source}{}", self.advice())]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The token file cannot be used.
    #[error("cannot use the admin token file {}: {reason}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The listener's thread or event loop cannot be started.
    #[error("cannot start the admin listener: {0}")]
    Start(io::Error),
}

impl AdminError {
    /// Whether another process holds the port: trying again later may help (exit code 75).
    pub fn port_busy(&self) -> bool {
        matches!(self, Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }

    fn advice(&self) -> &'static str {
        if self.port_busy() { "; another process listens there: stop it, or set admin.listen" } else { "" }
    }
}

/// The running admin listener. Dropping it stops it.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    access: Access,
    handle: ServerHandle,
    join: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Binds and serves. `extend` adds a service's own pages; it runs once, on the listener's worker thread.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound ([`AdminError::port_busy`] tells the usual case), the token file cannot be read or
    /// is empty, or the kernel refuses the thread.
    pub fn start(
        options: &AdminOptions,
        state: AdminState,
        extend: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
    ) -> Result<Self, AdminError> {
        let token = match &options.token_file {
            Some(path) => Some(read_token(path)?),
            None => None,
        };
        let bind = |source| AdminError::Bind { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;

        let access = Access::new(token);
        let (live_within, own) = (options.live_within, access.clone());
        let (started, handle) = std::sync::mpsc::sync_channel::<io::Result<ServerHandle>>(1);
        let join = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = started.send(Err(error));
                        return;
                    }
                };
                let system = actix_rt::System::with_tokio_rt(|| runtime);
                system.block_on(async move {
                    let server = serve::build(listener, move || {
                        App::new()
                            .app_data(web::Data::new(state.clone()))
                            .app_data(web::Data::new(access.clone()))
                            .configure(|app| pages::configure(app, live_within))
                            .configure(api::configure)
                            .configure(extend.clone())
                            .default_service(web::to(pages::not_found))
                    });
                    match server {
                        Ok(server) => {
                            let _ = started.send(Ok(server.handle()));
                            if let Err(error) = server.await {
                                tracing::error!(%error, "the admin listener ended");
                            }
                        }
                        Err(error) => {
                            let _ = started.send(Err(error));
                        }
                    }
                });
            })
            .map_err(AdminError::Start)?;
        let handle =
            handle.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended"))).map_err(AdminError::Start)?;
        tracing::debug!(%address, "admin listener");
        Ok(Self { address, access: own, handle, join: Some(join) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who may ask it; whoever else shows its pages asks this, so that wrong credentials count together.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Stops it and waits for its threads; requests under way have a second.
    pub fn stop(mut self) {
        self.end();
        if let Some(join) = self.join.take() {
            let _ = join.join();
        }
    }

    fn end(&self) {
        // The command is sent by the call; the future only waits for the effect, which the join does.
        drop(self.handle.stop(true));
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn read_token(path: &Path) -> Result<Arc<str>, AdminError> {
    let token = |reason: String| AdminError::Token { path: path.to_owned(), reason };
    let size = std::fs::metadata(path).map_err(|error| token(error.to_string()))?.len();
    if size > MAX_TOKEN_BYTES {
        return Err(token(format!("it has {size} bytes, a token has {MAX_TOKEN_BYTES} at most")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| token(error.to_string()))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(token("it is empty; write a long random word into it".to_owned()));
    }
    Ok(Arc::from(text))
}

#[cfg(test)]
mod tests;
