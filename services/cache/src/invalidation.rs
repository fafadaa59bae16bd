//! What an unsafe request makes untrue (RFC 9111 §4.4, RFC 9875 §3).

use troupe_wire::head::{RequestHead, ResponseHead};

use crate::fields::Head;
use crate::groups;
use crate::key::{HostBuffer, Key, Sought};

/// What is to be invalidated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invalidated {
    /// URLs: the request's own, and those of the same origin that the response names.
    pub keys: Vec<Key>,
    /// Groups, within the origin of the first key.
    pub groups: Vec<Box<str>>,
}

/// Whether a method may change something (RFC 9110 §9.2.1); an unknown one may.
pub fn is_unsafe(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE")
}

/// What `response` to an unsafe `request` invalidates; nothing when it is an error. `normalise` brings the path of a URL
/// into the form that keys have; what has none names nothing that is stored.
pub fn of(
    request: &RequestHead,
    response: &ResponseHead,
    normalise: impl Fn(&str) -> Option<String>,
) -> Option<Invalidated> {
    if !is_unsafe(request.method()) || !(200..400).contains(&response.status()) {
        return None;
    }
    let own = Sought::of(request, &mut HostBuffer::default())?.to_key();
    let mut invalidated = Invalidated { keys: Vec::with_capacity(1), groups: groups::invalidated(response) };
    for name in ["location", "content-location"] {
        let url = response.first(name).and_then(|value| std::str::from_utf8(value).ok());
        if let Some(key) = url.and_then(|url| resolve(request, url, &normalise))
            && key.same_origin(&own)
            && key != own
        {
            invalidated.keys.push(key);
        }
    }
    invalidated.keys.insert(0, own);
    Some(invalidated)
}

/// The key of a URL reference (RFC 3986 §5) in an answer to `request`.
fn resolve(request: &RequestHead, url: &str, normalise: &impl Fn(&str) -> Option<String>) -> Option<Key> {
    let url = url.split('#').next().unwrap_or(url);
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(request.scheme().as_str()) => {
            (request.scheme(), Some(rest))
        }
        Some((scheme, _)) if !scheme.contains(['/', '?']) => return None,
        _ => (request.scheme(), url.strip_prefix("//")),
    };
    let (authority, target) = match rest {
        Some(rest) => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
        None => (request.authority(), url),
    };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let merged;
    let path = match path {
        "" if rest.is_some() => "/",
        "" => request.path(),
        path if path.starts_with('/') => path,
        path => {
            let folder = request.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            merged = format!("{folder}/{path}");
            &merged
        }
    };
    let mut target = normalise(path)?;
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    Some(Sought::new(scheme, authority, &target, &mut HostBuffer::default())?.to_key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::{request, response};

    fn urls(method: &str, status: u16, fields: &[(&str, &str)]) -> Vec<String> {
        let asked = request(method, "a.example", "/folder/item?x=1", &[]);
        let normalise = |path: &str| path.starts_with('/').then(|| path.replace("/./", "/"));
        let found = of(&asked, &response(status, fields), normalise).unwrap_or_default();
        found.keys.iter().map(ToString::to_string).collect()
    }

    const OWN: &str = "http://a.example/folder/item?x=1";

    /// §4.4: a non-error answer to an unsafe or unknown method invalidates the target URI; a safe method or an error nothing.
    #[test]
    fn unsafe_methods_invalidate_the_target() {
        for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
            for status in [200, 201, 204, 303] {
                assert_eq!(urls(method, status, &[]), [OWN], "{method} {status}");
            }
            assert_eq!(urls(method, 404, &[]), [""; 0]);
            assert_eq!(urls(method, 500, &[]), [""; 0]);
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert_eq!(urls(method, 200, &[]), [""; 0], "{method}");
        }
    }

    /// §4.4: `Location` and `Content-Location`, in every form of a reference, of the same origin.
    #[test]
    fn named_urls_of_the_same_origin() {
        for (reference, url) in [
            ("/other", "http://a.example/other"),
            ("other?y", "http://a.example/folder/other?y"),
            ("?y=2", "http://a.example/folder/item?y=2"),
            ("./other", "http://a.example/folder/other"),
            ("//A.example:80/other", "http://a.example/other"),
            ("HTTP://a.example/other#part", "http://a.example/other"),
            ("http://a.example", "http://a.example/"),
        ] {
            assert_eq!(urls("POST", 201, &[("Location", reference)]), [OWN, url], "{reference}");
            assert_eq!(urls("PUT", 200, &[("Content-Location", reference)]), [OWN, url], "{reference}");
        }
    }

    /// §4.4: a cache must not let one origin invalidate another's.
    #[test]
    fn other_origins_are_left_alone() {
        for reference in [
            "http://b.example/other",
            "https://a.example/other",
            "//b.example/",
            "http://a.example:81/",
            "ftp://a.example/",
            "mailto:a@b",
        ] {
            let found = urls("POST", 201, &[("Location", reference)]);
            assert!(found.iter().all(|url| url.starts_with("http://a.example/")), "{reference}: {found:?}");
        }
    }

    /// RFC 9875 §3.
    #[test]
    fn groups_are_invalidated() {
        let asked = request("POST", "a", "/", &[]);
        let found = of(&asked, &response(200, &[("Cache-Group-Invalidation", "\"g\"")]), |path| Some(path.to_owned()));
        assert_eq!(found.unwrap().groups, [Box::from("g")]);
    }
}
