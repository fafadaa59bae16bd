//! Readers that stop, and what that is to the others of their link. The clock stands still while there is anything to do,
//! so that what waits for a time to pass is told from what does not.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use troupe_mesh::body::{Body, channel};
use troupe_mesh::failure::{Outcome, Stage, Started};
use troupe_mesh::link::{Link, Memory, Services};
use troupe_mesh::loopback;
use troupe_mesh::port::{Port, Service};

use crate::contract::{Ask, LONG, Said, Teller, What, ask, read, until};

/// More than a link's window, so that what lies is more than its whole credit.
const BUDGET: u64 = 16 * 1024 * 1024;
/// Bytes of a window of a stream: what a reader that stops leaves lying.
const WINDOW: u64 = 256 * 1024;
/// Readers that spend the budget between them.
const STOPPED: u64 = BUDGET / WINDOW + 16;
/// Longer than any reader may stand still while memory is short.
const AGES: Duration = Duration::from_secs(20);

/// A link with little memory, and the clock stopped.
fn short_of_memory() -> (Link, Memory) {
    tokio::time::pause();
    let memory = Memory::of(BUDGET);
    let teller: Rc<dyn Service<Ask>> = Rc::new(Teller::default());
    let link = loopback::link_within(Services::new().with(Port::inline(teller)), memory.clone()).unwrap();
    (link, memory)
}

async fn call(link: &Link, what: What, body: Body) -> Said {
    let call = Service::<Ask>::call(link, ask(what, body));
    timeout(LONG, call).await.expect("it is answered").unwrap()
}

/// Calls with a large reply that nobody reads.
async fn stopped(link: &Link, count: u64) -> Vec<Said> {
    let what = What::Produce { pieces: 100, size: 32 * 1024 };
    join_all((0..count).map(|_| call(link, what.clone(), Body::Empty))).await
}

/// Waits until links hold `bytes`, in no time.
async fn holds(memory: &Memory, bytes: u64) {
    for _ in 0..1_000_000 {
        if memory.held() >= bytes {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it holds no more than {}", memory.held());
}

/// How many of `replies` have been broken off.
async fn broken(replies: Vec<Said>) -> usize {
    let read = join_all(replies.into_iter().map(|said| timeout(LONG, read(said.body)))).await;
    read.into_iter().filter(|read| read.as_ref().expect("it ends").is_err()).count()
}

#[actix_rt::test]
async fn readers_that_stand_still_stop_no_small_reply() {
    let (link, memory) = short_of_memory();
    let slow = stopped(&link, STOPPED).await;
    holds(&memory, BUDGET).await;
    let since = Instant::now();
    for _ in 0..10 {
        // More at once than the reserve, and than a window altogether.
        let page = Bytes::from(vec![b'p'; 30_000]);
        let pages = join_all((0..200).map(|_| call(&link, What::Echo, Body::full(page.clone())))).await;
        for said in pages {
            assert_eq!(timeout(LONG, read(said.body)).await.expect("it has a body").unwrap().len(), 30_000);
        }
        let streamed = call(&link, What::Produce { pieces: 8, size: 1 }, Body::Empty).await;
        assert_eq!(timeout(LONG, read(streamed.body)).await.expect("it has a body").unwrap().len(), 8);
    }
    assert!(since.elapsed() < Duration::from_millis(500), "they waited for time to pass: {:?}", since.elapsed());
    assert!(memory.held() >= BUDGET && slow.len() as u64 == STOPPED, "nobody has made room for them");
}

#[actix_rt::test]
async fn readers_that_stand_still_are_given_up_once_memory_is_spent_and_no_others() {
    let (link, memory) = short_of_memory();
    let mut steady = call(&link, What::Produce { pieces: 60, size: 32 * 1024 }, Body::Empty).await.body;
    let slow = stopped(&link, STOPPED).await;
    holds(&memory, BUDGET).await;
    let steady = actix_rt::spawn(async move {
        let mut taken = 0;
        while let Some(piece) = steady.next().await {
            taken += piece.expect("it takes something all the time").len();
            sleep(Duration::from_millis(300)).await;
        }
        taken
    });
    let large = call(&link, What::Produce { pieces: 500, size: 32 * 1024 }, Body::Empty).await;
    let large = timeout(LONG, read(large.body)).await.expect("it comes to its end").unwrap();
    assert_eq!(large.len(), 500 * 32 * 1024);
    sleep(AGES).await;
    assert_eq!(steady.await.unwrap(), 60 * 32 * 1024);
    assert!(memory.held() <= BUDGET / 4 * 3, "{}", memory.held());
    let running = u64::from(link.in_flight());
    let broken = broken(slow).await as u64;
    assert_eq!(running + broken, STOPPED, "who was given up is no call in flight");
    assert!((STOPPED / 4..STOPPED * 3 / 4).contains(&broken), "no more than memory took: {broken}");
    until("no byte is left", || (memory.held(), link.held_bytes(), link.in_flight()) == (0, 0, 0)).await;
}

#[actix_rt::test]
async fn readers_stand_still_for_as_long_as_they_like_while_there_is_memory() {
    let (link, memory) = short_of_memory();
    let slow = stopped(&link, STOPPED / 2).await;
    holds(&memory, BUDGET / 2).await;
    sleep(AGES).await;
    assert_eq!(broken(slow).await, 0);
}

#[actix_rt::test]
async fn whole_bodies_that_nobody_takes_are_given_up_too() {
    let (link, memory) = short_of_memory();
    let what = What::Produce { pieces: 7, size: 32 * 1024 };
    let slow = join_all((0..2 * STOPPED).map(|_| call(&link, what.clone(), Body::Empty))).await;
    holds(&memory, BUDGET).await;
    sleep(AGES).await;
    assert!(memory.held() <= BUDGET / 4 * 3, "{}", memory.held());
    assert!(broken(slow).await > 0, "a part was taken for the whole");
}

#[actix_rt::test]
async fn calls_whose_bodies_their_service_does_not_take_are_refused_once_memory_is_spent() {
    let (link, memory) = short_of_memory();
    let calls = (0..STOPPED).map(|_| {
        let (mut writer, reader) = channel(None);
        actix_rt::spawn(async move { while writer.write(Bytes::from(vec![0; 32 * 1024])).await.is_ok() {} });
        let call = Service::<Ask>::call(&link, ask(What::Hang, Body::Stream(reader)));
        actix_rt::spawn(call)
    });
    let calls: Vec<_> = calls.collect();
    holds(&memory, BUDGET).await;
    let large = call(&link, What::Count, Body::full(Bytes::from(vec![0; 1_000_000]))).await;
    assert_eq!(large.number, 1_000_000);
    let refused: Vec<_> = calls.into_iter().filter(|call| call.is_finished()).collect();
    assert!(!refused.is_empty());
    for call in refused {
        let failure = call.await.unwrap().unwrap_err();
        assert_eq!((failure.outcome, failure.stage), (Outcome::Overloaded, Stage::Link));
        assert_eq!(failure.started, Started::Maybe);
    }
}
