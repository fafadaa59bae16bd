//! `troupe drain`, `undrain`, `restart` and `reload`: what operators have a running Troupe do.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Admin, LONG_PATIENCE, PATIENCE, encoded};
use super::table::{list, number, text};
use crate::cli::{DrainArgs, ReloadArgs, WorkerArgs};
use crate::failure::{Code, CommandError};
use crate::output;

/// How often a drain looks whether the last call is done.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Lets no new call to a worker and waits for those that it has.
pub(super) fn drain(args: DrainArgs) -> Result<(), CommandError> {
    let as_json = args.ask.json;
    let admin = Admin::of(args.ask)?;
    let force = if args.force { "&force=true" } else { "" };
    let path = format!("/api/workers/drain?worker={}{force}", encoded(&args.worker));
    let mut done = admin.post(&path, PATIENCE)?;
    let name = text(&done, "worker").to_owned();
    let until = Instant::now() + args.wait.get();
    let busy = loop {
        match in_flight(&admin, &name)? {
            Some(busy) if busy > 0 && Instant::now() < until => super::pause(LOOK_EVERY),
            busy => break busy.unwrap_or(0),
        }
    };
    if let Some(done) = done.as_object_mut() {
        done.insert("in_flight".to_owned(), busy.into());
    }
    if as_json {
        output::json(&done)?;
    } else if busy == 0 {
        output::data(&format!("{name} is drained: it has no call, and gets none until `troupe undrain {name}`\n"))?;
    }
    match busy {
        0 => Ok(()),
        _ => Err(CommandError::new(
            Code::TryAgain,
            format!("{name} takes no new calls, but {busy} calls are still with it; `troupe workers` shows them end"),
        )),
    }
}

/// Calls with a worker; `None` where nobody there can tell.
fn in_flight(admin: &Admin, name: &str) -> Result<Option<u64>, CommandError> {
    let workers = match admin.get("/api/workers") {
        Ok(workers) => workers,
        // A php-pool apart has no balancer to ask.
        Err(error) if error.code == Code::Failed => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut all = list(&workers, "pools").iter().flat_map(|pool| list(pool, "workers"));
    Ok(all.find(|worker| text(worker, "name") == name).map(|worker| number(worker, "in_flight") as u64))
}

/// Lets calls to a worker again.
pub(super) fn undrain(args: WorkerArgs) -> Result<(), CommandError> {
    let as_json = args.ask.json;
    let done =
        Admin::of(args.ask)?.post(&format!("/api/workers/undrain?worker={}", encoded(&args.worker)), PATIENCE)?;
    if as_json { output::json(&done) } else { output::data(&format!("{} takes calls again\n", text(&done, "worker"))) }
}

/// Replaces a worker's PHP processes, one after another.
pub(super) fn restart(args: WorkerArgs) -> Result<(), CommandError> {
    let as_json = args.ask.json;
    let path = format!("/api/workers/restart?worker={}", encoded(&args.worker));
    let done = Admin::of(args.ask)?.post(&path, LONG_PATIENCE)?;
    if as_json {
        return output::json(&done);
    }
    output::data(&format!("{}: {} processes replaced\n", text(&done, "worker"), number(&done, "replaced")))
}

/// Loads the code of PHP pools anew.
pub(super) fn reload(args: ReloadArgs) -> Result<(), CommandError> {
    let as_json = args.ask.json;
    let pool = args.pool.map(|pool| format!("?pool={}", encoded(&pool))).unwrap_or_default();
    let done = Admin::of(args.ask)?.post(&format!("/api/reload{pool}"), LONG_PATIENCE)?;
    if as_json {
        output::json(&done)?;
    }
    let mut failed = String::new();
    for worker in list(&done, "workers") {
        let name = text(worker, "worker");
        if worker.get("done") == Some(&Value::Bool(true)) {
            let (functions, replaced) = (number(worker, "functions"), number(worker, "replaced"));
            if !as_json {
                output::data(&format!("{name}: new code, {functions} functions, {replaced} processes replaced\n"))?;
            }
        } else {
            failed.push_str(&format!("{name}: {}\n", text(worker, "reason")));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(CommandError::failed(failed)) }
}
