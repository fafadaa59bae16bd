//! Asks one instance for its load, again and again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use troupe_contracts::report::{InstanceReport, Report};
use troupe_mesh::contract::{Contract, Envelope};
use troupe_mesh::deadline::Deadline;
use troupe_mesh::port::Port;
use troupe_mesh::supervise::{Handle, Mark, SendError};

use super::roster::Roster;
use super::{Reported, Supervisor};
use crate::instances::InstanceId;
use crate::tuning::Tuning;

/// An instance that has never answered is asked again after this long at first, then twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// Reports are never asked for more often than this, however much the data path would like to know.
const LEAST_BETWEEN: Duration = Duration::from_millis(20);
/// An answer that takes longer than this share of the interval does not come: with it, a frozen instance is out within
/// two intervals.
const PATIENCE_PERCENT: u32 = 80;

/// The task; it ends with this.
pub(super) struct Reporter {
    task: JoinHandle<()>,
    hurry: Arc<Notify>,
}

impl Reporter {
    /// Asks again as soon as may be.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn start(
    instance: InstanceId,
    port: Port<Report>,
    supervisor: Handle<Supervisor>,
    roster: &Roster,
) -> Reporter {
    let hurry = Arc::new(Notify::new());
    let tuning = roster.tuning();
    let task = actix_rt::spawn(ask(instance, port, supervisor, tuning, Arc::clone(&hurry)));
    Reporter { task, hurry }
}

/// Tells the supervisor what came. An instance whose answers it has panicked over twice counts as one that does not answer: so
/// the balancer loses that one, and not its supervisor.
async fn tell(
    supervisor: &Handle<Supervisor>,
    instance: &InstanceId,
    report: Option<InstanceReport>,
) -> Result<Duration, SendError> {
    let reported = |report| Reported { instance: instance.clone(), report };
    if report.is_some() {
        let mark = Mark::of(Report::ID, instance);
        match supervisor.send_marked(mark, reported(report)).await {
            Err(SendError::Poison) => tracing::debug!(%instance, "its report is refused"),
            told => return told,
        }
    }
    supervisor.send(reported(None)).await
}

async fn ask(
    instance: InstanceId,
    port: Port<Report>,
    supervisor: Handle<Supervisor>,
    tuning: Arc<Tuning>,
    hurry: Arc<Notify>,
) {
    let mut first_retry = FIRST_RETRY;
    let mut answered = false;
    loop {
        let interval = tuning.report_interval();
        let patience = interval * PATIENCE_PERCENT / 100;
        let call = port.call(Envelope::new(Report, Deadline::after(patience)));
        let report = match tokio::time::timeout(patience, call).await {
            Ok(Ok(report)) => Some(report),
            Ok(Err(failure)) => {
                tracing::debug!(%instance, %failure, "report failed");
                None
            }
            Err(_) => {
                tracing::debug!(%instance, ?patience, "report did not come in time");
                None
            }
        };
        answered |= report.is_some();
        let next = tell(&supervisor, &instance, report).await.unwrap_or(interval);
        let pause = if answered {
            next
        } else {
            first_retry = (first_retry * 2).min(interval);
            first_retry.min(next)
        };
        tokio::time::sleep(LEAST_BETWEEN).await;
        // Whoever waits out the rest may be hurried.
        let _ = tokio::time::timeout(pause.saturating_sub(LEAST_BETWEEN), hurry.notified()).await;
    }
}
