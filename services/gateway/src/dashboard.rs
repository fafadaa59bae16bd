//! The dashboard of the metrics service, passed on.

use tokio::sync::watch;
use troupe_contracts::invoke::Invoke;
use troupe_mesh::body::{self, Body};
use troupe_mesh::contract::Envelope;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::{CallFuture, Port};

/// Asks for a page of it. Its stream, which has no end of its own, ends when this gateway drains: the drain would wait for
/// it.
pub(crate) fn ask(
    port: Option<&Port<Invoke>>,
    envelope: Envelope<Invoke>,
    mut drain: watch::Receiver<bool>,
) -> CallFuture<Invoke> {
    let Some(port) = port else {
        let why = "this gateway knows no metrics service: see mesh.peers.metrics";
        return Box::pin(std::future::ready(Err(Failure::new(Outcome::Unreachable, Stage::Metrics, why))));
    };
    let call = port.call(envelope);
    Box::pin(async move {
        let mut reply = call.await?;
        if matches!(reply.body, Body::Stream(_)) {
            let mut events = std::mem::take(&mut reply.body);
            let (mut writer, reader) = body::channel(None);
            actix_rt::spawn(async move {
                loop {
                    tokio::select! {
                        piece = events.next() => match piece {
                            Some(Ok(piece)) => {
                                if writer.write(piece).await.is_err() {
                                    return;
                                }
                            }
                            Some(Err(_)) => return,
                            None => return writer.finish(),
                        },
                        () = writer.closed() => return,
                        _ = drain.wait_for(|draining| *draining) => return writer.finish(),
                    }
                }
            });
            reply.body = Body::Stream(reader);
        }
        Ok(reply)
    })
}
