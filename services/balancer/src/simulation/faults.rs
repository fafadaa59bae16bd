//! Workers that are slow, broken, frozen, dead or coming back.

use super::*;

const SEEDS: [u64; 3] = [1, 2, 3];

#[test]
fn a_slow_worker_gets_next_to_nothing() {
    for seed in SEEDS {
        let servers = |slow: u64| {
            (0..10)
                .map(|index| {
                    server(
                        16,
                        Box::new(move |now, rng| {
                            let factor = if index == 0 && now >= 5 * SECOND { slow } else { 1 };
                            Answer::Status(200, steady(20 * MS * factor, rng))
                        }),
                    )
                })
                .collect()
        };
        let mut calm = Sim::new(seed, 1, servers(1), 2_000.0);
        calm.run(25 * SECOND);
        let mut sim = Sim::new(seed, 1, servers(50), 2_000.0);
        sim.run(25 * SECOND);
        let (from, to) = (7 * SECOND, 25 * SECOND);
        assert!(sim.share(0, from, to) <= 0.01, "share {}", sim.share(0, from, to));
        assert!(sim.percentile(99, from, to) * 2 <= calm.percentile(99, from, to) * 3);
        sim.check_invariants();
    }
}

/// One of four answers an error in 1 ms, the others work in 20 ms.
fn black_hole(seed: u64, answer: Answer) -> Sim {
    let mut servers: Vec<Server> = (0..3).map(|_| server(16, healthy(20 * MS))).collect();
    servers.push(server(16, Box::new(move |_, _| answer)));
    let mut sim = Sim::new(seed, 1, servers, 1_500.0);
    sim.run(30 * SECOND);
    sim.check_invariants();
    sim
}

#[test]
fn a_worker_that_fails_fast_attracts_nothing() {
    let answers = [
        Answer::Status(500, MS),
        Answer::Fails(Outcome::Broken, MS),
        Answer::Fails(Outcome::Unreachable, MS / 10),
        Answer::Fails(Outcome::Internal, MS),
    ];
    for (seed, answer) in SEEDS.into_iter().flat_map(|seed| answers.map(|answer| (seed, answer))) {
        let sim = black_hole(seed, answer);
        let share = sim.share(3, SECOND, 30 * SECOND);
        assert!(share <= 0.02, "{answer:?}: share {share}");
        let errors = sim.error_rate(0, 30 * SECOND);
        assert!(errors <= 0.005, "{answer:?}: error rate {errors}");
    }
}

#[test]
fn a_worker_that_says_it_is_full_gets_nothing_and_is_asked_again() {
    for seed in SEEDS {
        let mut servers: Vec<Server> = (0..3).map(|_| server(16, healthy(20 * MS))).collect();
        servers.push(server(
            16,
            Box::new(|now, rng| match now < 10 * SECOND {
                true => Answer::Fails(Outcome::Overloaded, MS),
                false => Answer::Status(200, steady(20 * MS, rng)),
            }),
        ));
        let mut sim = Sim::new(seed, 1, servers, 1_000.0);
        sim.run(30 * SECOND);
        assert!(sim.share(3, SECOND, 10 * SECOND) <= 0.02, "{}", sim.share(3, SECOND, 10 * SECOND));
        let back = sim.share(3, 20 * SECOND, 30 * SECOND);
        assert!((0.2..0.3).contains(&back), "share when it has room again: {back}");
        sim.check_invariants();
    }
}

#[test]
fn an_error_that_all_workers_make_moves_nothing() {
    for seed in SEEDS {
        let flaky = || -> Behaviour {
            Box::new(|_, rng| Answer::Status(if rng.f64() < 0.3 { 500 } else { 200 }, steady(20 * MS, rng)))
        };
        let mut sim = Sim::new(seed, 1, (0..4).map(|_| server(16, flaky())).collect(), 1_000.0);
        sim.run(20 * SECOND);
        for index in 0..4 {
            let share = sim.share(index, 0, 20 * SECOND);
            assert!((0.15..0.35).contains(&share), "share {share}");
        }
    }
}

