//! Who looks names up: the system, on threads that nobody waits for.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::thread;

use tokio::sync::oneshot;

/// The addresses of a name, or why there are none.
pub(super) type Answer = io::Result<Vec<SocketAddr>>;

/// What a look-up comes to.
pub type Resolved = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Looks names up. Tests bring their own.
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// Every address of `host`, with `port`.
    fn resolve(&self, host: &str, port: u16) -> Resolved;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Resolved {
        let host = host.to_owned();
        Box::pin(on_a_thread(move || Ok((host, port).to_socket_addrs()?.collect())))
    }
}

/// Has a thread of its own do what blocks and cannot be interrupted: a process that stops leaves it behind. The end of a
/// runtime waits for those of tokio's threads for blocking calls, and a resolver may keep them for half a minute.
async fn on_a_thread(look_up: impl FnOnce() -> Answer + Send + 'static) -> Answer {
    let (tell, told) = oneshot::channel();
    thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        // Whoever asked may have left.
        let _ = tell.send(look_up());
    })?;
    told.await.unwrap_or_else(|_| Err(io::Error::other("the thread that looked the name up has died")))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let found = SystemResolver.resolve("localhost", 7401).await.expect("a name that every system knows");
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback() && address.port() == 7401));
    }

    #[test]
    fn the_end_of_a_runtime_does_not_wait_for_a_look_up() {
        let (begin, begun) = mpsc::channel();
        let (answer, answered) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                tokio::spawn(on_a_thread(move || {
                    begin.send(()).unwrap();
                    answered.recv().map_err(io::Error::other)
                }));
                tokio::task::yield_now().await;
            });
            begun.recv().unwrap();
            drop(runtime);
            end.send(()).unwrap();
        });
        let ended = ended.recv_timeout(Duration::from_secs(10));
        // Only now: the resolver has not answered before.
        drop(answer.send(Vec::new()));
        assert_eq!(ended, Ok(()), "the runtime waits for its blocking threads");
    }
}
