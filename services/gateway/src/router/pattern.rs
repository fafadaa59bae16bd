//! A route's path pattern.

use crate::path;

/// Most segments of a pattern: its rank is one number with two bits for each.
const MAX_SEGMENTS: usize = 60;

/// A parsed pattern: what matches, and how specific that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) segments: Vec<Segment>,
}

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// Text in normal form.
    Literal(String),
    /// `{name}`: exactly one segment that is not empty.
    Name(String),
    /// `{rest*}`: all that follows, nothing included. The last one only.
    Rest(String),
}

impl Pattern {
    /// Parses `text`; the error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err("a path begins with a slash".to_owned());
        };
        let parts: Vec<&str> = inner.split('/').collect();
        if parts.len() > MAX_SEGMENTS {
            return Err(format!("a path has at most {MAX_SEGMENTS} segments"));
        }
        let mut segments: Vec<Segment> = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let segment = segment(part, last)?;
            if let Some(name) = segment.name()
                && segments.iter().any(|earlier| earlier.name() == Some(name))
            {
                return Err(format!("the name `{name}` stands twice"));
            }
            segments.push(segment);
        }
        Ok(Self { segments })
    }

    /// The pattern without its names: patterns that are the same in this form match the same paths.
    pub(super) fn key(&self) -> String {
        let mut key = String::new();
        for segment in &self.segments {
            key.push('/');
            match segment {
                Segment::Literal(text) => key.push_str(text),
                Segment::Name(_) => key.push_str("{}"),
                Segment::Rest(_) => key.push_str("{*}"),
            }
        }
        key
    }

    /// The pattern as matchit writes it. Names become positions, because matchit compares names.
    pub(super) fn for_matchit(&self) -> String {
        let mut out = String::new();
        for (index, segment) in self.segments.iter().enumerate() {
            out.push('/');
            match segment {
                Segment::Literal(text) => out.push_str(&text.replace('{', "{{").replace('}', "}}")),
                Segment::Name(_) => out.push_str(&format!("{{p{index}}}")),
                Segment::Rest(_) => out.push_str("{*rest}"),
            }
        }
        out
    }

    /// The rank of the pattern among those that match one path: compared segment by segment from the left, a literal
    /// beats a name and a name beats the rest.
    pub(super) fn rank(&self) -> u128 {
        self.segments.iter().enumerate().fold(0, |rank, (index, segment)| {
            let weight: u128 = match segment {
                Segment::Literal(_) => 3,
                Segment::Name(_) => 2,
                Segment::Rest(_) => 1,
            };
            rank | weight << (126 - 2 * index)
        })
    }

    /// Whether the pattern ends with `{rest*}`, and what that is called.
    pub(super) fn rest(&self) -> Option<&str> {
        match self.segments.last() {
            Some(Segment::Rest(name)) => Some(name),
            _ => None,
        }
    }

    /// The position of the segment called `name`.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.segments.iter().position(|segment| segment.name() == Some(name))
    }

    /// The pattern with `last` in the place of its last segment.
    pub(super) fn ending_with(&self, last: &[Segment]) -> Self {
        let kept = self.segments.len().saturating_sub(1);
        let mut segments: Vec<Segment> = self.segments.iter().take(kept).cloned().collect();
        segments.extend_from_slice(last);
        Self { segments }
    }
}

impl Segment {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Name(name) | Self::Rest(name) => Some(name),
        }
    }
}

fn segment(part: &str, last: bool) -> Result<Segment, String> {
    if let Some(inner) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
        let (name, rest) = inner.strip_suffix('*').map_or((inner, false), |name| (name, true));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("`{{{inner}}}` is no name: write {{name}} or {{rest*}}, in letters, digits and _"));
        }
        if rest && !last {
            return Err(format!("`{{{name}*}}` takes all that follows, so it can only stand at the end"));
        }
        return Ok(if rest { Segment::Rest(name.to_owned()) } else { Segment::Name(name.to_owned()) });
    }
    if part.contains(['{', '}']) {
        return Err(format!("`{part}` mixes text and {{name}}: a name is a whole segment"));
    }
    if part.contains(['?', '#']) {
        return Err(format!("`{part}` holds a query or a fragment, which no route sees"));
    }
    if part.is_empty() {
        return if last {
            Ok(Segment::Literal(String::new()))
        } else {
            Err("an empty segment matches nothing".to_owned())
        };
    }
    // People write `/grüße`; on the wire it is encoded.
    let encoded: String = percent_encoding::utf8_percent_encode(part, percent_encoding::CONTROLS).to_string();
    let slashed = format!("/{}", encoded.replace(' ', "%20"));
    match path::normalise(&slashed) {
        Ok(normal) if normal == "/" => {
            Err(format!("`{part}` is unreachable: dot segments are resolved before routing"))
        }
        Ok(normal) if part.contains('%') && normal != slashed => {
            Err(format!("`{part}` is unreachable: requests for it arrive as `{}`", normal.trim_start_matches('/')))
        }
        Ok(normal) => Ok(Segment::Literal(normal.trim_start_matches('/').to_owned())),
        Err(bad) => Err(format!("`{part}` is unreachable: {bad}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_say_what_is_wrong_with_them() {
        for (text, part) in [
            ("a", "begins with a slash"),
            ("/{a*}/b", "only stand at the end"),
            ("/{}", "is no name"),
            ("/x{a}", "whole segment"),
            ("/{a}/{a}", "stands twice"),
            ("/a//b", "empty segment"),
            ("/a/../b", "unreachable"),
            ("/%61", "arrive as `a`"),
            ("/a%2fb", "unreachable"),
            ("/a?b", "query"),
        ] {
            let error = Pattern::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn non_ascii_text_is_matched_as_it_is_sent() {
        assert_eq!(Pattern::parse("/grüße").unwrap().key(), "/gr%C3%BC%C3%9Fe");
        assert_eq!(Pattern::parse("/a b/{x}").unwrap().key(), "/a%20b/{}");
    }

    #[test]
    fn ranks_compare_segment_by_segment() {
        let rank = |text| Pattern::parse(text).unwrap().rank();
        assert!(rank("/a/{rest*}") > rank("/{x}/b"));
        assert!(rank("/a/b") > rank("/a/{x}"));
        assert!(rank("/a/{x}") > rank("/a/{rest*}"));
        assert!(rank("/{x}/{rest*}") > rank("/{rest*}"));
    }
}
