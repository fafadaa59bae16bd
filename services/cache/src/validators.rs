//! Entity tags (RFC 9110 §8.8.3) and the comparison of them.

use crate::fields::{Head, members};

/// An entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityTag<'a> {
    /// Whether it only promises that the two are as good as the same.
    pub weak: bool,
    /// What stands between the quotes.
    pub opaque: &'a [u8],
}

impl<'a> EntityTag<'a> {
    /// Reads one entity tag; nothing else may stand beside it.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let value = value.trim_ascii();
        let (weak, quoted) = match value.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, value),
        };
        let opaque = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let plain = opaque.iter().all(|&byte| byte == 0x21 || (byte > 0x22 && byte != 0x7f));
        plain.then_some(Self { weak, opaque })
    }

    /// The tag of a response, if it has just one.
    pub fn of(head: &'a impl Head) -> Option<Self> {
        let mut values = head.values("etag");
        let tag = Self::parse(values.next()?);
        if values.next().is_some() { None } else { tag }
    }

    /// §8.8.3.2: both are strong, and the same.
    pub fn strong_eq(&self, other: &EntityTag<'_>) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// §8.8.3.2: the same, weak or not.
    pub fn weak_eq(&self, other: &EntityTag<'_>) -> bool {
        self.opaque == other.opaque
    }
}

/// Whether `If-None-Match` holds `tag` or `*` (RFC 9110 §13.1.2: weak comparison). Members that are no tags match nothing.
pub fn is_listed<'a>(lines: impl Iterator<Item = &'a [u8]>, tag: Option<EntityTag<'_>>) -> bool {
    lines.flat_map(members).any(|member| {
        member == b"*"
            || match (EntityTag::parse(member), &tag) {
                (Some(listed), Some(tag)) => listed.weak_eq(tag),
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::heads::{get, response};

    fn tag(text: &str) -> Option<EntityTag<'_>> {
        EntityTag::parse(text.as_bytes())
    }

    /// RFC 9110 §8.8.3: `W/` in upper case, then a quoted text without quotes or spaces.
    #[test]
    fn tags_are_quoted() {
        assert_eq!(tag("\"a\""), Some(EntityTag { weak: false, opaque: b"a" }));
        assert_eq!(tag("W/\"a,b\""), Some(EntityTag { weak: true, opaque: b"a,b" }));
        assert_eq!(tag("\"\""), Some(EntityTag { weak: false, opaque: b"" }));
        for text in ["", "a", "\"", "\"a", "w/\"a\"", "\"a\"b\"", "\"a b\"", "'a'", "W/a"] {
            assert_eq!(tag(text), None, "{text}");
        }
    }

    /// RFC 9110 §8.8.3.2, table 3.
    #[test]
    fn comparison_is_weak_or_strong() {
        for (one, other, strong, weak) in [
            ("W/\"1\"", "W/\"1\"", false, true),
            ("W/\"1\"", "W/\"2\"", false, false),
            ("W/\"1\"", "\"1\"", false, true),
            ("\"1\"", "\"1\"", true, true),
        ] {
            let (one, other) = (tag(one).unwrap(), tag(other).unwrap());
            assert_eq!((one.strong_eq(&other), one.weak_eq(&other)), (strong, weak));
        }
    }

    /// RFC 9110 §13.1.2: lists over several lines, `*`, and members that are no tags.
    #[test]
    fn lists_of_tags_are_searched() {
        let listed = |fields: &[(&str, &str)], text| is_listed(get("/", fields).values("if-none-match"), tag(text));
        assert!(listed(&[("If-None-Match", "\"x\", W/\"a\"")], "\"a\""));
        assert!(listed(&[("If-None-Match", "\"x\""), ("If-None-Match", "\"a\"")], "W/\"a\""));
        assert!(listed(&[("If-None-Match", "\"p,q\", \"a\"")], "\"p,q\""));
        assert!(listed(&[("If-None-Match", "*")], ""));
        assert!(!listed(&[("If-None-Match", "a, \"b")], "\"a\""));
        assert!(!listed(&[], "\"a\""));
    }

    /// Two tags are none: which of them is meant is unknown.
    #[test]
    fn a_response_has_one_tag() {
        assert!(EntityTag::of(&response(200, &[("ETag", "\"a\"")])).is_some());
        assert!(EntityTag::of(&response(200, &[("ETag", "\"a\""), ("ETag", "\"b\"")])).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_tag_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (EntityTag::parse(&bytes), is_listed([&*bytes].into_iter(), tag("\"a\"")));
        }
    }
}
