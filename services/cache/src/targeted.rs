//! Targeted cache control (RFC 9213): `Troupe-Cache-Control` for this cache, `CDN-Cache-Control` for all shared caches
//! that a site runs for itself. The first one that is there and well-formed stands in for `Cache-Control` and `Expires`.

use std::borrow::Cow;

use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::control::{Argument, ResponseControl};
use crate::fields::Head;

/// The target list (RFC 9213 §2.2), most specific first.
pub const TARGETS: [&str; 2] = [OWN, "cdn-cache-control"];

/// The field that speaks to this cache alone.
pub const OWN: &str = "troupe-cache-control";

/// Reads the field that applies. A field that is empty or no dictionary counts as absent (RFC 9213 §2.1).
pub fn of(head: &impl Head) -> Option<ResponseControl> {
    TARGETS.iter().find_map(|name| one(head, name))
}

/// Reads the field `name` alone.
pub fn one(head: &impl Head, name: &str) -> Option<ResponseControl> {
    let mut lines = head.values(name);
    let first = lines.next()?;
    let mut whole = Cow::Borrowed(first);
    for line in lines {
        // RFC 9651 §4.2: lines are joined before they are parsed.
        whole.to_mut().extend_from_slice(b", ");
        whole.to_mut().extend_from_slice(line);
    }
    let dictionary = Parser::new(&*whole).parse::<Dictionary>().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut control = ResponseControl::default();
    for (key, entry) in &dictionary {
        // What is of a wrong type is malformed: it restricts, but never permits.
        let argument = match entry {
            ListEntry::Item(item) => match &item.bare_item {
                BareItem::Boolean(true) => Argument::Absent,
                BareItem::Boolean(false) => continue,
                BareItem::Integer(number) => Argument::Text(Cow::Owned(number.to_string().into_bytes())),
                BareItem::String(text) if key.as_str() == "private" || key.as_str() == "no-cache" => {
                    Argument::Text(Cow::Owned(text.as_str().as_bytes().to_vec()))
                }
                _ => Argument::Malformed,
            },
            ListEntry::InnerList(_) => Argument::Malformed,
        };
        control.add(key.as_str().as_bytes(), &argument);
    }
    Some(control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::heads::response;

    fn read(value: &str) -> Option<ResponseControl> {
        of(&response(200, &[("CDN-Cache-Control", value)]))
    }

    /// RFC 9213 §2.1: the field is a dictionary; one that is empty or malformed is as good as absent.
    #[test]
    fn a_field_that_is_no_dictionary_is_absent() {
        assert_eq!(read("max-age=60").and_then(|control| control.max_age), Some(60));
        for value in ["", "max-age=60 no-store", "max-age=", "MAX-AGE=60", "max-age=60,", "&", "max-age=\"60"] {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(of(&response(200, &[("Cache-Control", "max-age=60")])), None);
    }

    /// RFC 9213 §2.1: a directive of a wrong type never makes a response fresh.
    #[test]
    fn a_wrong_type_is_no_lifetime() {
        for value in [
            "max-age=60.5",
            "max-age=\"60\"",
            "max-age=ten",
            "max-age",
            "max-age=-60",
            "max-age=(60)",
            "max-age=:aGk=:",
        ] {
            assert_eq!(read(value).and_then(|control| control.max_age), Some(0), "{value}");
        }
        assert!(read("max-age=60;x=1, unknown=?1").is_some_and(|control| control.max_age == Some(60)));
        // RFC 9651 §3.2: of a key that stands twice the last one counts.
        assert_eq!(read("max-age=60, max-age=5").and_then(|control| control.max_age), Some(5));
    }

    /// RFC 9213 §2: flags are booleans.
    #[test]
    fn flags_are_booleans() {
        let control = read("no-store, no-cache=?0, private=\"x-a\"").unwrap();
        assert!(control.no_store && !control.no_cache && !control.private);
        assert_eq!(control.withheld, [Box::from("x-a")]);
    }

    /// RFC 9213 §2.2: the first field of the target list that is valid applies, whatever the order in the head.
    #[test]
    fn the_most_specific_target_applies() {
        let head = |own: &str| response(200, &[("CDN-Cache-Control", "max-age=10"), ("Troupe-Cache-Control", own)]);
        assert_eq!(of(&head("max-age=20")).and_then(|control| control.max_age), Some(20));
        assert_eq!(of(&head("max-age=")).and_then(|control| control.max_age), Some(10));
        let split = response(200, &[("CDN-Cache-Control", "max-age=10"), ("CDN-Cache-Control", "no-store")]);
        assert!(of(&split).is_some_and(|control| control.no_store && control.max_age == Some(10)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_ignored(text in "[ -~]{0,80}", shape in "[a-z-]{1,8}=[0-9\"?:.()]{0,8}") {
            let _ = (read(&text), read(&shape));
        }
    }
}
