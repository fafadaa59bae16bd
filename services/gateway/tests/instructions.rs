//! What a hit costs, counted in instructions, which repeat where times do not: beside the cheapest call there is, one that is
//! answered from memory behind the gateway's port.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Instructions of one request: the difference of two runs, so that starting cancels out.
fn per_request(example: &Path, mode: &[&str]) -> u64 {
    let (few, many) = (50, 350);
    (count(example, many, mode) - count(example, few, mode)) / (many - few)
}

fn count(example: &Path, rounds: u64, mode: &[&str]) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(example)
        .arg(rounds.to_string())
        .args(mode)
        .output()
        .expect("valgrind runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1));
    collected.expect("callgrind says what it collected").trim().parse().expect("a number")
}

/// Cargo builds a package's examples with its tests, beside them.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps");
    profile.join("examples").join("hit")
}

#[test]
fn a_hit_costs_much_less_than_the_cheapest_call() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not installed");
        return;
    }
    let example = example();
    if !example.exists() {
        println!("skipped: {} was not built", example.display());
        return;
    }
    let (hit, call) = (per_request(&example, &[]), per_request(&example, &["uncached"]));
    println!("instructions of a hit: {hit}; of a call that memory answers: {call}");
    // The client's own are in both; unoptimised builds are mostly made of what optimising removes.
    let of_ten = if cfg!(debug_assertions) { 7 } else { 5 };
    assert!(hit * 10 <= call * of_ten, "a hit takes {hit} instructions, a call {call}");
}
