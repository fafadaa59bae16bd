//! `troupe drain`, `undrain`, `restart` and `reload`: what operators have a running Troupe do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::answer::{list, number, text};
use super::client::{Admin, LONG_PATIENCE, PATIENCE, encoded};
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

/// Reads the configuration anew, and loads the code of PHP pools anew; with a pool, its code alone.
pub(super) fn reload(args: ReloadArgs) -> Result<(), CommandError> {
    let as_json = args.ask.json;
    let admin = Admin::of(args.ask)?;
    let mut told = json!({ "ok": true, "workers": [] });
    let mut configuration = None;
    if args.pool.is_none() {
        let taken = admin.post("/api/config/reload", LONG_PATIENCE)?;
        if taken.get("ok") != Some(&Value::Bool(true)) {
            let message = if as_json { "" } else { text(&taken, "report") };
            if as_json {
                output::json(&json!({ "ok": false, "configuration": taken }))?;
            }
            return Err(CommandError::new(Code::Configuration, message));
        }
        if !as_json {
            output::data(&what_was_taken(&taken))?;
        }
        configuration = Some(taken);
    }
    let pool = args.pool.as_ref().map(|pool| format!("?pool={}", encoded(pool))).unwrap_or_default();
    let path = format!("/api/reload{pool}");
    match admin.post(&path, LONG_PATIENCE) {
        Ok(loaded) => told = loaded,
        // A gateway apart has no code to load; nobody has asked for that alone.
        Err(error) if error.code == Code::Failed && args.pool.is_none() => output::say(&format!("{error}\n")),
        Err(error) => return Err(error),
    }
    if as_json {
        if let (Some(told), Some(configuration)) = (told.as_object_mut(), configuration) {
            told.insert("configuration".to_owned(), configuration);
        }
        output::json(&told)?;
    }
    let mut failed = String::new();
    for worker in list(&told, "workers") {
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

/// What of a new configuration serves now, and what does not.
fn what_was_taken(taken: &Value) -> String {
    let keys = |part| list(taken, part).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let mut said = match keys("taken") {
        none if none.is_empty() => {
            "configuration: nothing has changed that can be taken without a restart\n".to_owned()
        }
        keys => format!("configuration: taken {keys}\n"),
    };
    let waiting = keys("needs_restart");
    if !waiting.is_empty() {
        said.push_str(&format!("configuration: restart the process for {waiting}\n"));
    }
    said
}
