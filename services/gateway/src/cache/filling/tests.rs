use std::time::Duration;

use futures_util::FutureExt as _;
use troupe_cache::time::Moment;

use super::*;
use crate::cache::sample;

const PIECE: usize = LEAST_WINDOW / 4;

/// A response too large for the store, and two who read it, of whom nobody has read anything.
fn passing(held: usize) -> (Arc<Filling>, Follower, Follower) {
    let filling = Filling::new(Arc::new(sample::entry("max-age=60", Moment::from_secs(1))), None);
    let (one, other) = (filling.follow().unwrap(), filling.follow().unwrap());
    filling.pass(held);
    (filling, one, other)
}

fn push(filling: &Filling, pieces: usize) {
    (0..pieces).for_each(|_| filling.push(Bytes::from(vec![b'a'; PIECE])));
}

/// Reads all that is there: how many pieces, and whether it broke off.
fn read(follower: &mut Follower) -> (usize, bool) {
    let mut pieces = 0;
    loop {
        match follower.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(_))) => pieces += 1,
            Poll::Ready(Some(Err(_))) => return (pieces, true),
            Poll::Ready(None) | Poll::Pending => return (pieces, false),
        }
    }
}

/// None is left.
fn spent() -> Patience {
    let now = Instant::now();
    let mut patience = Patience::new(now);
    let longest = patience.begin(now);
    patience.end(now + longest);
    patience
}

#[actix_rt::test]
async fn who_is_too_far_behind_is_broken_off_and_the_others_read_on() {
    let (filling, mut fast, mut slow) = passing(0);
    for _ in 0..3 {
        push(&filling, 4);
        assert_eq!(read(&mut fast), (4, false));
        assert!(filling.room(&mut spent()).await);
    }
    assert_eq!(read(&mut slow), (0, true), "a part must not pass for the whole");
    filling.finish(true);
    drop(slow);
    assert_eq!((read(&mut fast), filling.body.lock().readers.len()), ((0, false), 1));
}

#[actix_rt::test]
async fn who_is_behind_by_what_is_reserved_holds_nobody_up() {
    let (filling, mut fast, mut slow) = passing(5 * LEAST_WINDOW);
    for _ in 0..4 {
        push(&filling, 4);
        assert_eq!(read(&mut fast), (4, false));
        assert_eq!(filling.room(&mut spent()).now_or_never(), Some(true));
    }
    assert_eq!(read(&mut slow), (16, false));
}

#[actix_rt::test]
async fn who_catches_up_in_time_is_not_left_behind() {
    let (filling, mut fast, mut slow) = passing(0);
    push(&filling, 4);
    read(&mut fast);
    let mut patience = Patience::new(Instant::now());
    let mut room = Box::pin(filling.room(&mut patience));
    assert_eq!(room.as_mut().now_or_never(), None, "it waits for the slow one");
    assert_eq!(read(&mut slow), (4, false));
    assert!(room.await);
}

/// However long: then nobody is held up.
#[actix_rt::test]
async fn where_all_have_enough_to_read_nobody_is_left_behind() {
    let (filling, mut one, mut other) = passing(0);
    push(&filling, 8);
    let mut patience = spent();
    let waited = tokio::time::timeout(Duration::from_millis(50), filling.room(&mut patience)).await;
    assert!(waited.is_err());
    assert_eq!((read(&mut one), read(&mut other)), ((8, false), (8, false)));
}

#[actix_rt::test]
async fn whoever_fills_learns_that_a_reader_wants_more_and_that_none_is_left() {
    let (filling, mut one, other) = passing(0);
    push(&filling, 8);
    let mut patience = Patience::new(Instant::now());
    let mut room = Box::pin(filling.room(&mut patience));
    assert_eq!(room.as_mut().now_or_never(), None);
    read(&mut one);
    drop(other);
    assert!(room.await);
    push(&filling, 8);
    let mut room = Box::pin(filling.room(&mut patience));
    assert_eq!(room.as_mut().now_or_never(), None);
    drop(one);
    assert!(!room.await);
}
