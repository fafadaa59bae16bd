//! `Vary` (RFC 9111 §4.1): which requests a stored response answers beside the one that it was made for.

use bytes::Bytes;
use troupe_wire::head::{RequestHead, ResponseHead};

use crate::fields::{Head, members};

/// Most fields that a response may vary on. A response that names more is not stored: hardly two requests would be
/// answered by it.
const MAX_FIELDS: usize = 16;
/// The field that every call has a value of its own for, which its head does not have: what varies on it answers no other
/// request.
const OF_ONE_CALL: &[u8] = b"traceparent";

/// The fields of a request that a stored response was made for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection(Box<[Selected]>);

/// One field, by lower-case name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Selected {
    name: Box<str>,
    /// The value as it came, when there was just one line of it: what most requests are compared with.
    raw: Option<Bytes>,
    /// The value in its normal form; none when the request has no such field.
    normal: Option<Box<[u8]>>,
}

impl Selection {
    /// What `response` was selected by; `None` when it answers no other request (`*`, or what differs from call to call).
    pub fn of(request: &RequestHead, response: &ResponseHead) -> Option<Self> {
        let mut selected: Vec<Selected> = Vec::new();
        for member in response.values("vary").flat_map(members) {
            let unanswerable = member == b"*" || member.eq_ignore_ascii_case(OF_ONE_CALL);
            if unanswerable || !member.iter().all(|&byte| troupe_wire::head::is_token(byte)) {
                return None;
            }
            let name = String::from_utf8_lossy(member).to_ascii_lowercase();
            if selected.iter().any(|known| *known.name == *name) {
                continue;
            }
            if selected.len() >= MAX_FIELDS {
                return None;
            }
            let raw = only(request, &name).map(Bytes::copy_from_slice);
            let normal = normal(request, &name);
            selected.push(Selected { name: name.into(), raw, normal });
        }
        selected.sort_by(|one, other| one.name.cmp(&other.name));
        Some(Self(selected.into()))
    }

    /// Whether a request is one that the response answers.
    pub fn fits(&self, request: &RequestHead) -> bool {
        self.0.iter().all(|field| {
            let same = field.raw.is_some() && only(request, &field.name) == field.raw.as_deref();
            same || normal(request, &field.name) == field.normal
        })
    }

    /// Whether it answers every request of its URL.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What tells the variant that `request` asks for from others that vary on the same fields: part of a key.
    pub fn variant_of(&self, request: &RequestHead) -> Vec<u8> {
        variant_of(self.names(), request)
    }

    /// The same for all requests that it answers, and no others of those that vary on the same fields.
    pub fn variant(&self) -> Vec<u8> {
        variant(self.0.iter().map(|field| (&*field.name, field.normal.as_deref())))
    }

    /// The names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|field| &*field.name)
    }

    /// Name, value as it came and value in normal form of each field.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (&str, Option<&[u8]>, Option<&[u8]>)> {
        self.0.iter().map(|field| (&*field.name, field.raw.as_deref(), field.normal.as_deref()))
    }

    /// Puts together what [`Selection::parts`] took apart.
    pub(crate) fn of_parts<'a>(parts: impl Iterator<Item = (&'a str, Option<&'a [u8]>, Option<&'a [u8]>)>) -> Self {
        let selected = parts.take(MAX_FIELDS).map(|(name, raw, normal)| Selected {
            name: name.into(),
            raw: raw.map(Bytes::copy_from_slice),
            normal: normal.map(Box::from),
        });
        Self(selected.collect())
    }

    /// Bytes that it takes in memory.
    pub fn weight(&self) -> usize {
        let one = |field: &Selected| {
            size_of::<Selected>()
                + field.name.len()
                + field.raw.as_ref().map_or(0, Bytes::len)
                + field.normal.as_ref().map_or(0, |value| value.len())
        };
        self.0.iter().map(one).sum()
    }
}

/// What tells the variant that `request` asks for from others that vary on the same fields, by these names in their order.
pub fn variant_of<'a>(names: impl Iterator<Item = &'a str>, request: &RequestHead) -> Vec<u8> {
    variant(names.map(|name| (name, normal(request, name))))
}

fn variant<'a>(fields: impl Iterator<Item = (&'a str, Option<impl AsRef<[u8]>>)>) -> Vec<u8> {
    let mut variant = Vec::new();
    for (name, value) in fields {
        variant.extend_from_slice(name.as_bytes());
        match value {
            Some(value) => {
                variant.push(b'=');
                variant.extend_from_slice(value.as_ref());
            }
            None => variant.push(b'!'),
        }
        variant.push(b'\n');
    }
    variant
}

/// What the field `name` says of a request beyond its head when it is passed on: from whom it is, and how it came. All else that is
/// added there (`Host`, `X-Forwarded-Host`, `X-Forwarded-Proto`) is in the key.
fn added<'a>(request: &'a RequestHead, name: &str) -> Option<&'a str> {
    match name {
        "x-forwarded-for" => Some(request.remote_addr()),
        "via" => Some(request.version().as_str()),
        _ => None,
    }
}

