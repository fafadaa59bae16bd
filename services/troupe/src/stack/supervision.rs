//! An actor that is given up makes the process unready: what it looked after stands still until somebody restarts it.

use troupe_mesh::supervise;
use troupe_node::admin::{Condition, Readiness};

/// Marks the process unready as soon as one of its actors, on whichever thread, is given up, and says which. There is no way back:
/// the process goes on with what it has until it is restarted.
pub(crate) fn watch(readiness: &Readiness) {
    let readiness = readiness.clone();
    let mut given_up = supervise::given_up();
    actix_rt::spawn(async move {
        let mut told: Vec<Condition> = Vec::new();
        loop {
            let reasons: Vec<String> = given_up
                .borrow_and_update()
                .iter()
                .skip(told.len())
                .map(|actor| format!("{actor}; restart this process"))
                .collect();
            told.extend(reasons.iter().map(|reason| readiness.condition("actors", reason)));
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
        let report = actix_rt::System::new().block_on(async {
            watch(&readiness);
            tokio::task::yield_now().await;
            assert!(readiness.is_ready());
            let thread = std::thread::spawn(|| {
                actix_rt::System::new().block_on(async {
                    let spec = Spec { subject: "one".to_owned(), ..Spec::new("faulty") };
                    supervise::start(spec, || Faulty).ended().await
                })
            });
            let end = std::time::Instant::now() + Duration::from_secs(60);
            while readiness.is_ready() {
                assert!(std::time::Instant::now() < end, "ready all the same");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(thread.join().unwrap(), supervise::State::Escalated);
            readiness.report()
        });
        let reasons: Vec<_> = report.conditions.iter().filter_map(|condition| condition.reason.as_deref()).collect();
        let expected = "the actor faulty of one failed too often and is given up; restart this process";
        assert!(reasons.contains(&expected), "{reasons:?}");
    }
}
