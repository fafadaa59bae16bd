//! Header fields: lists, what is left out of the store, and what a head says of one name.

use troupe_wire::head::{RequestHead, ResponseHead};

/// A head whose fields can be read: a request's or a response's.
pub trait Head {
    /// The field lines in order, names as the ASCII bytes they are.
    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])>;

    /// All values of the field `name`, in order.
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.lines()
            .filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The first value of the field `name`.
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.lines().find(|(candidate, _)| candidate.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Whether there is a field `name`.
    fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

impl Head for RequestHead {
    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.raw_fields()
    }
}

impl Head for ResponseHead {
    fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.raw_fields()
    }
}

/// The members of a list field (RFC 9110 §5.6.1): split at commas outside of quotes, trimmed, empty ones left out.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        loop {
            let all = rest?;
            let (end, _) = comma(all);
            let (member, tail) = all.split_at(end.min(all.len()));
            rest = tail.get(1..);
            let member = member.trim_ascii();
            if !member.is_empty() {
                return Some(member);
            }
        }
    })
}

/// Whether a quoted string is still open at the end of a list: the commas behind its quote part nothing any more.
pub fn ends_in_quotes(value: &[u8]) -> bool {
    let mut rest = value;
    loop {
        let (end, quoted) = comma(rest);
        match rest.get(end + 1..) {
            Some(behind) => rest = behind,
            None => return quoted,
        }
    }
}

/// Where the first comma outside of a quoted string stands; the end when there is none, and whether that is in such a string.
fn comma(value: &[u8]) -> (usize, bool) {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return (at, false),
            _ => {}
        }
    }
    (value.len(), quoted)
}

/// Fields that are never stored (RFC 9111 §3.1), beside those that `Connection` names: they are this hop's alone.
/// `Age` is computed anew for each answer; `Troupe-Cache-Control` is for this cache and nobody behind it.
pub fn is_unstored(name: &[u8]) -> bool {
    const NAMES: [&str; 14] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "content-length",
        "age",
        "x-request-id",
        "troupe-cache-control",
    ];
    NAMES.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

/// Whether a `Connection` field of the head names `name` (RFC 9110 §7.6.1).
pub fn is_nominated(head: &impl Head, name: &[u8]) -> bool {
    head.values("connection").flat_map(members).any(|option| option.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::heads::response;

    fn listed(value: &str) -> Vec<String> {
        members(value.as_bytes()).map(|member| String::from_utf8_lossy(member).into_owned()).collect()
    }

    /// RFC 9110 §5.6.1.2: empty members are ignored; a comma inside quotes separates nothing.
    #[test]
    fn lists_are_split_outside_of_quotes() {
        assert_eq!(listed("a, b ,,c ,"), ["a", "b", "c"]);
        assert_eq!(listed("\"a,b\", W/\"c\\\",d\""), ["\"a,b\"", "W/\"c\\\",d\""]);
        assert_eq!(listed(""), [""; 0]);
        assert_eq!(listed("\"open, b"), ["\"open, b"]);
    }

    /// RFC 9111 §3.1, RFC 9110 §7.6.1: hop-by-hop fields and those that `Connection` names are not stored.
    #[test]
    fn fields_of_the_hop_are_known() {
        let head = response(200, &[("Connection", "close, X-Hop"), ("X-Hop", "1"), ("X-Kept", "1")]);
        assert!(is_nominated(&head, b"x-hop") && !is_nominated(&head, b"x-kept"));
        assert!(is_unstored(b"Keep-Alive") && is_unstored(b"TRANSFER-ENCODING") && !is_unstored(b"etag"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_split(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            for member in members(&bytes) {
                prop_assert!(!member.is_empty());
            }
        }
    }
}
