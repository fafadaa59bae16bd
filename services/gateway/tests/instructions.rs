//! What a hit and what a route cost, counted in instructions: beside the cheapest call there is, one that is answered from memory
//! behind the gateway's port.

use troupe_testkit::instructions::Example;

/// Instructions of one request in this mode of the example.
fn per_request(example: &Example, mode: &[&str]) -> u64 {
    let mode: Vec<String> = mode.iter().map(|word| (*word).to_owned()).collect();
    example.per_round((50, 350), |rounds| std::iter::once(rounds.to_string()).chain(mode.clone()).collect())
}

#[test]
fn a_hit_costs_much_less_than_the_cheapest_call() {
    let Some(example) = Example::find("hit") else { return };
    let (hit, call) = (per_request(&example, &[]), per_request(&example, &["uncached"]));
    println!("instructions of a hit: {hit}; of a call that memory answers: {call}");
    // The client's own are in both; unoptimised builds are mostly made of what optimising removes.
    let of_ten = if cfg!(debug_assertions) { 7 } else { 5 };
    assert!(hit * 10 <= call * of_ten, "a hit takes {hit} instructions, a call {call}");
}

/// A miss is a call and what storing its answer takes: a look-up, the place in front of others who ask, the rules, the entry.
#[test]
fn a_miss_costs_little_beside_what_any_call_does() {
    let Some(example) = Example::find("hit") else { return };
    let (miss, call) = (per_request(&example, &["miss"]), per_request(&example, &["uncached"]));
    println!("instructions of a miss: {miss}; of a call that memory answers: {call}");
    // Behind this call there is neither a balancer nor PHP, which take several times as much. What the store gives up is in it.
    assert!(miss * 10 <= call * 20, "a miss takes {miss} instructions, a call {call}");
}

#[test]
fn a_request_costs_the_same_beside_ten_routes_and_beside_ten_thousand() {
    let Some(example) = Example::find("hit") else { return };
    let [few, many] = ["10", "10000"].map(|routes| per_request(&example, &["uncached", routes]));
    println!("instructions of a call beside 10 routes: {few}; beside 10,000: {many}");
    assert!(many * 10 <= few * 11, "{few} instructions beside 10 routes, {many} beside 10,000");
}
