//! `[cache.warm]`: what is fetched before anybody asks for it.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is fetched into the cache before anybody asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WarmConfig {
    /// Absolute URLs, such as `http://app.example/`, that are fetched at start and by the schedule.
    pub urls: Vec<String>,
    /// How many are fetched at once.
    #[schemars(range(min = 1))]
    pub concurrency: u32,
    /// When they are fetched anew, fresh or not: a cron expression in local time, "*/10 * * * *". Empty: only at start.
    pub schedule: Schedule,
    /// A URL that is asked for at least this many times within an hour is fetched again shortly before it expires. 0: none.
    pub predict: u32,
    /// How many URLs are watched for that; of more, those that were not asked for the longest are forgotten.
    #[schemars(range(min = 1))]
    pub predict_most: u32,
}

/// A cron expression, or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule(Option<Box<Cron>>);

// A pattern is bits and text.
impl Eq for Schedule {}

impl Default for WarmConfig {
    fn default() -> Self {
        Self { urls: Vec::new(), concurrency: 4, schedule: Schedule::default(), predict: 0, predict_most: 1000 }
    }
}

impl Schedule {
    /// The times, where there are any.
    pub(crate) fn cron(&self) -> Option<&Cron> {
        self.0.as_deref()
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        let cron = Cron::from_str(text);
        cron.map(|cron| Self(Some(Box::new(cron)))).map_err(|error| {
            format!(
                "`{text}` is no cron expression such as \"*/10 * * * *\" (minute, hour, day, month, weekday): {error}"
            )
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(cron) => cron.pattern.fmt(f),
            None => Ok(()),
        }
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for Schedule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Schedule".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_a_cron_expression() {
        assert_eq!("".parse::<Schedule>(), Ok(Schedule(None)));
        let schedule = "*/10 3 * * MON".parse::<Schedule>().unwrap();
        assert!(schedule.cron().is_some());
        assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        for wrong in ["*/10", "a b c d e", "61 * * * *"] {
            assert!(wrong.parse::<Schedule>().is_err(), "{wrong}");
        }
    }
}
