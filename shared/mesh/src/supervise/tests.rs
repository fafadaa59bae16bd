//! Supervision seen from the outside: actors that panic, stop, hang and recover.

use std::cell::{Cell, RefCell};

use actix::{ActorContext, AsyncContext, AtomicResponse, Message, ResponseFuture, WrapFuture};

use super::*;

/// Does what it is told and remembers what it was told in this life.
struct Puppet {
    life: u32,
    seen: Vec<u32>,
}

impl Actor for Puppet {
    type Context = Context<Self>;
}

#[derive(Debug, Clone, Message)]
#[rtype(result = "(u32, Vec<u32>)")]
enum Do {
    Note(u32),
    Panic,
    Stop,
    PanicWhileWaiting,
}

impl Handler<Do> for Puppet {
    type Result = actix::MessageResult<Do>;

    fn handle(&mut self, told: Do, context: &mut Context<Self>) -> Self::Result {
        match told {
            Do::Note(value) => self.seen.push(value),
            Do::Panic => panic!("on purpose"),
            Do::Stop => context.stop(),
            Do::PanicWhileWaiting => context.wait(async { panic!("later, on purpose") }.into_actor(self)),
        }
        actix::MessageResult((self.life, self.seen.clone()))
    }
}

/// Waits with the whole mailbox until the sender fires.
#[derive(Message)]
#[rtype(result = "()")]
struct Block(oneshot::Receiver<()>);

impl Handler<Block> for Puppet {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, block: Block, _: &mut Context<Self>) -> Self::Result {
        let wait = async move {
            let _ = block.0.await;
        };
        AtomicResponse::new(Box::pin(wait.into_actor(self)))
    }
}

/// Replies later, without blocking the inbox.
#[derive(Message)]
#[rtype(result = "&'static str")]
struct Later(oneshot::Receiver<()>);

impl Handler<Later> for Puppet {
    type Result = ResponseFuture<&'static str>;

    fn handle(&mut self, later: Later, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async move {
            let _ = later.0.await;
            "later"
        })
    }
}

fn puppet(spec: Spec) -> Handle<Puppet> {
    let mut life = 0;
    start(spec, move || {
        life += 1;
        Puppet { life, seen: Vec::new() }
    })
}

fn spec() -> Spec {
    Spec { wait: Duration::from_secs(60), ..Spec::new("puppet") }
}

/// Runs on an actix event loop with a clock that jumps to the next timer when nothing else is to be done.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    actix_rt::System::with_tokio_rt(|| runtime).block_on(test);
}

#[test]
fn a_panic_is_answered_and_the_queue_survives_the_restart() {
    run(async {
        let puppet = puppet(spec());
        assert_eq!(puppet.send(Do::Note(1)).await, Ok((1, vec![1])));
        let (doomed, second, third) =
            tokio::join!(puppet.send(Do::Panic), puppet.send(Do::Note(2)), puppet.send(Do::Note(3)));
        assert_eq!(doomed, Err(SendError::Panicked));
        assert_eq!(second, Ok((2, vec![2])));
        assert_eq!(third, Ok((2, vec![2, 3])));
        assert_eq!(puppet.state(), State::Running);
    });
}

#[test]
fn a_message_that_panics_twice_is_refused_and_others_are_not() {
    run(async {
        let puppet = puppet(spec());
        let bad = Mark { contract: 7, hash: 42 };
        for _ in 0..2 {
            assert_eq!(puppet.send_marked(bad, Do::Panic).await, Err(SendError::Panicked));
        }
        assert_eq!(puppet.send_marked(bad, Do::Panic).await, Err(SendError::Poison));
        let good = Mark { contract: 7, hash: 43 };
        assert_eq!(puppet.send_marked(good, Do::Note(1)).await, Ok((3, vec![1])));
    });
}

#[test]
fn a_panic_in_what_a_message_makes_the_actor_wait_for_is_its_fault_too() {
    run(async {
        let puppet = puppet(spec());
        let bad = Mark { contract: 7, hash: 42 };
        for _ in 0..2 {
            // The reply was sent before the wait.
            assert!(puppet.send_marked(bad, Do::PanicWhileWaiting).await.is_ok());
            assert!(puppet.send(Do::Note(1)).await.is_ok());
        }
        assert_eq!(puppet.send_marked(bad, Do::PanicWhileWaiting).await, Err(SendError::Poison));
    });
}

