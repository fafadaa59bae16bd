//! Instances that come, go, fall silent and are told what to do.

use super::*;

#[test]
fn an_instance_that_falls_silent_is_lost_and_then_forgotten_but_what_it_counted_stays() {
    let (mut cluster, start) = (Cluster::new(), Instant::now());
    let (mut one, mut other) = (Told::new(1, "gateway", 60_000), Told::new(2, "php-pool", 60_000));
    one.count(100);
    one.connections(5.0);
    other.connections(3.0);
    one.tell(&mut cluster, start);
    other.tell(&mut cluster, start);
    assert_eq!(value(&rendered(&cluster, start), "troupe_gateway_connections"), Some(8.0));

    let later = start + LOST_AFTER;
    other.tell(&mut cluster, later);
    cluster.tick(later, 0);
    assert_eq!(cluster.counts(later), (1, 1));
    let text = rendered(&cluster, later);
    assert_eq!(value(&text, TOTAL), Some(100.0));
    assert_eq!(value(&text, "troupe_gateway_connections"), Some(3.0), "a lost instance has no gauges");
    assert_eq!(value(&text, "troupe_metrics_instance_up{service=\"gateway\",instance=\"gateway@1\"}"), Some(0.0));
    assert_eq!(value(&text, "troupe_metrics_instance_up{service=\"php-pool\",instance=\"php-pool@2\"}"), Some(1.0));
    let view = cluster.view(later);
    assert!(view.problems.iter().any(|problem| problem.level == Level::Error && problem.text.contains("gateway@1")));

    // Back under the same uid: nothing is counted twice.
    one.count(1);
    one.tell(&mut cluster, later);
    assert_eq!(value(&rendered(&cluster, later), TOTAL), Some(101.0));
    assert!(cluster.view(later).problems.is_empty());

    let end = later + FORGOTTEN_AFTER;
    cluster.tick(end, 0);
    assert_eq!(cluster.counts(end), (0, 0));
    assert!(cluster.view(end).instances.is_empty());
    assert_eq!(value(&rendered(&cluster, end), TOTAL), Some(101.0));

    // Even then nothing is counted twice, also where it tells everything anew.
    one.count(4);
    one.takes(0.1);
    one.teller.begin_anew();
    one.tell(&mut cluster, end);
    assert_eq!(cluster.counts(end), (1, 0));
    assert_eq!(value(&rendered(&cluster, end), TOTAL), Some(105.0));
    assert_eq!(value(&rendered(&cluster, end), "troupe_gateway_connections"), Some(5.0));
}

#[test]
fn an_instance_that_says_goodbye_is_not_lost() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut one = Told::new(1, "gateway", 60_000);
    one.tell(&mut cluster, now);
    one.about.leaving = true;
    one.tell(&mut cluster, now);
    assert_eq!(cluster.counts(now + LOST_AFTER), (0, 0));
}

#[test]
fn what_an_instance_counts_at_the_last_is_in_the_sums() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut one = Told::new(1, "gateway", 60_000);
    one.count(100);
    one.takes(0.1);
    one.tell(&mut cluster, now);
    one.count(7);
    one.takes(0.1);
    one.about.leaving = true;
    one.tell(&mut cluster, now);
    let text = rendered(&cluster, now);
    assert_eq!(value(&text, TOTAL), Some(107.0));
    assert_eq!(value(&text, "troupe_gateway_request_duration_seconds_count{route=\"/\"}"), Some(2.0));
    assert_eq!(cluster.counts(now), (0, 0));
    // One that had told nothing before is heard as well; one that is not understood is not asked again, as it is gone.
    let mut brief = Told::new(2, "gateway", 0);
    brief.count(3);
    brief.about.leaving = true;
    brief.tell(&mut cluster, now);
    assert_eq!(value(&rendered(&cluster, now), TOTAL), Some(110.0));
    assert_eq!(cluster.take(brief.teller.read(&brief.metrics, &brief.about).remove(0), now), Taken::default());
}

