//! Statuses as a configuration names them: `404`, or all of a class, `5xx`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One final status, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statuses {
    first: u16,
    last: u16,
}

/// Why a text names no statuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no status: write one such as 404, or a class such as 5xx")]
pub struct StatusesError(String);

impl Statuses {
    /// The statuses.
    #[must_use]
    pub fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl FromStr for Statuses {
    type Err = StatusesError;

    fn from_str(text: &str) -> Result<Self, StatusesError> {
        let wrong = || StatusesError(text.to_owned());
        let (first, last) = match text.strip_suffix("xx") {
            Some(class) => {
                let class: u16 = class.parse().map_err(|_| wrong())?;
                (class.saturating_mul(100), class.saturating_mul(100).saturating_add(99))
            }
            None => text.parse().map(|status| (status, status)).map_err(|_| wrong())?,
        };
        if (200..600).contains(&first) && text.len() == 3 { Ok(Self { first, last }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}xx", self.first / 100),
        }
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Statuses".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Without a pattern, which would make of a table by statuses one of patterns, and no key would be known.
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_or_a_class_of_them() {
        let range = |text: &str| text.parse::<Statuses>().map(Statuses::range);
        assert_eq!((range("404"), range("5xx")), (Ok(404..=404), Ok(500..=599)));
        for wrong in ["", "4", "4x", "xx", "1xx", "6xx", "100", "600", "+404", "4xxx", "04x", "+4xx", "2xxx"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
        for text in ["200", "4xx"] {
            assert_eq!(text.parse::<Statuses>().map(|statuses| statuses.to_string()), Ok(text.to_owned()));
        }
    }
}