#[test]
fn too_many_panics_escalate_and_answer_those_who_wait() {
    run(async {
        let told = Rc::new(RefCell::new(Vec::new()));
        let tell = told.clone();
        let puppet = puppet(Spec {
            on_escalate: Some(Rc::new(move |escalation: &Escalation| tell.borrow_mut().push(escalation.clone()))),
            subject: "one".to_owned(),
            ..spec()
        });
        for _ in 0..5 {
            assert_eq!(puppet.send(Do::Panic).await, Err(SendError::Panicked));
        }
        assert!(told.borrow().is_empty());
        let (last, waiting) = tokio::join!(puppet.send(Do::Panic), puppet.send(Do::Note(1)));
        assert_eq!((last, waiting), (Err(SendError::Panicked), Err(SendError::Down)));
        assert_eq!(puppet.ended().await, State::Escalated);
        assert_eq!(puppet.send(Do::Note(1)).await, Err(SendError::Down));
        assert_eq!(puppet.try_send(Do::Note(1)), Err(SendError::Down));
        let expected = Escalation { name: "puppet", subject: "one".to_owned(), reason: "panic" };
        assert_eq!(*told.borrow(), std::slice::from_ref(&expected));
        // Other tests of this process may have given up others.
        let told = || given_up().borrow().iter().any(|lost| lost.escalation == expected);
        assert!(told());
        puppet.replaced();
        assert!(!told(), "nothing depends on it any more");
        assert_eq!(expected.to_string(), "the actor puppet of one failed too often and is given up");
    });
}

