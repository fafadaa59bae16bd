//! Healthy workers under load: shares, herds, queues, cold starts.

use super::*;

#[test]
fn equal_workers_get_equal_shares() {
    for (seed, rate) in [(1, 100.0), (2, 1_000.0), (3, 2_500.0)] {
        let noisy = || -> Behaviour {
            // One call in two hundred meets a hiccup of the scheduler.
            Box::new(|_, rng| Answer::Status(200, steady(20 * MS, rng) + if rng.u8(..) < 2 { 40 * MS } else { 0 }))
        };
        let mut sim = Sim::new(seed, 1, (0..4).map(|_| server(16, noisy())).collect(), rate);
        while sim.records.len() < 10_000 {
            sim.run(SECOND);
        }
        for index in 0..4 {
            let share = sim.share(index, 0, u64::MAX);
            assert!((0.2425..=0.2575).contains(&share), "at {rate}/s worker {index} got {share}");
        }
        sim.check_invariants();
    }
}

#[test]
fn a_mix_of_calls_at_low_load_is_shared_evenly() {
    const WINDOW: u64 = 60 * SECOND;
    for seed in 1..=3 {
        let mixed = || -> Behaviour {
            Box::new(|_, rng| Answer::Status(200, steady(if rng.u8(..10) == 0 { 60 * MS } else { MS }, rng)))
        };
        let mut sim = Sim::new(seed, 1, (0..4).map(|_| server(16, mixed())).collect(), 80.0);
        sim.run(5 * WINDOW);
        for (from, index) in (0..5).flat_map(|window| (0..4).map(move |index| (window * WINDOW, index))) {
            let share = sim.share(index, from, from + WINDOW);
            assert!((0.2125..=0.2875).contains(&share), "seed {seed}, from {from}: worker {index} got {share}");
        }
        sim.check_invariants();
    }
}

#[test]
fn a_worker_that_was_slow_for_a_moment_is_back_soon() {
    const SLOW: u64 = 20 * SECOND;
    const END: u64 = SLOW + 3 * SECOND;
    for seed in 1..=3 {
        let behaviour = |once: bool| -> Behaviour {
            Box::new(move |now, rng| {
                let slow = once && (SLOW..END).contains(&now);
                Answer::Status(200, steady(if slow { 100 * MS } else { 2 * MS }, rng))
            })
        };
        let mut sim = Sim::new(seed, 1, (0..4).map(|index| server(16, behaviour(index == 0))).collect(), 100.0);
        sim.run(SLOW + 60 * SECOND);
        let calls = sim.between(END, u64::MAX).filter(|call| call.server == 0);
        let back = calls.map(|call| call.started - END).min().unwrap_or(u64::MAX);
        assert!(back < 15 * SECOND, "seed {seed}: no call for {back} us");
        let share = sim.share(0, SLOW + 25 * SECOND, SLOW + 60 * SECOND);
        assert!((0.2125..=0.2875).contains(&share), "seed {seed}: share {share}");
        sim.check_invariants();
    }
}

#[test]
fn several_balancers_do_not_herd() {
    for seed in 1..=3 {
        // 70 % of ten workers with 16 slots of 20 ms.
        let rate = 0.7 * 10.0 * 16.0 / 0.02;
        let servers = || (0..10).map(|_| server(16, healthy(20 * MS))).collect();
        let mut one = Sim::new(seed, 1, servers(), rate);
        one.run(10 * SECOND);
        let mut eight = Sim::new(seed, 8, servers(), rate);
        eight.run(10 * SECOND);
        let worst = eight.skews[2..].iter().copied().fold(0.0, f64::max);
        assert!(worst <= 2.0, "the fullest worker had {worst} times the mean");
        let (from, to) = (SECOND, 10 * SECOND);
        assert!(eight.percentile(99, from, to) * 10 <= one.percentile(99, from, to) * 13);
        eight.check_invariants();
    }
}

#[test]
fn short_calls_do_not_suffer_from_long_ones() {
    for seed in 1..=3 {
        let bimodal = || -> Behaviour {
            Box::new(|_, rng| {
                let long = rng.u16(..1_000) < 10;
                Answer::Status(200, steady(if long { 1_000 * MS } else { 10 * MS }, rng))
            })
        };
        let mut sim = Sim::new(seed, 1, (0..4).map(|_| server(8, bimodal())).collect(), 960.0);
        sim.run(30 * SECOND);
        let mut short: Vec<u64> =
            sim.records.iter().map(|record| record.took).filter(|took| *took < 500 * MS).collect();
        short.sort_unstable();
        let p99 = short[short.len() * 99 / 100];
        assert!(p99 <= 24 * MS, "p99 of the short ones: {p99} us, 12 ms unloaded");
        sim.check_invariants();
    }
}

#[test]
fn a_saturated_pool_queues_and_then_refuses() {
    let mut sim = Sim::new(1, 1, vec![server(1, healthy(100 * MS)), server(1, healthy(100 * MS))], 500.0);
    sim.run(20 * SECOND);
    assert_eq!(sim.pools[0].queue.waiting(), 1_000);
    assert!(sim.refused > 1_000);
    // Both work all the time, one call each.
    let done = sim.records.len();
    assert!((390..=410).contains(&done), "{done} calls in 20 s of two workers at 10 a second");
    assert_eq!(sim.most, [1, 1]);
    sim.check_invariants();
}

#[test]
fn workers_that_appear_take_what_waits_within_their_caps() {
    for seed in 1..=3 {
        let mut servers: Vec<Server> = (0..4).map(|_| server(8, healthy(20 * MS))).collect();
        for (index, server) in servers.iter_mut().enumerate() {
            server.appears = (2 + index as u64) * SECOND;
        }
        let mut sim = Sim::new(seed, 1, servers, 300.0);
        sim.run(2 * SECOND - MS);
        assert!(sim.pools[0].queue.waiting() > 400 && sim.records.is_empty());
        sim.run(20 * SECOND);
        assert_eq!((sim.refused, sim.pools[0].queue.waiting()), (0, 0));
        assert!(sim.most.iter().all(|most| *most <= 8), "{:?}", sim.most);
        for index in 0..4 {
            let share = sim.share(index, 15 * SECOND, 22 * SECOND);
            assert!((0.22..0.28).contains(&share), "worker {index} got {share}");
        }
        sim.check_invariants();
    }
}

#[test]
fn a_first_come_call_is_served_first() {
    let mut sim = Sim::new(7, 1, vec![server(2, healthy(50 * MS))], 60.0);
    sim.run(20 * SECOND);
    let mut started: Vec<(u64, u64)> = sim.records.iter().map(|record| (record.started, record.arrived)).collect();
    started.sort_unstable();
    assert!(started.is_sorted_by_key(|(_, arrived)| *arrived));
    assert!(sim.pools[0].queue.waiting() > 0, "it must have queued");
}