/// The field's value, when just one line has it and nothing is added.
fn only<'a>(request: &'a RequestHead, name: &'a str) -> Option<&'a [u8]> {
    if added(request, name).is_some() {
        return None;
    }
    let mut values = request.values(name);
    let value = values.next()?;
    if values.next().is_some() { None } else { Some(value) }
}

/// A field's value with everything taken out that does not change its meaning: white space around commas and, for fields
/// that negotiate, case, white space and the spelling of preferences (RFC 9110 §12.4.2). What is preferred stands first; the
/// codings of `Accept-Encoding` have no other order, but that of languages with the same weight has a meaning to some servers
/// and stays.
fn normal(request: &RequestHead, name: &str) -> Option<Box<[u8]>> {
    let negotiates = matches!(name, "accept" | "accept-charset" | "accept-encoding" | "accept-language");
    let mut there = false;
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for value in request.values(name) {
        there = true;
        for member in members(value) {
            parts.push(match negotiates {
                true => {
                    member.iter().filter(|byte| !matches!(byte, b' ' | b'\t')).map(u8::to_ascii_lowercase).collect()
                }
                false => member.to_vec(),
            });
        }
    }
    if let Some(added) = added(request, name) {
        there = true;
        parts.push(added.as_bytes().to_vec());
    }
    if negotiates {
        rank(&mut parts);
    }
    if name == "accept-encoding" {
        parts.sort();
        parts.dedup();
    }
    there.then(|| parts.join(&b',').into())
}

/// Writes weights in one way and brings what has them in the order of preference; leaves all as it is where one cannot be read.
fn rank(parts: &mut [Vec<u8>]) {
    let mut weights = Vec::with_capacity(parts.len());
    for part in parts.iter() {
        let at = part.windows(3).rposition(|three| three == b";q=");
        let Some(at) = at else {
            weights.push((1000, part.len()));
            continue;
        };
        let Some(weight) = part.get(at + 3..).and_then(thousandths) else { return };
        weights.push((weight, at));
    }
    let mut ranked: Vec<_> = weights.into_iter().zip(parts.iter_mut().map(std::mem::take)).collect();
    // Stable: those of one weight keep their order.
    ranked.sort_by_key(|((weight, _), _)| std::cmp::Reverse(*weight));
    for (place, ((weight, at), mut part)) in parts.iter_mut().zip(ranked) {
        part.truncate(at);
        if weight < 1000 {
            part.extend_from_slice(format!(";q={weight:04}").as_bytes());
        }
        *place = part;
    }
}