#[test]
fn a_frozen_worker_gets_nothing_within_a_second_and_recovers() {
    for (seed, reports) in SEEDS.into_iter().flat_map(|seed| [(seed, true), (seed, false)]) {
        let (freeze, thaw) = (5 * SECOND, 20 * SECOND);
        let mut servers: Vec<Server> = (0..3).map(|_| server(64, healthy(50 * MS))).collect();
        servers.push(server(
            64,
            Box::new(move |now, rng| match (freeze..thaw).contains(&now) {
                true => Answer::Never,
                // What is inside when it freezes does not come back either.
                false if now < freeze && now + 50 * MS > freeze => Answer::Never,
                false => Answer::Status(200, steady(50 * MS, rng)),
            }),
        ));
        // Without reports, the silence of its calls must do.
        if reports {
            servers[3].silent = (freeze, thaw);
        }
        let mut sim = Sim::new(seed, 1, servers, 2_000.0);
        sim.run(14 * SECOND);
        let picks = sim.between(6 * SECOND, 10 * SECOND).filter(|record| record.server == 3).count();
        assert!(picks <= 5, "{picks} picks while frozen (reports: {reports})");
        assert!(sim.workers[0][3].slot.in_flight() <= 5, "{} in flight", sim.workers[0][3].slot.in_flight());
        sim.run(76 * SECOND);
        let share = sim.share(3, 70 * SECOND, 90 * SECOND);
        assert!(share > 0.15, "share after it thawed: {share} (reports: {reports})");
        sim.check_invariants();
    }
}

#[test]
fn a_dead_worker_is_counted_out_once_per_call() {
    for seed in SEEDS {
        let death = 5 * SECOND;
        let mut servers: Vec<Server> = (0..3).map(|_| server(16, healthy(20 * MS))).collect();
        servers.push(server(
            16,
            Box::new(move |now, rng| {
                let took = steady(20 * MS, rng);
                if now + took < death {
                    Answer::Status(200, took)
                } else {
                    Answer::Fails(Outcome::Broken, death.saturating_sub(now).max(1))
                }
            }),
        ));
        let mut sim = Sim::new(seed, 1, servers, 2_000.0);
        sim.run(5 * SECOND + 500 * MS);
        assert_eq!(sim.workers[0][3].slot.in_flight(), 0);
        assert_eq!(sim.workers[0][3].slot.state(), State::Ejected);
        sim.check_invariants();
    }
}

#[test]
fn workers_that_return_together_are_not_flooded() {
    for seed in SEEDS {
        let (out, back) = (5 * SECOND, 35 * SECOND);
        let mut servers = vec![server(16, healthy(20 * MS))];
        for _ in 0..3 {
            servers.push(server(16, healthy(20 * MS)));
        }
        for server in &mut servers[1..] {
            server.silent = (out, back);
            server.behave = Box::new(move |now, rng| match (out..back).contains(&now) {
                true => Answer::Fails(Outcome::Unreachable, MS),
                false => Answer::Status(200, steady(20 * MS, rng)),
            });
        }
        // More than the one that is left can do.
        let mut sim = Sim::new(seed, 1, servers, 1_000.0);
        sim.run(60 * SECOND);
        for index in 1..4 {
            let caps = &sim.caps[index][(back / TICK) as usize + 1..];
            assert!(caps.is_sorted(), "the ramp of worker {index}: {caps:?}");
            assert!(caps[0] <= 3 && caps[caps.len() - 1] == 16, "{caps:?}");
        }
        assert_eq!(sim.error_rate(36 * SECOND, 60 * SECOND), 0.0);
        assert!(sim.percentile(99, 46 * SECOND, 60 * SECOND) < 100 * MS);
        sim.check_invariants();
    }
}
