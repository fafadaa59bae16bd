//! The request as it is passed on: for the whole response, whatever part the client wants, with the validators of what
//! is stored; or as the client put it, where its answer is for nobody else.

use troupe_cache::entry::Entry;
use troupe_wire::head::{RequestHead, RequestHeadBuilder, RequestParts};

/// Fields that ask for less than the whole response. The store answers them, from the whole.
const RANGES: [&str; 2] = ["range", "if-range"];
const CONDITIONS: [&str; 2] = ["if-none-match", "if-modified-since"];

/// What becomes of the client's own conditions and ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// The answer is to be stored or shared: it has to be the whole.
    Dropped,
    /// The answer is for this client alone. Without `range` it wants the whole of it all the same.
    Kept { range: bool },
}

impl Own {
    fn drops(self, name: &str) -> bool {
        match self {
            Self::Dropped => RANGES.contains(&name) || CONDITIONS.contains(&name),
            Self::Kept { range } => !range && RANGES.contains(&name),
        }
    }
}

/// The head to pass on for `target`. With `stored`, it asks whether that is still good (RFC 9111 §4.3.1). `narrowed`: it may have
/// fields that own drops.
pub(super) fn head(
    client: &RequestHead,
    target: &str,
    stored: Option<&Entry>,
    (own, narrowed): (Own, bool),
) -> RequestHead {
    let drops = narrowed && client.fields().any(|(name, _)| own.drops(name));
    if stored.is_none() && !drops && target == client.target() {
        return client.clone();
    }
    rebuilt(client, target, stored, own).unwrap_or_else(|| client.clone())
}

fn rebuilt(client: &RequestHead, target: &str, stored: Option<&Entry>, own: Own) -> Option<RequestHead> {
    let mut builder = RequestHeadBuilder::default();
    for (name, value) in client.fields().filter(|(name, _)| !own.drops(name)) {
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
