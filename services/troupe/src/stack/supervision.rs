//! An actor that is given up makes the process unready: what it looked after stands still until somebody restarts it.

use std::collections::BTreeMap;

use troupe_mesh::supervise::{self, GivenUp};
use troupe_node::admin::{Condition, Readiness};

/// Marks the process unready as soon as one of its actors, on whichever thread, is given up, and says which. The process goes
/// on with what it has until it is restarted, or until another actor has taken the place of that one.
pub(crate) fn watch(readiness: &Readiness) {
    let readiness = readiness.clone();
    let mut given_up = supervise::given_up();
    actix_rt::spawn(async move {
        let mut told: BTreeMap<u64, Condition> = BTreeMap::new();
        loop {
            let now = given_up.borrow_and_update().clone();
            // A condition that is dropped is none any more.
            told.retain(|actor, _| now.iter().any(|lost| lost.actor == *actor));
            for GivenUp { actor, escalation } in now {
                let reason = format!("{escalation}; restart this process");
                told.entry(actor).or_insert_with(|| readiness.condition("actors", &reason));
            }
            if given_up.changed().await.is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix::{Actor, Context};
    use troupe_mesh::supervise::Spec;

    use super::*;

    struct Faulty;

    impl Actor for Faulty {
        type Context = Context<Self>;

        fn started(&mut self, _: &mut Self::Context) {
            panic!("a fault in the actor");
        }
    }

    #[test]
    fn an_actor_that_is_given_up_on_another_thread_is_why_the_process_is_not_ready() {
        let readiness = Readiness::new();
        readiness.started();
        let (report, again) = actix_rt::System::new().block_on(async {
            watch(&readiness);
            tokio::task::yield_now().await;
            assert!(readiness.is_ready());
            let thread = std::thread::spawn(|| {
                actix_rt::System::new().block_on(async {
                    let spec = Spec { subject: "one".to_owned(), ..Spec::new("faulty") };
                    let actor = supervise::start(spec, || Faulty);
                    (actor.ended().await, actor)
                })
            });
            let end = std::time::Instant::now() + Duration::from_secs(60);
            while readiness.is_ready() {
                assert!(std::time::Instant::now() < end, "ready all the same");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let (state, actor) = thread.join().unwrap();
            assert_eq!(state, supervise::State::Escalated);
            let report = readiness.report();
            // Another one does its work.
            actor.replaced();
            while !readiness.is_ready() && std::time::Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (report, readiness.is_ready())
        });
        assert!(again, "not ready although another actor is there instead");
        let reasons: Vec<_> = report.conditions.iter().filter_map(|condition| condition.reason.as_deref()).collect();
        let expected = "the actor faulty of one failed too often and is given up; restart this process";
        assert!(reasons.contains(&expected), "{reasons:?}");
    }
}
