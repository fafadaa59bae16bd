//! The configuration read anew: whole and verified, or not at all.

use std::sync::Arc;

use metrics::{Counter, Gauge, counter, gauge};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use troupe_gateway::Tuner;
use troupe_node::admin::{Answer, Api};
use troupe_node::config::{Problems, Sources};
use troupe_node::telemetry::{Level, LogLevel};

use super::Face;
use super::taking::Takers;
use crate::config::{self, Change, Config};
use crate::services::Services;

/// The matter of which notices speak.
const MATTER: &str = "configuration";
/// Reloads that may wait for the one under way; who asks for more waits to ask.
const WAITING: usize = 16;

/// Where the configuration comes from, and what takes it.
#[derive(Clone)]
pub(crate) struct Reconfigure {
    /// Where it was read from at the start, and is again.
    pub(crate) sources: Arc<Sources>,
    /// What runs here.
    pub(crate) services: Services,
    /// The level of the log.
    pub(crate) level: LogLevel,
}

struct Meters {
    ok: Gauge,
    taken: Counter,
    refused: Counter,
}

/// Who asked for a reload, waiting for what came of it.
type Asked = oneshot::Sender<Answer>;

pub(super) fn register(api: &Api, face: &Face, tuner: Option<Tuner>, reconfigure: &Reconfigure) {
    let outcome = |outcome| counter!("troupe_node_config_reloads_total", "outcome" => outcome);
    let meters =
        Meters { ok: gauge!("troupe_node_config_reload_ok"), taken: outcome("taken"), refused: outcome("refused") };
    meters.ok.set(1.0);
    let (ask, asked) = mpsc::channel(WAITING);
    actix_rt::spawn(one_after_another(face.clone(), tuner, reconfigure.clone(), meters, asked));
    api.post("config/reload", move |_| {
        let ask = ask.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            ask.send(reply).await.map_err(|_| super::stopping())?;
            answer.await.map_err(|_| super::stopping())?
        }
    });
}

/// Works off what was asked for. A reload that has begun is carried through, whether or not anybody waits for it still.
async fn one_after_another(
    face: Face,
    tuner: Option<Tuner>,
    reconfigure: Reconfigure,
    meters: Meters,
    mut asked: mpsc::Receiver<Asked>,
) {
    while let Some(reply) = asked.recv().await {
        let _ = reply.send(reload(&face, tuner.as_ref(), &reconfigure, &meters).await);
    }
}

/// Reads it, and takes of it what can be taken. Everything is looked at before anything is changed.
async fn reload(face: &Face, tuner: Option<&Tuner>, reconfigure: &Reconfigure, meters: &Meters) -> Answer {
    let now = face.config.load_full();
    let refused = |problems: Value, more: usize, report: String| {
        meters.ok.set(0.0);
        meters.refused.increment(1);
        let first = problems.pointer("/0/message").and_then(Value::as_str).map(|first| format!(": {first}"));
        let count = problems.as_array().map_or(0, Vec::len) + more;
        let others = if count > 1 { format!(" (1 of {count} problems)") } else { String::new() };
        let first = first.unwrap_or_default();
        let text = format!("the new configuration is broken, the old one goes on serving{first}{others}");
        tracing::error!(problems = count, "{text}");
        face.notices.raise(MATTER, true, text);
        Ok(json!({ "ok": false, "problems": problems, "more": more, "report": report }))
    };
    let (change, file) = match prepare(&now, reconfigure) {
        Ok(prepared) => prepared,
        Err(problems) => return refused(json!(problems.records()), problems.left_out(), problems.render(false)),
    };
    let level = match Level::read(&change.effective.log.level) {
        Ok(level) => level,
        Err(error) => return refused(json!([{ "message": error.to_string() }]), 0, error.to_string()),
    };
    if let Err(why) = Takers::of(face, tuner).take(&now, &change.effective).await {
        return refused(json!([{ "message": why }]), 0, why);
    }
    if change.taken.iter().any(|key| key == "log.level") {
        reconfigure.level.set(level);
    }
    face.wants_php.send_replace(!change.effective.php.is_empty());
    face.config.store(Arc::new(change.effective));
    meters.ok.set(1.0);
    meters.taken.increment(1);
    face.notices.settle(MATTER);
    tell_waiting(face, &change.waiting);
    tracing::info!(taken = ?change.taken, needs_restart = ?change.waiting, "the configuration was read anew");
    Ok(json!({ "ok": true, "file": file, "taken": change.taken, "needs_restart": change.waiting }))
}

fn prepare(now: &Config, reconfigure: &Reconfigure) -> Result<(Change, Option<String>), Problems> {
    let loaded = config::load(&reconfigure.sources).and_then(|loaded| config::ready(loaded, reconfigure.services))?;
    let file = loaded.file.as_ref().map(|path| path.display().to_string());
    match Change::new(now, &loaded.config) {
        Ok(change) => Ok((change, file)),
        Err(problems) => {
            let help = "what it needs beside it takes a restart of the process";
            let problems = problems.into_iter().map(|problem| problem.help(help)).collect();
            match loaded.accept(problems) {
                Err(problems) => Err(problems),
                // There was at least one.
                Ok(loaded) => Ok((
                    Change { effective: now.clone(), taken: Vec::new(), waiting: Vec::new() },
                    loaded.file.map(|path| path.display().to_string()),
                )),
            }
        }
    }
}

/// What waits for a restart is worth a word until it comes.
fn tell_waiting(face: &Face, waiting: &[String]) {
    const WAITING: &str = "configuration that waits";
    if waiting.is_empty() {
        return face.notices.settle(WAITING);
    }
    let text = format!("the configuration has changed in what takes a restart: {}", waiting.join(", "));
    face.notices.raise(WAITING, false, text);
}

/// Reads the configuration anew and loads the code anew, as far as they are here; what came of it is logged.
pub(crate) async fn on_signal(api: &Api) {
    let none = std::collections::BTreeMap::new();
    match api.change("config/reload", none.clone(), "SIGHUP").await {
        Ok(answer) if answer.get("ok") == Some(&Value::Bool(true)) => {}
        // Both have said what is wrong.
        Ok(_) | Err(_) => return,
    }
    if let Err(refusal) = api.change("reload", none, "SIGHUP").await
        && refusal.status != 404
    {
        tracing::error!(reason = refusal.detail, "the code was not loaded anew");
    }
}
