//! The word that was probably meant.

use std::cmp::Reverse;

/// The candidate that `word` most likely is a slip of, if any is near enough.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    // A third of the letters wrong is another word.
    let reach = match folded.chars().count() {
        0..=3 => 1,
        4..=7 => 2,
        _ => 3,
    };
    let distance = |candidate: &str| strsim::damerau_levenshtein(&folded, &fold(candidate));
    // Of two that are as far, the one that begins alike: slips happen late in a word.
    let likeness = |candidate: &str| Reverse((strsim::jaro_winkler(&folded, &fold(candidate)) * 1e6) as u64);
    candidates
        .into_iter()
        .filter(|candidate| distance(candidate) <= reach && distance(candidate) < candidate.chars().count())
        .min_by_key(|candidate| (distance(candidate), likeness(candidate)))
}

/// Case and the two ways to join words are not what makes names differ.
pub(super) fn fold(word: &str) -> String {
    word.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_slips_and_leaves_other_words_alone() {
        let keys = ["listen", "max_connections", "max_head", "max_body", "min"];
        for (word, meant) in [
            ("listn", Some("listen")),
            ("max-connections", Some("max_connections")),
            ("MAX_HEAD", Some("max_head")),
            ("max_haed", Some("max_head")),
            ("mni", Some("min")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys), meant, "{word}");
        }
    }
}
