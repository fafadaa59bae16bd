//! The queue, the caps and the hand-over between them, with many calls on several threads.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Behaviour, Fake, Stack, envelope, get, on_thread, queue, start, until};
use troupe_mesh::body::Body;
use troupe_mesh::failure::{Outcome, Stage};
use troupe_mesh::port::Port;

const LONG: Duration = Duration::from_secs(60);

#[actix_rt::test]
async fn exactly_as_many_wait_as_may_and_the_rest_is_told_at_once() {
    let fake = Fake::new("one", 4, Duration::ZERO);
    fake.behave(Behaviour::Hang);
    let stack = start(vec![fake.clone()], queue(50, LONG), 1).await;
    let port = stack.on_thread(0);
    let calls: Vec<_> = (0..1_000).map(|_| actix_rt::spawn(port.call(get()))).collect();
    until("the queue is full", || calls.iter().filter(|call| call.is_finished()).count() == 946).await;
    assert_eq!((stack.balancer.busy(), fake.calls()), ((4, 50), 4));
    let asked = Instant::now();
    let failure = port.call(get()).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    assert_eq!((failure.outcome, failure.stage), (Outcome::Overloaded, Stage::Queue));
    assert!(failure.retry_after.is_some());
    for call in calls {
        call.abort();
    }
    until("all have left", || stack.idle()).await;
    fake.behave(Behaviour::Reply(200));
    assert!(port.call(get()).await.is_ok());
}

#[actix_rt::test]
async fn who_waited_for_a_worker_that_has_a_reason_to_take_nothing_hears_that_reason() {
    let fake = Fake::new("one", 4, Duration::ZERO);
    let stack = start(vec![fake.clone()], queue(10, Duration::from_millis(200)), 1).await;
    let port = stack.on_thread(0);
    for (behaviour, told) in [
        (Behaviour::Down, (Stage::PhpPool, "it cannot be loaded", "why")),
        (Behaviour::Fail(Outcome::Overloaded, false), (Stage::Queue, "no worker was free in time", "")),
    ] {
        fake.behave(behaviour);
        let failure = port.call(get()).await.unwrap_err();
        let (stage, reason, detail) = told;
        assert_eq!((failure.outcome, failure.stage, &*failure.reason), (Outcome::Overloaded, stage, reason));
        let said = failure.detail.clone().unwrap_or_default();
        assert!(said.contains(detail) && failure.retry_after.is_some(), "{failure:?}");
    }
}

#[actix_rt::test]
async fn a_queue_of_none_refuses_at_once() {
    let fake = Fake::new("one", 1, Duration::ZERO);
    fake.behave(Behaviour::Hang);
    let stack = start(vec![fake.clone()], queue(0, LONG), 1).await;
    let port = stack.on_thread(0);
    let _first = actix_rt::spawn(port.call(get()));
    until("the worker is busy", || fake.in_flight() == 1).await;
    assert_eq!(port.call(get()).await.unwrap_err().outcome, Outcome::Overloaded);
}

#[actix_rt::test]
async fn a_wait_ends_at_the_queues_limit_or_at_the_deadline() {
    let fake = Fake::new("one", 1, Duration::ZERO);
    fake.behave(Behaviour::Hang);
    let stack = start(vec![fake.clone()], queue(10, Duration::from_millis(100)), 1).await;
    let port = stack.on_thread(0);
    let _first = actix_rt::spawn(port.call(get()));
    until("the worker is busy", || fake.in_flight() == 1).await;

    let failure = port.call(get()).await.unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Overloaded, Stage::Queue));
    assert!(failure.retry_after.is_some());

    let failure = port.call(envelope(true, Body::Empty, Duration::from_millis(20))).await.unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Deadline, Stage::Queue));
    let failure = port.call(envelope(true, Body::Empty, Duration::ZERO)).await.unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Deadline, Stage::Queue));
    assert_eq!((fake.calls(), stack.balancer.busy()), (1, (1, 0)));
}

