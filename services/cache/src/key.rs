//! Cache keys: scheme, host, normalised path and query, always all of them.

use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use quick_cache::Equivalent;
use troupe_wire::head::{RequestHead, Scheme};

/// Longest host that a key holds (RFC 1035 §2.3.4, with brackets and a port). What is longer is not cached.
const MAX_HOST: usize = 280;

/// Hashes keys in tables: seeded, and quick for a number, which is all of a key that is hashed there.
pub type KeyHasher = quick_cache::DefaultHashBuilder;

/// What texts are hashed with, once for each key; seeded, once for each process.
static TEXTS: LazyLock<KeyHasher> = LazyLock::new(KeyHasher::default);

/// What a stored response is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Of the rest: tables are asked about a key a dozen times before its response is stored.
    hash: u64,
    scheme: Scheme,
    /// Bytes of the host.
    host_len: usize,
    /// Host and port, in lower case, without the scheme's own port; and path and query.
    text: Box<str>,
}

/// A key that is looked for, made of parts of the request.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    hash: u64,
    scheme: Scheme,
    host: &'a str,
    target: &'a str,
}

/// Room for a host in lower case.
#[derive(Debug)]
pub struct HostBuffer([u8; MAX_HOST]);

impl Default for HostBuffer {
    fn default() -> Self {
        Self([0; MAX_HOST])
    }
}

impl<'a> Sought<'a> {
    /// The key of a request whose path is in normal form; `None` when its host is no host that is cached.
    pub fn of(request: &'a RequestHead, buffer: &'a mut HostBuffer) -> Option<Self> {
        Self::new(request.scheme(), request.authority(), request.target(), buffer)
    }

    /// The key of a URL's parts.
    pub fn new(scheme: Scheme, authority: &str, target: &'a str, buffer: &'a mut HostBuffer) -> Option<Self> {
        let standard = match scheme {
            Scheme::Http => ":80",
            Scheme::Https => ":443",
        };
        let authority = authority.strip_suffix(standard).unwrap_or(authority);
        let place = buffer.0.get_mut(..authority.len())?;
        place.copy_from_slice(authority.as_bytes());
        place.make_ascii_lowercase();
        let host = std::str::from_utf8(place).ok()?;
        Some(Self { hash: hash(scheme, host, target), scheme, host, target })
    }

    /// Its hash, as [`Key::hashed`].
    pub fn hashed(&self) -> u64 {
        self.hash
    }

    /// The key as the store keeps it.
    pub fn to_key(self) -> Key {
        Key::new(self.hash, self.scheme, self.host, self.target)
    }
}

impl Key {
    /// A key of parts in the form that keys have.
    pub fn of_parts(scheme: Scheme, host: &str, target: &str) -> Self {
        Self::new(hash(scheme, host, target), scheme, host, target)
    }

    fn new(hash: u64, scheme: Scheme, host: &str, target: &str) -> Self {
        Self { hash, scheme, host_len: host.len(), text: [host, target].concat().into() }
    }

    /// Its hash, for what is divided by keys.
    pub fn hashed(&self) -> u64 {
        self.hash
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host and port.
    pub fn host(&self) -> &str {
        self.text.get(..self.host_len).unwrap_or_default()
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        self.text.get(self.host_len..).unwrap_or_default()
    }

    /// Whether both are of one origin (RFC 6454): what may invalidate each other.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host() == other.host()
    }

    /// Bytes that it takes in memory.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.host(), self.target())
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

fn hash(scheme: Scheme, host: &str, target: &str) -> u64 {
    // The separator of `str::hash` keeps host and target apart.
    TEXTS.hash_one((scheme == Scheme::Https, host, target))
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.hash == key.hash && self.scheme == key.scheme && self.host == key.host() && self.target == key.target()
    }
}

impl Equivalent<Arc<Key>> for Sought<'_> {
    fn equivalent(&self, key: &Arc<Key>) -> bool {
        Equivalent::<Key>::equivalent(self, key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::DefaultHasher;

    use super::*;
    use crate::heads::request;

    fn key(authority: &str, target: &str) -> Key {
        Sought::of(&request("GET", authority, target, &[]), &mut HostBuffer::default()).unwrap().to_key()
    }

    /// RFC 9110 §4.2.3: hosts are case-insensitive, and the scheme's own port may be left out.
    #[test]
    fn hosts_are_normalised() {
        assert_eq!(key("A.Example:80", "/x"), key("a.example", "/x"));
        assert_ne!(key("a.example:8080", "/x"), key("a.example", "/x"));
        assert_eq!(key("A.Example", "/x?Y").to_string(), "http://a.example/x?Y");
    }

    /// RFC 9111 §2 and §7.1: no two requests that a server may tell apart share a key.
    #[test]
    fn host_path_and_query_are_always_in_the_key() {
        let keys = [
            key("a", "/x"),
            key("b", "/x"),
            key("a", "/X"),
            key("a", "/x?"),
            key("a", "/x?a=1&b=2"),
            key("a", "/x?b=2&a=1"),
            key("a/x", "/"),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(index + 1).all(|other| one != other), "{one}");
        }
    }

    #[test]
    fn what_is_looked_for_hashes_as_what_is_kept() {
        let head = request("GET", "A.example", "/a?b", &[]);
        let mut buffer = HostBuffer::default();
        let sought = Sought::of(&head, &mut buffer).unwrap();
        let hashed = |value: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            value(&mut hasher);
            hasher.finish()
        };
        let kept = sought.to_key();
        assert!(Equivalent::<Key>::equivalent(&sought, &kept));
        assert_eq!(hashed(&|hasher| sought.hash(hasher)), hashed(&|hasher| kept.hash(hasher)));
        assert!(Sought::new(Scheme::Http, &"x".repeat(MAX_HOST + 1), "/", &mut HostBuffer::default()).is_none());
    }
}
