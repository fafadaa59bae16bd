//! The pick's cost does not grow with the number of workers.

use troupe_testkit::instructions::Example;

#[test]
fn a_pick_costs_the_same_among_one_and_among_a_thousand() {
    let Some(example) = Example::find("pick") else { return };
    let costs = [1, 8, 9, 1_000].map(|workers: usize| {
        // One pick, reply and release among `workers`.
        let cost = example.per_round((500, 2_500), |rounds| vec![workers.to_string(), rounds.to_string()]);
        (workers, cost as f64)
    });
    println!("instructions per call: {costs:?}");
    let [(_, of_one), (_, of_eight), (_, of_nine), (_, of_thousand)] = costs;
    // Beyond eight it is two candidates, however many there are.
    assert!(of_thousand <= 1.1 * of_nine, "{costs:?}");
    // Up to eight all are compared, at a few dozen instructions each; unoptimised builds need ten times as many.
    let allowed = if cfg!(debug_assertions) { 20_000.0 } else { 1_000.0 };
    assert!(of_eight <= of_one + allowed, "{costs:?}");
}