#[test]
fn panics_far_apart_do_not_escalate() {
    run(async {
        let puppet = puppet(spec());
        for _ in 0..20 {
            assert_eq!(puppet.send(Do::Panic).await, Err(SendError::Panicked));
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        assert_eq!(puppet.send(Do::Note(1)).await, Ok((21, vec![1])));
    });
}

#[test]
fn policies_say_who_comes_back() {
    run(async {
        let with = |policy| puppet(Spec { policy, ..spec() });
        let permanent = with(Policy::Permanent);
        assert!(permanent.send(Do::Stop).await.is_ok());
        assert_eq!(permanent.send(Do::Note(1)).await, Ok((2, vec![1])));

        let transient = with(Policy::Transient);
        assert!(transient.send(Do::Panic).await.is_err());
        assert_eq!(transient.send(Do::Note(1)).await, Ok((2, vec![1])));
        assert!(transient.send(Do::Stop).await.is_ok());
        assert_eq!(transient.ended().await, State::Ended);

        let never = with(Policy::Never);
        let (doomed, waiting) = tokio::join!(never.send(Do::Panic), never.send(Do::Note(1)));
        assert_eq!((doomed, waiting), (Err(SendError::Panicked), Err(SendError::Down)));
        assert_eq!(never.state(), State::Ended);
    });
}

#[test]
fn a_full_inbox_refuses_and_a_sender_waits_for_room_only_so_long() {
    run(async {
        let puppet = puppet(Spec { inbox: 2, ..spec() });
        let (release, blocked) = oneshot::channel();
        puppet.try_send(Block(blocked)).unwrap();
        tokio::task::yield_now().await;
        puppet.try_send(Do::Note(1)).unwrap();
        puppet.try_send(Do::Note(2)).unwrap();
        assert_eq!(puppet.waiting(), 2);
        assert_eq!(puppet.try_send(Do::Note(3)), Err(SendError::Full));
        assert_eq!(puppet.send_within(Do::Note(3), Duration::from_secs(1)).await, Err(SendError::Full));
        release.send(()).unwrap();
        assert_eq!(puppet.send(Do::Note(4)).await, Ok((1, vec![1, 2, 4])));
    });
}

#[test]
fn a_message_whose_sender_gave_up_is_not_handled() {
    run(async {
        let puppet = puppet(spec());
        let (release, blocked) = oneshot::channel();
        puppet.try_send(Block(blocked)).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(puppet.send_within(Do::Note(1), Duration::from_secs(1)).await, Err(SendError::Timeout));
        release.send(()).unwrap();
        assert_eq!(puppet.send(Do::Note(2)).await, Ok((1, vec![2])));
    });
}

#[test]
fn a_stuck_actor_is_restarted_if_its_spec_says_so() {
    run(async {
        let stubborn = puppet(spec());
        let restarted = puppet(Spec { when_stuck: WhenStuck::Restart, ..spec() });
        let (_never, blocked) = oneshot::channel();
        let (_neither, blocked_too) = oneshot::channel();
        let wait = Duration::from_secs(30);
        let (lost, next) = tokio::join!(restarted.send(Block(blocked)), restarted.send(Do::Note(1)));
        assert_eq!(lost, Err(SendError::Lost));
        assert_eq!(next, Ok((2, vec![1])));
        stubborn.try_send(Block(blocked_too)).unwrap();
        assert_eq!(stubborn.send_within(Do::Note(1), wait).await, Err(SendError::Timeout));
        assert_eq!(stubborn.state(), State::Running);
    });
}

#[test]
fn an_idle_actor_is_not_stuck() {
    run(async {
        let puppet = puppet(Spec { when_stuck: WhenStuck::Restart, ..spec() });
        assert_eq!(puppet.send(Do::Note(1)).await, Ok((1, vec![1])));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(puppet.send(Do::Note(2)).await, Ok((1, vec![1, 2])));
    });
}

#[test]
fn a_late_reply_does_not_hold_up_the_inbox() {
    run(async {
        let puppet = puppet(spec());
        let (release, released) = oneshot::channel();
        let (late, quick) = tokio::join!(puppet.send(Later(released)), async {
            let quick = puppet.send(Do::Note(1)).await;
            release.send(()).unwrap();
            quick
        });
        assert_eq!(late, Ok("later"));
        assert_eq!(quick, Ok((1, vec![1])));
    });
}

#[test]
fn a_factory_that_panics_is_a_failure_like_any_other() {
    run(async {
        let tries = Rc::new(Cell::new(0));
        let tried = tries.clone();
        let puppet = start(spec(), move || {
            tried.set(tried.get() + 1);
            assert!(tried.get() > 2, "not yet");
            Puppet { life: tried.get(), seen: Vec::new() }
        });
        assert_eq!(puppet.send(Do::Note(1)).await, Ok((3, vec![1])));

        let hopeless: Handle<Puppet> = start(spec(), || panic!("never"));
        assert_eq!(hopeless.send(Do::Note(1)).await, Err(SendError::Down));
        assert_eq!(hopeless.state(), State::Escalated);
    });
}

#[test]
fn stopping_handles_what_waits_first() {
    run(async {
        let puppet = puppet(spec());
        for value in 0..100 {
            puppet.try_send(Do::Note(value)).unwrap();
        }
        let last = puppet.clone();
        let (reply, ()) = tokio::join!(last.send(Do::Note(100)), async { puppet.stop() });
        assert_eq!(reply.map(|(_, seen)| seen.len()), Ok(101));
        assert_eq!(puppet.ended().await, State::Ended);
        assert_eq!(puppet.send(Do::Note(1)).await, Err(SendError::Down));
    });
}

/// Says when it is dropped, and refuses to stop.
struct Clinging(Rc<Cell<bool>>);

impl Actor for Clinging {
    type Context = Context<Self>;

    fn stopping(&mut self, _: &mut Context<Self>) -> actix::Running {
        actix::Running::Continue
    }
}

impl Drop for Clinging {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn the_last_handle_ends_even_an_actor_that_clings() {
    run(async {
        let dropped = Rc::new(Cell::new(false));
        let tell = dropped.clone();
        let handle = start(spec(), move || Clinging(tell.clone()));
        tokio::task::yield_now().await;
        drop(handle);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(dropped.get());
    });
}

/// Counts its timer's ticks.
struct Ticking(Rc<Cell<u32>>);

impl Actor for Ticking {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.run_interval(Duration::from_millis(1), |ticking, _| ticking.0.set(ticking.0.get() + 1));
    }
}

impl Handler<Do> for Ticking {
    type Result = actix::MessageResult<Do>;

    fn handle(&mut self, _: Do, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult((0, Vec::new()))
    }
}

#[test]
fn a_flood_does_not_starve_timers() {
    // Real time: the flood keeps the thread busy, so a paused clock would never move.
    actix_rt::System::new().block_on(async {
        let ticks = Rc::new(Cell::new(0));
        let tell = ticks.clone();
        let handle = start(spec(), move || Ticking(tell.clone()));
        let flooding = handle.clone();
        let flood = actix_rt::spawn(async move {
            loop {
                while flooding.try_send(Do::Note(0)).is_ok() {}
                tokio::task::yield_now().await;
            }
        });
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while ticks.get() < 5 {
            assert!(std::time::Instant::now() < deadline, "the timer never ran");
            tokio::task::yield_now().await;
        }
        flood.abort();
    });
}

#[test]
fn handles_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Handle<Puppet>>();
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever panics, every message is answered exactly once, in order, and none is handled twice.
    #[test]
    fn every_message_is_answered_once_and_in_order(panics in proptest::collection::vec(proptest::bool::weighted(0.2), 1..60)) {
        run(async move {
            let intensity = Intensity { restarts: usize::MAX, within: Duration::from_secs(10) };
            let puppet = puppet(Spec { intensity, wait: Duration::from_secs(3600), ..spec() });
            let sends = panics.iter().enumerate().map(|(index, panics)| {
                let told = if *panics { Do::Panic } else { Do::Note(u32::try_from(index).unwrap()) };
                puppet.send(told)
            });
            let replies = futures_util::future::join_all(sends).await;
            let mut life = 1;
            let mut seen = Vec::new();
            for (index, (reply, panics)) in replies.into_iter().zip(&panics).enumerate() {
                if *panics {
                    assert_eq!(reply, Err(SendError::Panicked));
                    life += 1;
                    seen.clear();
                } else {
                    seen.push(u32::try_from(index).unwrap());
                    assert_eq!(reply, Ok((life, seen.clone())));
                }
            }
        });
    }
}