#[test]
fn an_order_is_handed_out_once_to_the_instance_it_is_for() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut told = [Told::new(1, "balancer", 60_000), Told::new(2, "balancer", 60_000)];
    told.iter_mut().for_each(|one| one.tell(&mut cluster, now));
    let unknown = cluster.order(Act::Drain, "balancer@9", "default/a", now);
    assert!(matches!(unknown, Err(Refused::Unknown(_))), "{unknown:?}");
    let id = cluster.order(Act::Drain, "balancer@2", "default/a", now).unwrap();
    let order = Order { id, act: Act::Drain, worker: "default/a".into() };
    let orders = |one: &mut Told, cluster: &mut Cluster| -> Vec<Order> {
        let parts = one.teller.read(&one.metrics, &one.about);
        parts.into_iter().flat_map(|part| cluster.take(part, now).orders).collect()
    };
    assert_eq!(orders(&mut told[0], &mut cluster), []);
    assert_eq!(orders(&mut told[1], &mut cluster), [order]);
    assert_eq!(orders(&mut told[1], &mut cluster), [], "it would be carried out twice");
    let outcome = Outcome { id, done: true, said: "drained".into() };
    told[1].about.outcomes = vec![outcome.clone()];
    told[1].tell(&mut cluster, now);
    assert_eq!(cluster.outcomes(), [outcome]);
    assert_eq!(cluster.outcomes(), []);
    // One that is silent gets none, and not without end.
    let silent = cluster.order(Act::Drain, "balancer@2", "default/a", now + SILENT_AFTER);
    assert!(matches!(silent, Err(Refused::Away(_))), "{silent:?}");
    let given = (0..1_000).filter(|_| cluster.order(Act::Drain, "balancer@1", "default/a", now).is_ok()).count();
    assert_eq!(given, MAX_ORDERS);
}

/// As in a container, where host and process id are the same again.
#[test]
fn an_instance_that_crashed_and_came_back_by_its_name_is_one() {
    let (mut cluster, start) = (Cluster::new(), Instant::now());
    let lives = |uid, uptime_ms| {
        let mut told = Told::new(uid, "balancer", uptime_ms);
        told.about.source.instance = "balancer@host:7".into();
        told
    };
    let up = "troupe_metrics_instance_up{service=\"balancer\",instance=\"balancer@host:7\"}";
    let order = |cluster: &mut Cluster, now| cluster.order(Act::Drain, "balancer@host:7", "default/a", now);
    let mut now = start;
    // The uids are in no order that would help.
    for (uid, gone) in [(2, 0), (3, 1), (1, 2)] {
        let mut told = lives(uid, 0);
        told.tell(&mut cluster, now);
        let text = rendered(&cluster, now);
        assert_eq!(text.matches(up).count(), 1, "{gone} before it: {text}");
        assert_eq!(text.matches("troupe_node_threads{").count(), 1, "{text}");
        now += LOST_AFTER;
        told.tell(&mut cluster, now);
        assert_eq!(cluster.counts(now), (1, 0), "{gone} before it");
        assert_eq!(value(&rendered(&cluster, now), up), Some(1.0));
        let view = cluster.view(now);
        assert_eq!((view.instances.len(), view.problems.len()), (1, 0), "{view:?}");
        assert!(order(&mut cluster, now).is_ok(), "{gone} before it");
        let own = told.teller.read(&told.metrics, &told.about).remove(0);
        assert_eq!(cluster.take(own, now).orders.len(), 1, "the order is for the one that lives");
        now += Duration::from_secs(1);
    }
    // Gone for good, it is lost once.
    now += LOST_AFTER;
    assert_eq!(cluster.counts(now), (0, 1));
    assert_eq!(rendered(&cluster, now).matches(up).count(), 1);
    assert_eq!(cluster.view(now).problems.len(), 1);
    assert!(matches!(order(&mut cluster, now), Err(Refused::Away(why)) if why.contains("not been heard of")));
}

