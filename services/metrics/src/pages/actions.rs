//! What operators have done with workers: the dashboard's buttons.

use std::collections::BTreeMap;
use std::time::Duration;

use actix_web::web::Query;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout;
use troupe_contracts::snapshot::{Act, Outcome};

use super::{Shown, Whole};
use crate::cluster::Refused;
use crate::collector::Give;

/// How long an answer waits for what came of the order. A restart of many processes may take longer, and goes on.
const WAIT: Duration = Duration::from_secs(20);
/// The longest name of a balancer or worker.
const LONGEST: usize = 256;

/// `POST /dashboard/workers/ACT?balancer=&worker=`; `below` is what stands behind `/dashboard`.
pub(super) async fn carry_out(shown: &Shown, below: &str, query: &str) -> Whole {
    let named = below.strip_prefix("/workers/").and_then(|name| Act::ALL.into_iter().find(|act| act.as_str() == name));
    let Some(act) = named else { return Whole::problem(404, "there is no such action") };
    let Ok(query) = Query::<BTreeMap<String, String>>::from_query(query) else {
        return Whole::problem(400, "the query is malformed");
    };
    let part = |name| query.get(name).filter(|text| !text.is_empty() && text.len() <= LONGEST).cloned();
    let (Some(balancer), Some(worker)) = (part("balancer"), part("worker")) else {
        return Whole::problem(400, "`balancer` and `worker` are needed, as the table names them");
    };
    let (reply, outcome) = oneshot::channel();
    let told = worker.clone();
    match shown.collector.send(Give { act, balancer, worker, reply }).await {
        Ok(Ok(())) => {}
        Ok(Err(Refused::Unknown(why))) => return Whole::problem(404, &why),
        Ok(Err(Refused::Away(why))) => return Whole::problem(503, &why),
        Err(error) => return Whole::away(&error),
    }
    match timeout(WAIT, outcome).await {
        Ok(Ok(Outcome { done: true, said, .. })) => said_so(200, &told, &said),
        Ok(Ok(Outcome { said, .. })) => Whole::problem(409, &said),
        Ok(Err(_)) => Whole::problem(503, "the metrics service was restarted; look whether it was done"),
        Err(_) => said_so(202, &told, "under way; it goes on, and the table shows it"),
    }
}

fn said_so(status: u16, worker: &str, said: &str) -> Whole {
    Whole::new(status, "application/json", json!({ "worker": worker, "said": said }).to_string())
}
