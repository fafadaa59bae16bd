//! Keys and selectors, as messages between services say them.

use sha2::{Digest, Sha256};
use troupe_contracts::cache::purge::Target;
use troupe_contracts::cache::{LeaseName, Url};
use troupe_wire::head::Scheme;

use crate::key::Key;
use crate::store::Selector;

impl From<&Key> for Url {
    fn from(key: &Key) -> Self {
        let https = key.scheme() == Scheme::Https;
        Self { https, host: key.host().to_owned(), target: key.target().to_owned() }
    }
}

impl From<&Url> for Key {
    fn from(url: &Url) -> Self {
        Self::of_parts(if url.https { Scheme::Https } else { Scheme::Http }, &url.host, &url.target)
    }
}

impl From<&Selector> for Target {
    fn from(selector: &Selector) -> Self {
        match selector {
            Selector::Url(key) => Self::Url(key.into()),
            Selector::Prefix(key) => Self::Prefix(key.into()),
            Selector::Host(host) => Self::Host(host.as_ref().to_owned()),
            Selector::Group(group, origin) => Self::Group(group.as_ref().to_owned(), origin.as_ref().map(Url::from)),
            Selector::All => Self::All,
        }
    }
}

/// What a purge is about; `None`: about nothing.
pub fn selector(target: &Target) -> Option<Selector> {
    Some(match target {
        Target::Nothing => return None,
        Target::Url(url) => Selector::Url(url.into()),
        Target::Prefix(url) => Selector::Prefix(url.into()),
        Target::Host(host) => Selector::Host(host.as_str().into()),
        Target::Group(group, origin) => Selector::Group(group.as_str().into(), origin.as_ref().map(Key::from)),
        Target::All => Selector::All,
    })
}

/// A short name for `parts`, which nobody can find other parts for.
pub(crate) fn short_name(parts: &[&[u8]]) -> LeaseName {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut name = LeaseName::default();
    let whole = hash.finalize();
    name.iter_mut().zip(whole.iter()).for_each(|(to, from)| *to = *from);
    name
}

/// The short name of a URL's variant.
pub(crate) fn url_name(url: &Url, variant: &[u8]) -> LeaseName {
    short_name(&[&[u8::from(url.https)], url.host.as_bytes(), url.target.as_bytes(), variant])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_survive_being_said() {
        let key = Key::of_parts(Scheme::Https, "a.example", "/a?b");
        for one in [
            Selector::Url(key.clone()),
            Selector::Prefix(key.clone()),
            Selector::Host("a".into()),
            Selector::Group("g".into(), None),
            Selector::Group("g".into(), Some(key)),
            Selector::All,
        ] {
            assert_eq!(selector(&Target::from(&one)), Some(one));
        }
        assert_eq!(selector(&Target::Nothing), None);
    }

    #[test]
    fn names_tell_parts_apart() {
        let url = |host: &str, target: &str| Url { https: false, host: host.to_owned(), target: target.to_owned() };
        let names = [
            url_name(&url("a", "/b"), b""),
            url_name(&url("a/", "b"), b""),
            url_name(&url("a", "/"), b"b"),
            url_name(&Url { https: true, ..url("a", "/b") }, b""),
        ];
        for (index, one) in names.iter().enumerate() {
            assert!(names.iter().skip(index + 1).all(|other| one != other), "{index}");
        }
        assert_eq!(url_name(&url("a", "/b"), b""), url_name(&url("a", "/b"), b""));
    }
}