#[test]
fn one_that_crashed_is_not_lost_again_when_its_successor_stops_in_order() {
    let (mut cluster, start) = (Cluster::new(), Instant::now());
    let lives = |uid, service, instance: &str| {
        let mut told = Told::new(uid, service, 60_000);
        told.about.source.instance = instance.into();
        told
    };
    let mut crashed = lives(1, "gateway", "gateway@host:7");
    crashed.count(100);
    crashed.tell(&mut cluster, start);
    // Lost as well, by another name and with another service: nobody takes the place of these.
    lives(2, "gateway", "gateway@host:8").tell(&mut cluster, start);
    lives(3, "balancer", "gateway@host:7").tell(&mut cluster, start);
    let now = start + LOST_AFTER;
    let mut successor = lives(4, "gateway", "gateway@host:7");
    successor.tell(&mut cluster, now);
    assert_eq!(cluster.counts(now), (1, 2));
    successor.count(7);
    successor.about.leaving = true;
    successor.tell(&mut cluster, now);
    assert_eq!(cluster.counts(now), (0, 2));
    let lost: Vec<_> = cluster.view(now).instances.into_iter().map(|row| (row.services, row.instance)).collect();
    let row = |service: &str, instance: &str| (vec![service.to_owned()], instance.to_owned());
    assert_eq!(lost, [row("balancer", "gateway@host:7"), row("gateway", "gateway@host:8")]);
    let text = rendered(&cluster, now);
    let up = "troupe_metrics_instance_up{service=\"gateway\",instance=\"gateway@host:7\"}";
    assert_eq!((value(&text, up), value(&text, TOTAL)), (None, Some(107.0)), "what was counted stays");

    // It was cut off and had not crashed: nothing is counted twice.
    crashed.count(1);
    crashed.connections(5.0);
    crashed.tell(&mut cluster, now);
    assert_eq!(cluster.counts(now), (1, 2));
    let text = rendered(&cluster, now);
    assert_eq!((value(&text, up), value(&text, TOTAL)), (Some(1.0), Some(108.0)));
}

#[test]
fn one_that_crashed_is_not_lost_when_its_successor_has_stopped_in_order_before_that() {
    let (mut cluster, start) = (Cluster::new(), Instant::now());
    for (uid, leaving, at) in [(1, false, start), (2, true, start + SILENT_AFTER)] {
        let mut told = Told::new(uid, "gateway", 0);
        told.about.source.instance = "gateway@host:7".into();
        told.about.leaving = leaving;
        told.tell(&mut cluster, at);
    }
    assert_eq!(cluster.counts(start + LOST_AFTER), (0, 0));
}

#[test]
fn one_that_lives_stays_when_another_of_its_name_says_goodbye() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    let mut both = [1, 2].map(|uid| {
        let mut told = Told::new(uid, "gateway", 60_000);
        told.about.source.instance = "gateway@host:7".into();
        told
    });
    both.iter_mut().for_each(|one| one.tell(&mut cluster, now));
    both[1].about.leaving = true;
    both[1].tell(&mut cluster, now);
    assert_eq!(cluster.counts(now), (1, 0));
}

#[test]
fn an_order_for_one_of_several_that_live_by_one_name_is_refused() {
    let (mut cluster, now) = (Cluster::new(), Instant::now());
    for uid in [1, 2] {
        let mut told = Told::new(uid, "balancer", 60_000);
        told.about.source.instance = "balancer@host:7".into();
        told.tell(&mut cluster, now);
    }
    let refused = cluster.order(Act::Drain, "balancer@host:7", "default/a", now);
    assert!(matches!(refused, Err(Refused::Away(why)) if why.contains("several")));
    assert_eq!(cluster.view(now).instances.len(), 2, "people see that there are two");
    assert_eq!(rendered(&cluster, now).matches("troupe_metrics_instance_up{").count(), 1);
}
