//! `troupe health`: is a running Troupe ready? Small enough for a container's health check each second.

use serde_json::json;

use super::client::{Admin, PATIENCE};
use crate::cli::AskArgs;
use crate::failure::{Code, CommandError};
use crate::output;

/// Of an answer only the beginning is shown; it names what is not ready.
const SHOWN: usize = 16 << 10;

pub(super) fn run(args: AskArgs) -> Result<(), CommandError> {
    let as_json = args.json;
    let admin = Admin::of(args)?;
    let answer = admin.ask("GET", "/readyz", PATIENCE)?;
    let ready = answer.status == 200;
    let body = answer.body.get(..SHOWN).unwrap_or(&answer.body);
    if as_json {
        let (status, authority) = (answer.status, admin.authority());
        output::json(&json!({ "ready": ready, "status": status, "admin": authority, "answer": body }))?;
    }
    match (ready, as_json) {
        (true, true) => Ok(()),
        (true, false) => output::data("ready\n"),
        (false, _) => {
            let said = body.trim();
            let colon = if said.is_empty() { "" } else { ": " };
            Err(CommandError::new(Code::Unavailable, format!("not ready (status {}){colon}{said}", answer.status)))
        }
    }
}
