//! What one poll after the other says about the instances of a service: who is there.
//!
//! Pure: no Redis, no clock. What it has to tell apart is an instance that has stopped, which says so, one that died, and
//! one that Redis has lost because it was flushed or started anew. The last two look the same here; the links know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use troupe_wire::handshake::Uid;

use super::record::{Member, State};
use crate::discovery::{Endpoint, Endpoints, MAX_ENDPOINTS, distinct};

/// How long an instance that Redis no longer names is still dialled: several beats of one that Redis has lost. One that is
/// dead costs a failed dial now and then for as long.
pub(super) const MISSING_GRACE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct View {
    known: BTreeMap<Uid, Known>,
    /// Whether the last poll named nobody, so that all are missing and nobody's time runs.
    all_missing: bool,
}

#[derive(Debug)]
struct Known {
    member: Member,
    /// When a poll first came without it.
    missing: Option<Instant>,
}

impl View {
    /// Takes in what a poll brought, oldest beat first.
    pub(super) fn polled(&mut self, members: Vec<Member>, now: Instant) -> Endpoints {
        for known in self.known.values_mut() {
            known.missing.get_or_insert(now);
        }
        for member in members {
            if member.state == State::Gone {
                self.known.remove(&member.uid);
                continue;
            }
            // The newest start at an address is the one that is there; the others' processes have ended.
            self.known.retain(|_, known| known.member.address != member.address);
            self.known.insert(member.uid, Known { member, missing: None });
        }
        // Where nobody is named, it is Redis that has lost them, or takes no beat: it is full, has no replica, or no disk.
        self.all_missing = self.known.values().all(|known| known.missing.is_some());
        if self.all_missing {
            self.interrupted();
        }
        self.known
            .retain(|_, known| known.missing.is_none_or(|since| now.saturating_duration_since(since) < MISSING_GRACE));
        self.cut();
        self.endpoints()
    }

    /// Polls have failed meanwhile, or might as well have: nothing was missed by the instances, so their time begins anew.
    pub(super) fn interrupted(&mut self) {
        for known in self.known.values_mut() {
            known.missing = None;
        }
    }

    /// Instances by what the last poll said of them: up, draining, missing.
    pub(super) fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for known in self.known.values() {
            let [up, draining, missing] = &mut counts;
            *match known.member.state {
                _ if self.all_missing || known.missing.is_some() => missing,
                State::Up => up,
                _ => draining,
            } += 1;
        }
        counts
    }

    /// Forgets the longest missing where there are too many: whoever writes to Redis could make up new ones at each poll.
    fn cut(&mut self) {
        let excess = self.known.len().saturating_sub(MAX_ENDPOINTS);
        if excess == 0 {
            return;
        }
        let mut missing: Vec<(Instant, Uid)> =
            self.known.iter().filter_map(|(uid, known)| Some((known.missing?, *uid))).collect();
        missing.sort();
        for (_, uid) in missing.into_iter().take(excess) {
            self.known.remove(&uid);
        }
    }

    /// Those that take calls. Draining ones are left out, unless there is no other: they still answer, and one that is
    /// missing may be dead.
    fn endpoints(&self) -> Endpoints {
        let up = |known: &&Known| known.member.state == State::Up;
        let any_up = self.known.values().any(|known| up(&known) && known.missing.is_none());
        let chosen = self.known.values().filter(|known| !any_up || up(known));
        distinct(chosen.map(|known| endpoint(&known.member)).collect())
    }
}

