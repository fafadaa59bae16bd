//! `Cache-Status` (RFC 9211): what was done with a request, for people and programs behind the cache.

use std::fmt::Write as _;

/// Why a request was passed on (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// The cache was told not to handle it.
    Bypass,
    /// Its method is not cached.
    Method,
    /// Nothing was stored under its URL.
    UriMiss,
    /// What was stored under its URL is for other requests (`Vary`).
    VaryMiss,
    /// What was stored would have done, but for what the request says.
    Request,
    /// What was stored is stale.
    Stale,
    /// What was stored is a part, and does not hold all that is asked for.
    Partial,
}

impl Forward {
    /// The token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// One member of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// The response came out of the store (§2.1). Stands alone: what was passed on is no hit.
    pub hit: bool,
    /// Why it was passed on.
    pub forward: Option<Forward>,
    /// The status of the response to what was passed on, where it is not the one that is sent (§2.3).
    pub forward_status: Option<u16>,
    /// Seconds for which the response is still fresh; negative when it is stale (§2.4).
    pub ttl: Option<i64>,
    /// The response was stored (§2.5).
    pub stored: bool,
    /// The request was answered by what another one fetched (§2.6).
    pub collapsed: bool,
    /// The key (§2.7).
    pub key: Option<String>,
    /// More, for people (§2.8).
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    /// Writes the member for the cache `name`.
    pub fn write(&self, name: &str, out: &mut String) {
        out.push_str(name);
        if self.hit {
            out.push_str("; hit");
        } else if let Some(forward) = self.forward {
            let _ = write!(out, "; fwd={}", forward.as_str());
        }
        if let Some(status) = self.forward_status {
            let _ = write!(out, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            // RFC 9651 §3.3.1: integers have 15 digits.
            let _ = write!(out, "; ttl={}", ttl.clamp(-999_999_999_999_999, 999_999_999_999_999));
        }
        for (set, parameter) in [(self.stored, "; stored"), (self.collapsed, "; collapsed")] {
            if set {
                out.push_str(parameter);
            }
        }
        if let Some(key) = self.key.as_deref().filter(|key| key.bytes().all(|byte| (0x20..0x7f).contains(&byte))) {
            out.push_str("; key=\"");
            for character in key.chars() {
                if matches!(character, '"' | '\\') {
                    out.push('\\');
                }
                out.push(character);
            }
            out.push('"');
        }
        if let Some(detail) = self.detail {
            let _ = write!(out, "; detail={detail}");
        }
    }
}

#[cfg(test)]
mod tests {
    use sfv::{List, Parser};

    use super::*;

    fn written(status: &CacheStatus) -> String {
        let mut out = String::new();
        status.write("troupe-l1", &mut out);
        assert!(Parser::new(&out).parse::<List>().is_ok(), "{out}");
        out
    }

    /// RFC 9211 §2: a list of which each member names a cache.
    #[test]
    fn members_are_written_as_structured_fields() {
        let hit = CacheStatus { hit: true, ttl: Some(59), ..CacheStatus::default() };
        assert_eq!(written(&hit), "troupe-l1; hit; ttl=59");
        let miss =
            CacheStatus { forward: Some(Forward::UriMiss), stored: true, collapsed: true, ..CacheStatus::default() };
        assert_eq!(written(&miss), "troupe-l1; fwd=uri-miss; stored; collapsed");
        let stale = CacheStatus {
            forward: Some(Forward::Stale),
            forward_status: Some(304),
            ttl: Some(i64::MIN),
            detail: Some("no-store"),
            ..CacheStatus::default()
        };
        assert_eq!(written(&stale), "troupe-l1; fwd=stale; fwd-status=304; ttl=-999999999999999; detail=no-store");
    }

    /// RFC 9211 §2.7: the key is a string; one that cannot be written is left out.
    #[test]
    fn keys_are_escaped() {
        let key = |key: &str| written(&CacheStatus { hit: true, key: Some(key.to_owned()), ..CacheStatus::default() });
        assert_eq!(key("http://a/\"\\"), "troupe-l1; hit; key=\"http://a/\\\"\\\\\"");
        assert_eq!(key("é"), "troupe-l1; hit");
    }
}
