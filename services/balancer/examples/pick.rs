//! What a pick costs: `pick WORKERS ROUNDS` picks and releases, and nothing else that grows with ROUNDS.
//!
//! Run it under `valgrind --tool=callgrind` with two ROUNDS and divide the difference: instructions per pick. The test
//! `tests/instructions.rs` does.

fn main() {
    let mut arguments = std::env::args().skip(1).map_while(|argument| argument.parse().ok());
    let (workers, rounds) = (arguments.next().unwrap_or(8), arguments.next().unwrap_or(1_000));
    let picked = troupe_balancer::bench::pick_and_release(workers, rounds);
    assert_eq!(picked, rounds, "every pick finds a worker");
}