fn endpoint(member: &Member) -> Endpoint {
    let name = if member.name.is_empty() {
        member.address.to_string()
    } else {
        format!("{} ({})", member.name, member.address)
    };
    Endpoint { address: member.address.clone(), name: name.into(), uid: Some(member.uid), alternatives: Arc::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(uid: u8, port: u16, state: State) -> Member {
        let address = format!("10.0.0.7:{port}").parse().expect("an address");
        Member { uid: Uid([uid; 16]), address, name: "n".to_owned(), state }
    }

    fn up(uid: u8, port: u16) -> Member {
        member(uid, port, State::Up)
    }

    fn ports(endpoints: &Endpoints) -> Vec<(u8, String)> {
        let seen = |endpoint: &Endpoint| (endpoint.uid.map_or(0, |uid| uid.0[0]), endpoint.address.to_string());
        endpoints.iter().map(seen).map(|(uid, address)| (uid, address.replace("10.0.0.7:", ""))).collect()
    }

    fn found(endpoints: &[(u8, &str)]) -> Vec<(u8, String)> {
        endpoints.iter().map(|(uid, port)| (*uid, (*port).to_owned())).collect()
    }

    #[test]
    fn an_instance_that_says_that_it_stopped_is_gone_at_once() {
        let (mut view, now) = (View::default(), Instant::now());
        assert_eq!(ports(&view.polled(vec![up(1, 1), up(2, 2)], now)), found(&[(1, "1"), (2, "2")]));
        assert_eq!(ports(&view.polled(vec![member(1, 1, State::Gone), up(2, 2)], now)), found(&[(2, "2")]));
        assert!(view.polled(vec![member(2, 2, State::Gone)], now).is_empty());
    }

    #[test]
    fn one_that_is_only_missing_stays_for_a_while() {
        let (mut view, start) = (View::default(), Instant::now());
        view.polled(vec![up(1, 1), up(2, 2)], start);
        let missed = start + Duration::from_secs(60);
        assert_eq!(ports(&view.polled(vec![up(2, 2)], missed)).len(), 2, "however long ago it was seen");
        assert_eq!(view.counts(), [1, 0, 1]);
        let late = missed + MISSING_GRACE - Duration::from_millis(1);
        assert_eq!(ports(&view.polled(vec![up(2, 2)], late)).len(), 2);
        assert_eq!(ports(&view.polled(vec![up(1, 1)], late)).len(), 2, "it is back");
        assert_eq!(ports(&view.polled(vec![up(1, 1)], late + MISSING_GRACE)), found(&[(1, "1")]));
    }

    #[test]
    fn where_nobody_is_named_redis_has_lost_them_and_all_stay() {
        let (mut view, start) = (View::default(), Instant::now());
        view.polled(vec![up(1, 1), up(2, 2)], start);
        for round in 0..10 {
            assert_eq!(view.polled(vec![], start + MISSING_GRACE * round).len(), 2, "{round}");
        }
        let named = start + MISSING_GRACE * 10;
        assert_eq!(view.polled(vec![up(1, 1)], named).len(), 2, "it beats again; the other has its time from here on");
        assert_eq!(ports(&view.polled(vec![up(1, 1)], named + MISSING_GRACE)), found(&[(1, "1")]));
    }

    #[test]
    fn those_that_redis_has_lost_are_told_as_missing_for_as_long_as_they_are() {
        let (mut view, start) = (View::default(), Instant::now());
        let draining = member(2, 2, State::Draining);
        let taken = view.polled(vec![up(1, 1), draining.clone(), up(3, 3)], start);
        for round in 1..10 {
            let lost = view.polled(vec![], start + MISSING_GRACE * round);
            assert_eq!((view.counts(), ports(&lost)), ([0, 0, 3], ports(&taken)), "{round}");
        }
        view.polled(vec![up(1, 1), draining], start + MISSING_GRACE * 10);
        assert_eq!(view.counts(), [1, 1, 1]);
    }

    #[test]
    fn an_outage_gives_the_missing_their_time_again() {
        let (mut view, start) = (View::default(), Instant::now());
        view.polled(vec![up(1, 1), up(2, 2)], start);
        view.polled(vec![up(2, 2)], start);
        view.interrupted();
        let back = start + MISSING_GRACE * 2;
        assert_eq!(view.polled(vec![up(2, 2)], back).len(), 2);
        assert_eq!(view.polled(vec![up(2, 2)], back + MISSING_GRACE).len(), 1);
    }

    #[test]
    fn a_new_start_at_an_address_replaces_the_old_at_once() {
        let (mut view, now) = (View::default(), Instant::now());
        view.polled(vec![up(9, 1)], now);
        assert_eq!(ports(&view.polled(vec![up(3, 1)], now)), found(&[(3, "1")]), "the old one is missing");
        assert_eq!(ports(&view.polled(vec![up(3, 1), up(4, 1)], now)), found(&[(4, "1")]), "the old one is named, too");
        assert_eq!(ports(&view.polled(vec![member(3, 1, State::Gone), up(4, 1)], now)), found(&[(4, "1")]));
    }

    #[test]
    fn a_draining_one_is_left_out_where_another_is_up() {
        let (mut view, now) = (View::default(), Instant::now());
        let draining = member(1, 1, State::Draining);
        assert_eq!(ports(&view.polled(vec![draining.clone(), up(2, 2)], now)), found(&[(2, "2")]));
        assert_eq!(view.counts(), [1, 1, 0]);
        let alone = view.polled(vec![draining, member(2, 2, State::Gone)], now);
        assert_eq!(ports(&alone), found(&[(1, "1")]), "it still answers");
    }

    #[test]
    fn a_draining_one_is_not_given_up_for_one_that_may_be_dead() {
        let (mut view, now) = (View::default(), Instant::now());
        view.polled(vec![up(1, 1), up(2, 2)], now);
        let draining = member(1, 1, State::Draining);
        assert_eq!(ports(&view.polled(vec![draining], now)), found(&[(1, "1"), (2, "2")]));
    }

    #[test]
    fn a_flood_of_made_up_instances_is_bounded() {
        let (mut view, mut now) = (View::default(), Instant::now());
        view.polled(vec![up(1, 1)], now);
        for round in 0..20_u128 {
            now += Duration::from_millis(100);
            let flood = (0..1024_u128).map(|n| {
                let mut member = up(0, u16::try_from(2 + n).expect("a port"));
                member.uid = Uid((round << 64 | n).to_be_bytes());
                member.address = format!("10.{round}.0.7:{}", 2 + n).parse().expect("an address");
                member
            });
            let endpoints = view.polled(flood.collect(), now);
            assert!(endpoints.len() <= MAX_ENDPOINTS && view.known.len() <= MAX_ENDPOINTS, "{}", view.known.len());
        }
    }
}