/// A weight (RFC 9110 §12.4.2) in thousandths.
fn thousandths(text: &[u8]) -> Option<u32> {
    let (whole, digits) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let mut weight = u32::from(whole - b'0');
    for place in 0..3 {
        let digit = digits.get(place).copied().unwrap_or(b'0');
        weight = weight * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use troupe_wire::head::{RequestHeadBuilder, RequestParts, Scheme, Version};

    use super::*;
    use crate::heads::{get, response};

    fn fits(vary: &[(&str, &str)], stored: &[(&str, &str)], asked: &[(&str, &str)]) -> bool {
        Selection::of(&get("/", stored), &response(200, vary)).is_some_and(|selection| selection.fits(&get("/", asked)))
    }

    /// §4.1: `*` anywhere, alone or among others, over several lines, fits nothing.
    #[test]
    fn a_star_never_fits() {
        for vary in
            [&[("Vary", "*")][..], &[("Vary", "accept, *")], &[("Vary", "accept"), ("Vary", "*")], &[("Vary", "a b")]]
        {
            assert!(!fits(vary, &[], &[]), "{vary:?}");
        }
    }

    /// What is sent on is what counts, also where the client did not send it: the address, which a client cannot make up, how
    /// the request came, and the span of the call.
    #[test]
    fn what_is_added_on_the_way_has_to_match() {
        let from = |remote_addr, version, fields: &[(&str, &str)]| {
            let mut builder = RequestHeadBuilder::default();
            for (name, value) in fields {
                builder.field(name, value.as_bytes()).unwrap();
            }
            let parts = RequestParts {
                version,
                scheme: Scheme::Http,
                method: "GET",
                target: "/",
                authority: "a.example",
                remote_addr,
                remote_port: "1",
                local_addr: "192.0.2.2",
                local_port: "80",
            };
            builder.finish(&parts).unwrap()
        };
        let proxy = [("x-forwarded-for", "192.0.2.1, 10.0.0.1")];
        let one = from("192.0.2.1", Version::Http11, &[]);
        for (name, other) in [
            ("X-Forwarded-For", from("192.0.2.7", Version::Http11, &[])),
            ("X-Forwarded-For", from("192.0.2.1", Version::Http11, &proxy)),
            ("Via", from("192.0.2.1", Version::Http2, &[])),
            ("Via", from("192.0.2.1", Version::Http11, &[("via", "1.1 edge")])),
        ] {
            let selection = Selection::of(&one, &response(200, &[("Vary", name)])).unwrap();
            let same = from("192.0.2.1", Version::Http11, &[("x-a", "1")]);
            assert!(selection.fits(&same) && selection.variant_of(&same) == selection.variant(), "{name}");
            assert!(!selection.fits(&other) && selection.variant_of(&other) != selection.variant(), "{name}");
        }
        let proxied =
            Selection::of(&from("192.0.2.1", Version::Http11, &proxy), &response(200, &[("Vary", "x-forwarded-for")]));
        assert!(
            !proxied.unwrap().fits(&from("192.0.2.7", Version::Http11, &proxy)),
            "the field alone does not say it all"
        );
        assert!(Selection::of(&one, &response(200, &[("Vary", "accept, TraceParent")])).is_none());
    }

    /// §4.1: all nominated fields match; names in any case, on several lines, with empty members.
    #[test]
    fn every_named_field_has_to_match() {
        let vary = &[("Vary", "X-A,, "), ("vary", "x-b, X-A")];
        assert!(fits(vary, &[("x-a", "1"), ("x-b", "2")], &[("X-B", "2"), ("X-A", "1")]));
        assert!(!fits(vary, &[("x-a", "1"), ("x-b", "2")], &[("x-a", "1"), ("x-b", "3")]));
        assert!(fits(&[], &[("x-a", "1")], &[("x-a", "2")]));
        assert!(fits(&[("Vary", "")], &[("x-a", "1")], &[]));
    }

    /// §4.1: a field that is absent matches only where it is absent.
    #[test]
    fn absent_matches_absent() {
        let vary = &[("Vary", "x-a")];
        assert!(fits(vary, &[], &[]));
        assert!(!fits(vary, &[], &[("x-a", "")]));
        assert!(!fits(vary, &[("x-a", "1")], &[]));
    }

    /// §4.1: values may be normalised where that keeps their meaning.
    #[test]
    fn what_means_the_same_matches() {
        let encoding = &[("Vary", "Accept-Encoding")];
        assert!(fits(encoding, &[("accept-encoding", "gzip, br")], &[("accept-encoding", "BR,gzip")]));
        assert!(!fits(encoding, &[("accept-encoding", "gzip")], &[("accept-encoding", "gzip;q=0")]));
        let language = &[("Vary", "accept-language")];
        assert!(fits(language, &[("accept-language", "de, en;q=0.5")], &[("accept-language", "DE,en; q=0.5")]));
        assert!(!fits(language, &[("accept-language", "de, en")], &[("accept-language", "en, de")]));
        let other = &[("Vary", "x-a")];
        assert!(fits(other, &[("x-a", "1, 2")], &[("x-a", "1"), ("x-a", "2")]));
        assert!(!fits(other, &[("x-a", "a")], &[("x-a", "A")]));
    }

    /// §4.1 and RFC 9110 §12.4.2: the same preferences are the same variant, however they are written; others are not.
    #[test]
    fn the_same_preferences_match() {
        let same = |name: &str, stored: &str, asked: &str| fits(&[("Vary", name)], &[(name, stored)], &[(name, asked)]);
        assert!(same("accept-language", "de, en;q=0.5", "en;q=0.500, de;q=1.0"));
        assert!(same("accept", "text/html, */*;q=0.1", "*/*; q=0.10, text/html;q=1"));
        assert!(same("accept-encoding", "br;q=1, gzip;q=0.8", "gzip;q=0.80, br"));
        assert!(!same("accept-language", "de, en;q=0.5", "en, de;q=0.5"));
        assert!(!same("accept-language", "de, en", "en, de"), "of one weight, the order may mean something");
        assert!(!same("accept-encoding", "gzip, br;q=0.5", "gzip, br"));
        assert!(
            !same("accept-language", "de;q=0.5, en", "de;q=0.50, en;q=2"),
            "what cannot be read is compared as it is"
        );
        assert!(!same("x-a", "a;q=1", "a"), "other fields have no weights that are known here");
    }

    /// RFC 9110 §12.4.2.
    #[test]
    fn weights_are_read() {
        for (text, weight) in
            [("0", 0), ("1", 1000), ("1.", 1000), ("0.5", 500), ("0.05", 50), ("0.999", 999), ("1.000", 1000)]
        {
            assert_eq!(thousandths(text.as_bytes()), Some(weight), "{text}");
        }
        for text in ["", "2", "1.001", "0.1234", "0,5", ".5", "0.x", "-0", "0.5;a=1"] {
            assert_eq!(thousandths(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn variants_have_keys_of_their_own() {
        let selection = Selection::of(&get("/", &[]), &response(200, &[("Vary", "x-a, x-b")])).unwrap();
        let key = |fields: &[(&str, &str)]| selection.variant_of(&get("/", fields));
        assert_eq!(selection.variant(), key(&[]));
        assert_ne!(key(&[("x-a", "1")]), key(&[("x-b", "1")]));
        assert_ne!(key(&[("x-a", "")]), key(&[]));
        assert_eq!(key(&[("x-a", "1"), ("y", "2")]), key(&[("x-a", "1")]));
    }
}
