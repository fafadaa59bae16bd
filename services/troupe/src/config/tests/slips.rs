use troupe_node::config::Sources;

use super::super::document::{bare_or_quoted, inline};
use super::super::load;
use super::leaves;

/// Every way to get one letter of a word wrong.
fn slips(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let mut slips = Vec::new();
    for at in 0..letters.len() {
        let (before, after) = letters.split_at(at);
        let text = |parts: [&[char]; 3]| parts.concat().iter().collect::<String>();
        slips.push(text([before, &[], &after[1..]]));
        slips.push(text([before, &['q'], &after[1..]]));
        slips.push(text([before, &['q'], after]));
        if let [a, b, rest @ ..] = after {
            slips.push(text([before, &[*b, *a], rest]));
        }
    }
    slips.sort();
    slips.dedup();
    slips.retain(|slip| slip != word && !slip.is_empty());
    slips
}

#[test]
fn a_slip_in_any_key_is_an_error_that_knows_the_key() {
    let (mut told, mut all, mut missed) = (0, 0, Vec::new());
    for (path, default) in leaves() {
        let (last, before) = path.split_last().unwrap();
        // Names of pools are free, so the slip is in the section or in the key.
        let mut cases: Vec<(Vec<String>, &str)> =
            slips(last).into_iter().map(|slip| ([before, &[slip]].concat(), last.as_str())).collect();
        cases
            .extend(slips(&path[0]).into_iter().take(3).map(|slip| ([&[slip], &path[1..]].concat(), path[0].as_str())));
        // One load takes as many as a report tells, for each is a problem of its own.
        for cases in cases.chunks(100) {
            let set = cases.iter().map(|(path, _)| {
                let keys: Vec<String> = path.iter().map(|key| bare_or_quoted(key)).collect();
                format!("{}={}", keys.join("."), inline(&default))
            });
            let sources = Sources { set: set.collect(), directory: "/nowhere".into(), ..Sources::default() };
            let problems = load(&sources).unwrap_err().records();
            for ((_, meant), set) in cases.iter().zip(&sources.set) {
                all += 1;
                let place = format!("--set {set}");
                let record =
                    problems.iter().find(|record| record.place == place).unwrap_or_else(|| panic!("{set} is accepted"));
                if record.suggestion.as_deref() == Some(meant) {
                    told += 1;
                } else {
                    missed.push(format!("{set}: {:?}", record.suggestion));
                }
            }
        }
    }
    assert!(all > 1_000, "only {all} slips");
    assert!(told * 100 >= all * 95, "{told} of {all} slips were understood; not: {missed:#?}");
}
