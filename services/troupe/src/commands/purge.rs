//! `troupe purge`: takes answers out of the cache of a running gateway.

use super::client::{Admin, PATIENCE, encoded};
use crate::cli::PurgeArgs;
use crate::failure::CommandError;
use crate::output;

pub(super) fn run(args: PurgeArgs) -> Result<(), CommandError> {
    let PurgeArgs { url, prefix, host, group, soft, ask, .. } = args;
    let json = ask.json;
    let named = [("url", url), ("prefix", prefix), ("host", host), ("group", group)];
    let mut query = match named.into_iter().find_map(|(name, value)| Some((name, value?))) {
        Some((name, value)) => format!("{name}={}", encoded(&value)),
        None => "all=true".to_owned(),
    };
    if soft {
        query.push_str("&soft=true");
    }
    let found = Admin::of(ask)?.post(&format!("/api/cache/purge?{query}"), PATIENCE)?;
    if json {
        return output::json(&found);
    }
    let count = |name: &str| found.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let done = if soft { "made stale" } else { "removed" };
    output::data(&format!("{done}: {} URLs, {} answers\n", count("urls"), count("responses")))
}