/// A place that falls free in the last moment: the way to the worker ends such a call, the queue had its time.
#[actix_rt::test]
async fn the_queue_answers_for_a_call_that_it_let_go_too_late_to_start() {
    let fake = Fake::new("one", 1, Duration::from_millis(20));
    let stack = start(vec![fake.clone()], queue(10, LONG), 1).await;
    let port = stack.on_thread(0);
    let first = actix_rt::spawn(port.call(get()));
    until("the worker is busy", || fake.in_flight() == 1).await;
    let second = actix_rt::spawn(port.call(get()));
    until("the second waits", || stack.balancer.busy() == (1, 1)).await;
    // The first is told so after its 20 ms, in which the second waited; the second then at once.
    fake.latency_us.store(0, Ordering::SeqCst);
    fake.behave(Behaviour::Fail(Outcome::Deadline, false));
    let failure = first.await.unwrap().unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Deadline, Stage::PhpPool), "the worker had its time");
    let failure = second.await.unwrap().unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Deadline, Stage::Queue));
    let failure = port.call(get()).await.unwrap_err();
    assert_eq!((failure.outcome, failure.stage), (Outcome::Deadline, Stage::PhpPool), "what did not wait");
}

#[actix_rt::test]
async fn waiting_is_told_to_the_worker() {
    let fake = Fake::new("one", 1, Duration::from_millis(20));
    let stack = start(vec![fake.clone()], queue(10, LONG), 1).await;
    let port = stack.on_thread(0);
    let calls: Vec<_> = (0..3).map(|_| actix_rt::spawn(port.call(get()))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let queued = fake.queued.lock();
    assert_eq!(queued.len(), 2);
    assert!(queued[0] >= Duration::from_millis(15) && queued[1] >= queued[0] + Duration::from_millis(15), "{queued:?}");
}

#[actix_rt::test]
async fn a_pool_that_is_never_without_a_queue_knows_how_long_its_replies_take() {
    const CALLS: u32 = 200;
    let fake = Fake::new("one", 1, Duration::from_millis(1));
    let stack = start(vec![fake], queue(CALLS, Duration::from_secs(60)), 1).await;
    let port = stack.on_thread(0);
    let calls: Vec<_> = (0..CALLS).map(|_| actix_rt::spawn(port.call(get()))).collect();
    for call in calls {
        assert!(call.await.unwrap().is_ok());
    }
    until("the percentile is there", || stack.balancer.snapshot().pools[0].p95_us > 0.0).await;
}

#[actix_rt::test]
async fn two_workers_of_one_slot_serve_three_clients_for_ever() {
    let fakes = vec![Fake::new("one", 1, Duration::from_micros(500)), Fake::new("two", 1, Duration::from_micros(500))];
    let stack = start(fakes.clone(), queue(10, LONG), 1).await;
    let port = stack.on_thread(0);
    let client = |port: Port<_>| async move {
        for _ in 0..100 {
            port.call(get()).await.unwrap();
        }
    };
    let clients: Vec<_> = (0..3).map(|_| actix_rt::spawn(client(port.clone()))).collect();
    for client in clients {
        client.await.unwrap();
    }
    assert!(fakes.iter().all(|fake| fake.most.load(Ordering::SeqCst) == 1));
    assert!(stack.idle());
}

/// Runs `work` on `threads` threads of the data path at once, while the balancer's own thread goes on.
async fn on_threads<W, F>(stack: &Stack, threads: usize, work: W)
where
    W: Fn(usize, Port<troupe_contracts::invoke::Invoke>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let handles: Vec<_> = (0..threads)
        .map(|index| {
            let (balancer, fakes, work) = (Arc::clone(&stack.balancer), Arc::clone(&stack.fakes), work.clone());
            std::thread::spawn(move || {
                actix_rt::System::new().block_on(async move { work(index, on_thread(&balancer, &fakes, index)).await });
            })
        })
        .collect();
    until("the threads are done", || handles.iter().all(std::thread::JoinHandle::is_finished)).await;
    for handle in handles {
        handle.join().expect("a thread of the test panicked");
    }
}

#[actix_rt::test]
async fn places_pass_on_when_waiters_leave_at_any_moment() {
    let fakes: Vec<_> = (0..3).map(|index| Fake::new(&format!("w{index}"), 2, Duration::ZERO)).collect();
    let stack = start(fakes.clone(), queue(10_000, LONG), 3).await;
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    on_threads(&stack, 3, move |index, port| {
        let done = Arc::clone(&counted);
        async move {
            let mut rng = fastrand::Rng::with_seed(index as u64);
            let mut calls = Vec::new();
            for number in 0..3_000 {
                let (port, done, leaves) = (port.clone(), Arc::clone(&done), rng.u8(..) < 128);
                let patience = Duration::from_micros(rng.u64(0..3_000));
                calls.push(actix_rt::spawn(async move {
                    let call = port.call(get());
                    if !leaves {
                        call.await.unwrap();
                        done.fetch_add(1, Ordering::SeqCst);
                    } else if tokio::time::timeout(patience, call).await.is_ok() {
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                }));
                if number % 100 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            for call in calls {
                call.await.unwrap();
            }
        }
    })
    .await;
    until("every place is free", || stack.idle()).await;
    assert!(fakes.iter().all(|fake| fake.most.load(Ordering::SeqCst) <= 2 && fake.in_flight() == 0));
    // All that stayed were served.
    assert!(done.load(Ordering::SeqCst) >= 4_000, "{done:?}");
}

#[actix_rt::test]
async fn equal_workers_share_evenly_and_no_cap_is_exceeded_on_any_number_of_threads() {
    for threads in [1, 2, 8] {
        let fakes: Vec<_> = (0..4).map(|index| Fake::new(&format!("w{index}"), 4, Duration::from_millis(1))).collect();
        let stack = start(fakes.clone(), queue(10_000, LONG), threads).await;
        on_threads(&stack, threads, move |_, port| async move {
            let clients: Vec<_> = (0..32 / threads)
                .map(|_| {
                    let port = port.clone();
                    actix_rt::spawn(async move {
                        for _ in 0..10_000 / 32 {
                            port.call(get()).await.unwrap();
                        }
                    })
                })
                .collect();
            for client in clients {
                client.await.unwrap();
            }
        })
        .await;
        let calls: Vec<u64> = fakes.iter().map(|fake| fake.calls()).collect();
        let mean = calls.iter().sum::<u64>() as f64 / 4.0;
        for (fake, calls) in fakes.iter().zip(&calls) {
            assert!(fake.most.load(Ordering::SeqCst) <= 4);
            assert!((*calls as f64 / mean - 1.0).abs() <= 0.03, "{threads} threads: {:?}", fakes);
        }
        assert_eq!(stack.balancer.busy(), (0, 0));
    }
}

#[actix_rt::test]
async fn workers_that_come_and_go_lose_no_call() {
    let stack = start(vec![Fake::new("stays", 2, Duration::ZERO)], queue(10_000, LONG), 2).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let churn = {
        let (fakes, instances, stop) = (Arc::clone(&stack.fakes), stack.instances.clone(), Arc::clone(&stop));
        actix_rt::spawn(async move {
            for round in 0_u64.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                // A name of its own each time; the fakes stay known, as links to instances that have left do.
                fakes.lock().push(Fake::new(&format!("w{round}"), 2, Duration::from_micros(200)));
                let listed = {
                    let fakes = fakes.lock();
                    let newest = fakes.iter().rev().take(3);
                    fakes.iter().take(1).chain(newest).map(|fake| common::instance(fake)).collect()
                };
                instances.send_replace(listed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    };
    on_threads(&stack, 2, |_, port| async move {
        for _ in 0..200 {
            let calls: Vec<_> = (0..10).map(|_| actix_rt::spawn(port.call(get()))).collect();
            for call in calls {
                call.await.unwrap().unwrap();
            }
        }
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    churn.await.unwrap();
    let fakes = stack.fakes.lock().clone();
    assert!(fakes.iter().all(|fake| fake.in_flight() == 0 && fake.most.load(Ordering::SeqCst) <= 2));
    assert_eq!(fakes.iter().map(|fake| fake.calls()).sum::<u64>(), 4_000);
}
