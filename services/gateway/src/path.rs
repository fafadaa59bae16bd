//! The one normal form of a path. Routes, function names and later cache keys all see this form and nothing else, so
//! that no two of them can disagree about what a path means.
//!
//! What has one meaning only is brought into the form: unreserved characters are decoded (`%41` is `A`), hex digits are
//! upper case, `.` and `..` segments are resolved. What servers are known to disagree about is refused: encoded slashes,
//! backslashes and NULs, encoded dot segments, empty segments, control characters, text that is not UTF-8 (overlong
//! forms included), and paths that climb above the root.

use std::borrow::Cow;

/// Why a path has no normal form. The text is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadPath(pub(crate) &'static str);

/// Brings a path (without its query) into its normal form; a path that has it already is not copied.
pub(crate) fn normalise(path: &str) -> Result<Cow<'_, str>, BadPath> {
    if !path.starts_with('/') {
        return Err(BadPath("the path does not begin with a slash"));
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(path)?;
    resolve_dots(&decoded, path).map(Cow::Owned)
}

/// Decodes what is still encoded in a part of a normal path: what file names are looked up by.
pub(crate) fn decode(part: &str) -> Cow<'_, str> {
    if memchr::memchr(b'%', part.as_bytes()).is_none() {
        return Cow::Borrowed(part);
    }
    percent_encoding::percent_decode_str(part).decode_utf8_lossy()
}

/// Whether nothing has to be done: plain characters only, no empty or dot segment.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        if !PLAIN[usize::from(byte)] || (previous == b'/' && (byte == b'/' || byte == b'.')) {
            return false;
        }
        previous = byte;
    }
    true
}

/// Characters that stand for themselves in the normal form: `pchar` of RFC 3986 and the slash, without `%`.
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let allowed = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/";
    let mut index = 0;
    while index < allowed.len() {
        table[allowed[index] as usize] = true;
        index += 1;
    }
    table
};

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn decode_unreserved(path: &str) -> Result<String, BadPath> {
    let mut out = String::with_capacity(path.len());
    // What the path says once everything is decoded, to be checked as UTF-8.
    let mut plain = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            match byte {
                b'\\' => return Err(BadPath("the path holds a backslash")),
                0..=0x20 | 0x7f.. => return Err(BadPath("the path holds a character that has to be percent-encoded")),
                // Browsers leave a few of these as they are; encoded they mean the same.
                _ if !PLAIN[usize::from(byte)] => push_encoded(&mut out, byte),
                _ => out.push(char::from(byte)),
            }
            plain.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex)) else {
            return Err(BadPath("the path holds a percent sign without two hex digits"));
        };
        let decoded = high << 4 | low;
        match decoded {
            b'/' | b'\\' => return Err(BadPath("the path holds an encoded slash or backslash")),
            0..=0x1f | 0x7f => return Err(BadPath("the path holds an encoded control character")),
            _ if is_unreserved(decoded) => out.push(char::from(decoded)),
            _ => push_encoded(&mut out, decoded),
        }
        plain.push(decoded);
    }
    match std::str::from_utf8(&plain) {
        Ok(_) => Ok(out),
        Err(_) => Err(BadPath("the path is not UTF-8")),
    }
}

fn push_encoded(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Resolves `.` and `..` segments; refuses empty ones, and dots that came encoded, since some servers see them and
/// some do not.
fn resolve_dots(path: &str, raw: &str) -> Result<String, BadPath> {
    let dots = |path: &str| path.split('/').filter(|segment| is_dots(segment)).count();
    if dots(path) != dots(raw) {
        return Err(BadPath("the path holds encoded dot segments"));
    }
    let mut segments: Vec<&str> = Vec::new();
    let mut rest = path.get(1..).unwrap_or_default().split('/').peekable();
    while let Some(segment) = rest.next() {
        let last = rest.peek().is_none();
        match segment {
            "" if !last => return Err(BadPath("the path holds an empty segment")),
            "" => segments.push(""),
            "." | ".." => {
                if segment == ".." && segments.pop().is_none() {
                    return Err(BadPath("the path climbs above the root"));
                }
                if last {
                    segments.push("");
                }
            }
            // To servlets it is a dot segment, to others a name.
            _ if segment.split_once(';').is_some_and(|(name, _)| is_dots(name)) => {
                return Err(BadPath("the path holds a dot segment with parameters"));
            }
            _ => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in segments {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() {
        out.push('/');
    }
    Ok(out)
}

fn is_dots(segment: &str) -> bool {
    segment == "." || segment == ".."
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_has_one_meaning_gets_one_form() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61%2d", "/a-"),
            ("/%c3%a9", "/%C3%A9"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a b".replace(' ', "%20").as_str(), "/a%20b"),
            ("/a|b", "/a%7Cb"),
            ("/a;v=1/b", "/a;v=1/b"),
        ] {
            assert_eq!(normalise(path).unwrap(), normal, "{path}");
        }
    }

    #[test]
    fn what_servers_disagree_about_is_refused() {
        for path in [
            "",
            "a",
            "*",
            "//",
            "//evil.example/",
            "/a//b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/%00",
            "/%0d%0a",
            "/%7f",
            "/%2e%2e/etc",
            "/%2e/",
            "/.%2e/x",
            "/..",
            "/a/../../b",
            "/public/..;/manager",
            "/public/%2e%2e;x=1/manager",
            "/public/.;a",
            "/%",
            "/%4",
            "/%zz",
            "/%c0%af",
            "/%ff",
            "/%ed%a0%80",
            "/é",
            "/a b",
        ] {
            assert!(normalise(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(path in "/[ -~]{0,40}") {
            if let Ok(normal) = normalise(&path) {
                prop_assert_eq!(normalise(&normal).unwrap(), normal.clone());
                prop_assert!(!normal.contains("//") && !normal.contains("/../") && normal.starts_with('/'));
            }
        }

        #[test]
        fn any_text_is_survived(path in ".{0,60}") {
            let _ = normalise(&path);
        }
    }
}
