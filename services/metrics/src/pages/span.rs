//! How far back a dashboard looks. What a second costs does not depend on it: it is only what a dashboard begins with.

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Span {
    /// Where something happens now.
    #[default]
    FiveMinutes,
    /// All that is kept.
    FifteenMinutes,
}

impl Span {
    /// All of them, in the order in which they are offered.
    pub(crate) const ALL: [Self; 2] = [Self::FiveMinutes, Self::FifteenMinutes];

    /// What a query asks for by `minutes`; what it does not understand is the usual.
    pub(crate) fn of_query(query: &str) -> Self {
        let asked = query.split('&').find_map(|part| part.strip_prefix("minutes="));
        let known = |asked: &str| Self::ALL.into_iter().find(|span| span.minutes().to_string() == asked);
        asked.and_then(known).unwrap_or_default()
    }

    /// In minutes.
    pub(crate) const fn minutes(self) -> usize {
        match self {
            Self::FiveMinutes => 5,
            Self::FifteenMinutes => 15,
        }
    }

    /// In seconds, each of which is a point of the charts.
    pub(crate) const fn seconds(self) -> usize {
        self.minutes() * 60
    }

    /// What a heading calls it.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::FiveMinutes => "The last five minutes",
            Self::FifteenMinutes => "The last 15 minutes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_chooses_among_what_there_is() {
        for (query, span) in [
            ("", Span::FiveMinutes),
            ("minutes=5", Span::FiveMinutes),
            ("a=b&minutes=15", Span::FifteenMinutes),
            ("minutes=15000000000000000000000", Span::FiveMinutes),
            ("minutes=", Span::FiveMinutes),
            ("xminutes=15", Span::FiveMinutes),
        ] {
            assert_eq!(Span::of_query(query), span, "{query}");
        }
        assert_eq!(Span::FifteenMinutes.seconds(), crate::cluster::SECONDS, "all that is kept");
    }
}
