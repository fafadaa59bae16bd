use proptest::prelude::*;

use super::*;
use crate::heads::{get, response};
use crate::time::LONGEST;

fn read(value: &str) -> ResponseControl {
    ResponseControl::of(&response(200, &[("Cache-Control", value)]))
}

/// §5.2: names are case-insensitive; white space and empty members do not matter; several lines are one list.
#[test]
fn directives_are_found_in_every_spelling() {
    assert_eq!(read("MAX-AGE=60 ,, No-Store").max_age, Some(60));
    assert!(read("MAX-AGE=60 ,, No-Store").no_store);
    let two = ResponseControl::of(&response(200, &[("cache-control", "public"), ("Cache-Control", "max-age=1")]));
    assert!(two.public && two.max_age == Some(1));
}

/// §5.2: both the token and the quoted-string form of an argument are read.
#[test]
fn both_forms_of_an_argument_are_read() {
    assert_eq!(read("max-age=\"60\"").max_age, Some(60));
    assert_eq!(read("max-age=\"6\\0\"").max_age, Some(60));
    assert_eq!(read("private=x-a").withheld, [Box::from("x-a")]);
}

/// §4.2.1: what cannot be read is a lifetime of no length, not one that is absent.
#[test]
fn an_unreadable_lifetime_is_none_at_all() {
    for value in [
        "max-age",
        "max-age=",
        "max-age=-1",
        "max-age=1.5",
        "max-age=a",
        "max-age =60",
        "max-age= 60",
        "max-age=\"60",
        "max-age='60'",
    ] {
        assert_eq!(read(value).max_age, Some(0), "{value}");
    }
    assert_eq!(read("s-maxage=x").s_maxage, Some(0));
}

/// §1.2.2: a lifetime too large to represent is as long as can be.
#[test]
fn huge_lifetimes_do_not_overflow() {
    assert_eq!(read("max-age=99999999999999999999").max_age, Some(LONGEST));
}

/// §4.2.1: of several values the first one is used.
#[test]
fn the_first_of_several_lifetimes_counts() {
    assert_eq!(read("max-age=1, max-age=3600").max_age, Some(1));
    assert_eq!(read("max-age=3600, max-age=1").max_age, Some(3600));
}

/// §5.2.3: unknown directives are ignored, whatever they hold.
#[test]
fn unknown_directives_are_ignored() {
    assert_eq!(
        read("community=\"no-store, private\", max-age=5"),
        ResponseControl { max_age: Some(5), ..ResponseControl::default() }
    );
    assert_eq!(read("no-storex, xno-store, a-very-long-directive-that-nobody-knows=1"), ResponseControl::default());
}

/// §5.2.2.4 and §5.2.2.7: with a list of fields they are about those fields, without about the whole response.
#[test]
fn qualified_directives_name_fields() {
    let control = read("private=\"X-A, x-b\", no-cache=\"Set-Cookie\"");
    assert!(!control.private && !control.no_cache);
    assert_eq!(control.withheld, [Box::from("x-a"), Box::from("x-b"), Box::from("set-cookie")]);
    for whole in ["private", "private=", "private=\"\"", "private=\"a b\"", "private, private=\"x\"", "private=\"x"] {
        assert!(read(whole).private, "{whole}");
    }
}

/// A directive that restricts counts in any form; one that permits only in its right one.
#[test]
fn malformed_directives_never_permit() {
    for restricting in ["no-store=yes", "no-store \"x\"", "no-store=\"a"] {
        assert!(read(restricting).no_store, "{restricting}");
    }
    assert!(!read("public=1").public && !read("must-understand=1").must_understand);
    assert_eq!(read("stale-while-revalidate=x, stale-if-error").stale_if_error, None);
    // A quote that is never closed hides the rest, which might have been anything.
    assert_eq!(read("max-age=\"60, public").max_age, Some(0));
    for hiding in ["max-age=60, x=\"a, no-store", "max-age=60, x=\"a\\\", private", "x=\"a\"b\"c, no-store"] {
        assert!(read(hiding).no_store, "{hiding}");
    }
    assert!(!read("max-age=60, x=\"a, no-store\", y=\"\\\"\"").no_store);
}

/// §5.2.1: requests.
#[test]
fn requests_give_advice() {
    let read = |value: &str| RequestControl::of(&get("/", &[("Cache-Control", value)]));
    let control = read("no-cache, No-Store, max-age=0, min-fresh=\"5\", only-if-cached, stale-if-error=9");
    assert!(control.no_cache && control.no_store && control.only_if_cached);
    assert_eq!((control.max_age, control.min_fresh, control.stale_if_error), (Some(0), Some(5), Some(9)));
    assert_eq!((read("max-stale").max_stale, read("max-stale=7").max_stale), (Some(u32::MAX), Some(7)));
    assert_eq!((read("max-stale=x").max_stale, read("max-age=-1").max_age), (None, None));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_ignored(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut request = RequestControl::default();
        request.add_line(&bytes);
        let mut control = ResponseControl::default();
        for (name, argument) in directives(&bytes) {
            control.add(name, &argument);
        }
        prop_assert!(control.max_age.unwrap_or(0) <= LONGEST && control.withheld.len() <= MAX_LISTED);
    }

    #[test]
    fn no_store_is_found_among_anything(before in "[a-z0-9=, -]{0,40}", after in "[ -~]{0,40}") {
        let line = format!("{before},no-store,{after}");
        prop_assert!(directives(line.as_bytes()).any(|(name, _)| name == b"no-store"));
    }
}
