//! The way to a balancer that can say whom a call would go to: in this process, or over a link.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use troupe_balancer::Surveyor;
use troupe_contracts::survey::{Survey, Surveyed};
use troupe_mesh::contract::Envelope;
use troupe_mesh::deadline::Deadline;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_mesh::port::Port;

/// How long the answer may take, the link to a balancer that is not linked yet included. Less than those wait who ask
/// (`commands::client::PATIENCE`): they are to hear of the rest without a balancer, too.
const LONGEST: Duration = Duration::from_secs(1);

/// A question on its way to the thread that has the links.
pub(in crate::stack) struct Asked {
    survey: Survey,
    reply: oneshot::Sender<Result<Surveyed, Failure>>,
}

/// Who is asked.
#[derive(Clone)]
pub(in crate::stack) enum Surveys {
    Here(Surveyor),
    There(mpsc::Sender<Asked>),
}

/// Passes questions on to a balancer, until nobody can ask any more. The links are made when the first one is asked: most
/// processes never are.
pub(in crate::stack) async fn pass_on(mut asked: mpsc::Receiver<Asked>, links: impl Fn() -> Port<Survey>) {
    let mut port = None;
    while let Some(Asked { survey, reply }) = asked.recv().await {
        let port = port.get_or_insert_with(&links).clone();
        actix_rt::spawn(async move {
            // Who asked may be gone.
            let _ = reply.send(port.call(Envelope::new(survey, Deadline::after(LONGEST))).await);
        });
    }
}

impl Surveys {
    /// Whom the next call of `pool` would go to.
    pub(super) async fn ask(&self, pool: &str) -> Result<Surveyed, Failure> {
        match self {
            Self::Here(surveyor) => surveyor.survey(pool),
            Self::There(asked) => {
                let stopping = || Failure::new(Outcome::Unreachable, Stage::Gateway, "the process is about to stop");
                let (reply, answer) = oneshot::channel();
                let survey = Survey { pool: pool.to_owned() };
                asked.send(Asked { survey, reply }).await.map_err(|_| stopping())?;
                answer.await.map_err(|_| stopping())?
            }
        }
    }
}
