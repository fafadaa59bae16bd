//! Groups of stored responses: `Cache-Groups` (RFC 9875) and, as another spelling of the same, `Surrogate-Key`.

use sfv::{BareItem, List, ListEntry, Parser};

use crate::fields::Head;

/// Most groups of one response. RFC 9875 §2 wants 32 at least; pages that list other pages name hundreds.
pub const MAX_GROUPS: usize = 512;
/// Longest name of a group, in bytes. RFC 9875 §2 wants 32 at least.
pub const MAX_NAME: usize = 256;

/// The groups that a response belongs to, sorted, each once; `None` where there are more, or longer ones, than are kept: a purge of
/// one that was left out would not find the response.
pub fn of(head: &impl Head) -> Option<Box<[Box<str>]>> {
    if !head.has("cache-groups") && !head.has("surrogate-key") {
        return Some(Box::default());
    }
    let mut groups = listed(head, "cache-groups");
    for value in head.values("surrogate-key") {
        let names = value.split(|byte| byte.is_ascii_whitespace()).filter(|name| !name.is_empty());
        groups.extend(
            names
                // One that is no text cannot be named by any order either.
                .filter_map(|name| std::str::from_utf8(name).ok())
                .map(Box::from),
        );
    }
    groups.sort();
    groups.dedup();
    let kept = groups.len() <= MAX_GROUPS && groups.iter().all(|name| name.len() <= MAX_NAME);
    kept.then(|| groups.into())
}

/// The groups that a response to an unsafe request invalidates (RFC 9875 §3).
pub fn invalidated(head: &impl Head) -> Vec<Box<str>> {
    let mut groups = listed(head, "cache-group-invalidation");
    groups.truncate(MAX_GROUPS);
    groups
}

/// A list of strings; one that is malformed, as a whole or in one member, is ignored (RFC 9875 §2.1).
fn listed(head: &impl Head, name: &str) -> Vec<Box<str>> {
    let mut whole = Vec::new();
    for line in head.values(name) {
        if !whole.is_empty() {
            whole.extend_from_slice(b", ");
        }
        whole.extend_from_slice(line);
    }
    let Ok(list) = Parser::new(&whole).parse::<List>() else { return Vec::new() };
    let mut groups = Vec::new();
    for entry in &list {
        let ListEntry::Item(item) = entry else { return Vec::new() };
        let BareItem::String(group) = &item.bare_item else { return Vec::new() };
        groups.push(Box::from(group.as_str()));
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::heads::response;

    fn groups(fields: &[(&str, &str)]) -> Vec<String> {
        of(&response(200, fields)).unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    /// RFC 9875 §2: a list of strings; compared as they are, character by character.
    #[test]
    fn groups_are_strings() {
        assert_eq!(groups(&[("Cache-Groups", "\"b\", \"A\";x=1"), ("Cache-Groups", "\"b\"")]), ["A", "b"]);
        for malformed in ["a", "\"a\", b", "(\"a\")", "\"a", "1", ""] {
            assert_eq!(groups(&[("Cache-Groups", malformed)]), [""; 0], "{malformed}");
        }
    }

    /// `Surrogate-Key` means the same, separated by spaces.
    #[test]
    fn surrogate_keys_are_groups() {
        assert_eq!(groups(&[("Surrogate-Key", "a  b"), ("Cache-Groups", "\"b\", \"c\"")]), ["a", "b", "c"]);
        assert_eq!(groups(&[("Surrogate-Key", " ")]), [""; 0], "no group without a name");
    }

    /// RFC 9875 §3.
    #[test]
    fn invalidation_names_groups() {
        let head = response(200, &[("Cache-Group-Invalidation", "\"a\", \"b\"")]);
        assert_eq!(invalidated(&head), [Box::from("a"), Box::from("b")]);
    }

    #[test]
    fn groups_are_bounded() {
        let many = (0..1000).map(|n| format!("g{n}")).collect::<Vec<_>>().join(" ");
        let of = |name, value: &str| of(&response(200, &[(name, value)])).map(|groups| groups.len());
        assert_eq!(of("Surrogate-Key", &many), None, "a purge of those left out would not find it");
        assert_eq!(of("Surrogate-Key", &"x".repeat(MAX_NAME)), Some(1));
        assert_eq!(of("Surrogate-Key", &"x".repeat(MAX_NAME + 1)), None);
        assert_eq!(of("Cache-Groups", &format!("\"{}\"", "x".repeat(MAX_NAME + 1))), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_ignored(text in "[ -~]{0,80}") {
            prop_assert!(groups(&[("Cache-Groups", &text), ("Surrogate-Key", &text)]).len() <= MAX_GROUPS);
        }
    }
}
