use std::time::Duration;

use super::*;

const A: Uid = [1; 16];
const B: Uid = [2; 16];

fn at(seq: u64) -> Position {
    Position { generation: 7, seq, nonce: seq * 10 }
}

fn hub() -> Arc<Hub> {
    Arc::new(Hub::new(at(100), Instant::now()))
}

fn purge(seq: u64) -> Invalidation {
    Invalidation { at: at(seq), target: Target::All, soft: false, source: None }
}

/// A history that is made elsewhere, known up to purge 100.
fn elsewhere() -> Arc<Hub> {
    let hub = Arc::new(Hub::unsure());
    hub.replace(vec![purge(100)]);
    hub
}

fn purges(hub: &Hub, cursor: Position) -> Option<Vec<u64>> {
    match hub.after(cursor) {
        News::Purges(purges) => Some(purges.iter().map(|purge| purge.at.seq).collect()),
        News::Anew(_) => None,
    }
}

#[test]
fn a_watcher_hears_what_followed_the_place_it_names() {
    let hub = hub();
    let first = hub.position();
    let second = hub.make(Target::All, false, None);
    hub.make(Target::All, true, None);
    assert_eq!(purges(&hub, first), Some(vec![101, 102]));
    assert_eq!(purges(&hub, second), Some(vec![102]));
    assert_eq!(purges(&hub, hub.position()), Some(vec![]));
    assert_eq!(hub.join(A, Some(second)), Some(second));
    assert_eq!(hub.join(A, None), Some(hub.position()));
}

#[test]
fn a_place_of_another_history_or_one_long_gone_is_none() {
    let hub = hub();
    let first = hub.position();
    assert_eq!(purges(&hub, Position { nonce: 2, ..first }), None);
    assert_eq!(purges(&hub, Position { generation: 8, ..first }), None);
    assert_eq!(purges(&hub, Position { seq: 99, ..first }), None);
    assert_eq!(purges(&hub, Position { seq: 105, ..first }), None);
    for _ in 0..REMEMBERED {
        hub.make(Target::All, false, None);
    }
    assert_eq!(purges(&hub, first), None);
    assert_eq!(hub.join(A, Some(first)), Some(hub.position()));
}

#[tokio::test]
async fn a_purge_is_confirmed_when_those_who_watch_have_done_it() {
    let hub = hub();
    let from = hub.join(A, None).unwrap();
    assert!(hub.beat(&A, from.generation, from.seq));
    let (at, counted) = hub.make_counted(Target::All, false, None);
    let waiting = hub.confirmed(at);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    hub.applied(&A, from.generation + 1, at.seq, (9, 9));
    assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "of another history");
    hub.applied(&A, from.generation, at.seq, (1, 2));
    let purged = counted.purged(waiting.await);
    assert_eq!((purged.urls, purged.responses, purged.confirmed, purged.lapsed), (1, 2, 1, 0));
    drop(counted);
    assert!(hub.state.lock().found.is_empty());
}

#[tokio::test]
async fn one_that_comes_anew_from_nowhere_has_done_nothing_yet() {
    let hub = hub();
    let from = hub.join(A, None).unwrap();
    hub.beat(&A, from.generation, from.seq);
    let at = hub.make(Target::All, false, None);
    // It lost its place, but not what it has, nor the time for which it may give that.
    let from = hub.join(A, None).unwrap();
    assert_eq!(from, at);
    let waiting = hub.confirmed(at);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    hub.beat(&A, from.generation, from.seq);
    assert!(futures_util::poll!(waiting.as_mut()).is_ready());
}

#[tokio::test]
async fn no_purge_is_confirmed_while_a_process_before_this_one_may_have_granted_something() {
    let quiet = Instant::now() + Duration::from_millis(50);
    let hub = Hub::new(at(100), quiet);
    hub.confirmed(hub.make(Target::All, false, None)).await;
    assert!(Instant::now() >= quiet);
}

#[tokio::test]
async fn a_silent_watcher_is_waited_for_no_longer_than_its_lease() {
    let hub = hub();
    let from = hub.join(A, None).unwrap();
    hub.beat(&A, from.generation, from.seq);
    let at = hub.make(Target::All, false, None);
    let since = Instant::now();
    let standing = hub.confirmed(at).await;
    assert_eq!((standing.confirmed, standing.lapsed), (0, 1));
    assert!(since.elapsed() < WATCH_LEASE * 10);
}

#[test]
fn beats_are_answered_only_while_all_is_well() {
    let hub = elsewhere();
    hub.join(A, None).unwrap();
    assert!(!hub.beat(&A, 7, 100));
    hub.is_well_until(Instant::now() + Duration::from_secs(60));
    assert!(hub.beat(&A, 7, 100));
    hub.lose();
    assert!(!hub.beat(&A, 7, 100));
}

#[tokio::test]
async fn a_purge_that_is_not_known_here_is_not_confirmed_although_nobody_watches() {
    let hub = elsewhere();
    hub.is_well_until(Instant::now() + Duration::from_secs(60));
    let waiting = hub.confirmed(at(105));
    tokio::pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending(), "who comes now would not hear of it");
    hub.append(vec![(purge(105), true)]);
    assert!(futures_util::poll!(waiting.as_mut()).is_ready());
    // And of one that can hear nothing, whoever watches is silent a second after the last beat was answered.
    hub.join(A, None).unwrap();
    hub.beat(&A, 7, 105);
    hub.lose();
    let since = Instant::now();
    assert_eq!(hub.confirmed(at(106)).await.lapsed, 1);
    assert!(since.elapsed() >= WATCH_LEASE / 2);
}

#[test]
fn what_is_told_to_others_is_what_all_have_done() {
    let hub = elsewhere();
    hub.is_well_until(Instant::now() + Duration::from_secs(60));
    assert_eq!(hub.ack(), "7:100", "nobody watches");
    hub.join(A, None).unwrap();
    hub.join(B, None).unwrap();
    hub.beat(&A, 7, 100);
    hub.beat(&B, 7, 100);
    hub.append(vec![(purge(101), false), (purge(102), true), (purge(103), false)]);
    assert_eq!(hub.ack(), "7:100");
    hub.applied(&A, 7, 101, (1, 2));
    hub.applied(&B, 7, 101, (3, 4));
    assert_eq!(hub.ack(), "7:101");
    let found = hub.take_found();
    let [(101, purged)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((purged.urls, purged.responses, purged.confirmed), (4, 6, 2));
    assert!(hub.take_found().is_empty(), "once");
    hub.applied(&A, 7, 103, (1, 1));
    hub.applied(&B, 7, 103, (0, 0));
    assert_eq!(hub.take_found().iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [103], "the other is told here");
    hub.replace(vec![Invalidation { at: Position { generation: 8, seq: 50, nonce: 1 }, ..purge(50) }]);
    assert_eq!(hub.ack(), "8:0", "nobody has done anything of another history");
}
