//! The pick's cost does not grow with the number of workers: counted in instructions, which repeat where times do not.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Instructions of one pick, reply and release among `workers`: the difference of two runs, so that starting and making
/// the workers cancel out.
fn per_pick(example: &Path, workers: usize) -> Option<u64> {
    let (few, many) = (500, 2_500);
    Some((count(example, workers, many)? - count(example, workers, few)?) / (many - few))
}

fn count(example: &Path, workers: usize, rounds: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(example)
        .args([workers.to_string(), rounds.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1));
    Some(collected.expect("callgrind says what it collected").trim().parse().expect("a number"))
}

/// Cargo builds a package's examples with its tests, beside them.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    profile.join("examples").join("pick")
}

#[test]
fn a_pick_costs_the_same_among_one_and_among_a_thousand() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let example = example();
    if !example.exists() {
        println!("skipped: {} was not built", example.display());
        return;
    }
    let costs: Vec<_> = [1, 8, 9, 1_000].map(|workers| (workers, per_pick(&example, workers))).into();
    println!("instructions per call: {costs:?}");
    let cost = |workers: usize| {
        let found = costs.iter().find(|(count, _)| *count == workers);
        found.and_then(|(_, cost)| *cost).expect("valgrind ran") as f64
    };
    // Beyond eight it is two candidates, however many there are.
    assert!(cost(1_000) <= 1.1 * cost(9), "{costs:?}");
    // Up to eight all are compared, at a few dozen instructions each; unoptimised builds need ten times as many.
    let allowed = if cfg!(debug_assertions) { 20_000.0 } else { 1_000.0 };
    assert!(cost(8) <= cost(1) + allowed, "{costs:?}");
}
