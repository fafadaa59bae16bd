//! The request as it is passed on: for the whole response, whatever part the client wants, with the validators of what
//! is stored.

use troupe_cache::entry::Entry;
use troupe_wire::head::{RequestHead, RequestHeadBuilder, RequestParts};

/// Fields that ask for less than the whole response. The store answers them, from the whole.
const PARTIAL: [&str; 4] = ["range", "if-range", "if-none-match", "if-modified-since"];

/// The head to pass on for `target`. With `stored`, it asks whether that is still good (RFC 9111 §4.3.1).
pub(super) fn head(client: &RequestHead, target: &str, stored: Option<&Entry>) -> RequestHead {
    let partial = client.fields().any(|(name, _)| PARTIAL.contains(&name));
    if stored.is_none() && !partial && target == client.target() {
        return client.clone();
    }
    rebuilt(client, target, stored).unwrap_or_else(|| client.clone())
}

fn rebuilt(client: &RequestHead, target: &str, stored: Option<&Entry>) -> Option<RequestHead> {
    let mut builder = RequestHeadBuilder::default();
    for (name, value) in client.fields().filter(|(name, _)| !PARTIAL.contains(name)) {
        builder.field(name, value).ok()?;
    }
    if let Some(stored) = stored {
        if stored.tag().is_some() {
            builder.field("if-none-match", stored.head().field("etag")?).ok()?;
        }
        if let Some((value, _)) = stored.last_modified() {
            builder.field("if-modified-since", value).ok()?;
        }
    }
    let parts = RequestParts {
        version: client.version(),
        scheme: client.scheme(),
        method: client.method(),
        target,
        authority: client.authority(),
        remote_addr: client.remote_addr(),
        remote_port: client.remote_port(),
        local_addr: client.local_addr(),
        local_port: client.local_port(),
    };
    builder.finish(&parts).ok()
}

/// Whether a stored response can be validated: it has a validator, and is what a 304 stands for.
pub(super) fn can_validate(stored: &Entry) -> bool {
    stored.status() == 200 && (stored.tag().is_some() || stored.last_modified().is_some())
}
