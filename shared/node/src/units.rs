//! Quantities as people write them in a configuration: `"250ms"`, `"64MiB"`, `"50%"`.
//!
//! A bare number is refused: whether `30` means seconds, milliseconds or nanoseconds is a guess, and
//! a guess about a timeout is found out in production.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The longest duration a key may hold. Beyond it a value is a slip of the unit, not a wish.
const LONGEST: std::time::Duration = std::time::Duration::from_hours(366 * 24);

/// The largest share a key may hold, in percent. Limits above their base exist (150 %), a hundredfold does not.
const LARGEST_PERCENT: u16 = 1_000;

/// Units of duration and what `humantime` calls them. Months and years are left out on purpose: `M` beside `m`
/// is a trap, and nothing in a server lasts a month.
const DURATION_UNITS: [&str; 9] = ["ns", "us", "µs", "ms", "s", "m", "min", "h", "d"];

/// Units of size with their bytes; the first that divides a value is the one it is written in.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A length of time, written as `"250ms"`, `"30s"`, `"1m 30s"`, `"2h"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// A number of bytes, written as `"512B"`, `"32KiB"`, `"64MiB"`, `"1.5GiB"`, `"10MB"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// A share, written as `"50%"`: a whole number from 0 to 1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u16);

/// Why a text is no quantity; says what is wrong and what a right one looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Digits alone.
    #[error("`{0}` has no unit; write {1}")]
    NoUnit(String, &'static str),
    /// Letters that are no unit here.
    #[error("`{0}` has the unit `{1}`, which is none of {2}")]
    UnknownUnit(String, String, String),
    /// Not a number where one belongs.
    #[error("`{0}` is not {1}")]
    Malformed(String, &'static str),
    /// Beyond what a key may hold.
    #[error("`{0}` is more than {1}")]
    TooLarge(String, &'static str),
}

pub(crate) const DURATION_FORM: &str = "a duration such as \"250ms\", \"30s\" or \"5m\"";
pub(crate) const SIZE_FORM: &str = "a size such as \"32KiB\", \"64MiB\" or \"1GiB\"";
pub(crate) const PERCENT_FORM: &str = "a share such as \"50%\"";

// === impl Duration ===

impl Duration {
    /// A duration of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// A duration of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// The duration as the standard library has it.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// Whether it is no time at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        if is_bare_number(text) {
            return Err(UnitError::NoUnit(text.to_owned(), DURATION_FORM));
        }
        for unit in text.split(|c: char| c.is_ascii_digit() || c.is_whitespace()).filter(|unit| !unit.is_empty()) {
            if !unit.chars().all(char::is_alphabetic) {
                return Err(UnitError::Malformed(text.to_owned(), DURATION_FORM));
            }
            if !DURATION_UNITS.contains(&unit) {
                let known = DURATION_UNITS.join(", ");
                return Err(UnitError::UnknownUnit(text.to_owned(), unit.to_owned(), known));
            }
        }
        let parsed =
            humantime::parse_duration(text).map_err(|_| UnitError::Malformed(text.to_owned(), DURATION_FORM))?;
        if parsed > LONGEST {
            return Err(UnitError::TooLarge(text.to_owned(), "366 days"));
        }
        Ok(Self(parsed))
    }
}

impl fmt::Display for Duration {
    /// Writes the value in one unit, the largest that divides it, so that it reads back as the same value. Minutes
    /// begin at two: `60s` is how people write a minute's timeout.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let units = [
            ("d", 86_400_000_000_000, 1),
            ("h", 3_600_000_000_000, 1),
            ("m", 60_000_000_000, 2),
            ("s", 1_000_000_000, 1),
            ("ms", 1_000_000, 1),
            ("us", 1_000, 1),
        ];
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (unit, size, least) in units {
            if nanos.is_multiple_of(size) && nanos / size >= least {
                return write!(f, "{}{unit}", nanos / size);
            }
        }
        write!(f, "{nanos}ns")
    }
}

// === impl Size ===

impl Size {
    /// A size of `bytes` bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of `kib` × 1024 bytes.
    #[must_use]
    pub const fn from_kib(kib: u32) -> Self {
        Self((kib as u64) << 10)
    }

    /// A size of `mib` × 1024² bytes.
    #[must_use]
    pub const fn from_mib(mib: u32) -> Self {
        Self((mib as u64) << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes for what lives in memory; saturates where addresses are narrower.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        if is_bare_number(text) {
            return Err(UnitError::NoUnit(text.to_owned(), SIZE_FORM));
        }
        let malformed = || UnitError::Malformed(text.to_owned(), SIZE_FORM);
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
        let (number, unit) = text.split_at(split);
        let unit = unit.trim();
        let found = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let Some(&(_, factor)) = found else {
            if number.is_empty() || !unit.chars().all(char::is_alphabetic) {
                return Err(malformed());
            }
            let known = SIZE_UNITS.map(|(name, _)| name).join(", ");
            return Err(UnitError::UnknownUnit(text.to_owned(), unit.to_owned(), known));
        };
        let too_large = || UnitError::TooLarge(text.to_owned(), "16 EiB");
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 =
            if is_digits(whole) { whole.parse().map_err(|_| too_large())? } else { return Err(malformed()) };
        let bytes = whole.checked_mul(factor).ok_or_else(too_large)?;
        if fraction.is_empty() {
            return if number.contains('.') { Err(malformed()) } else { Ok(Self(bytes)) };
        }
        // Six places are a millionth of a TiB; nobody means more, and the product still fits.
        if !is_digits(fraction) || fraction.len() > 6 {
            return Err(malformed());
        }
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| malformed())?);
        let part: u128 = fraction.parse().map_err(|_| malformed())?;
        let part = u64::try_from(part * u128::from(factor) / scale).map_err(|_| too_large())?;
        bytes.checked_add(part).map(Self).ok_or_else(too_large)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in SIZE_UNITS {
            if self.0 != 0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        f.write_str("0B")
    }
}

// === impl Percent ===

impl Percent {
    /// A share of `percent` hundredths; more than 1000 becomes 1000.
    #[must_use]
    pub const fn new(percent: u16) -> Self {
        Self(if percent > LARGEST_PERCENT { LARGEST_PERCENT } else { percent })
    }

    /// The number before the `%`.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// This share of `whole`, rounded down; saturates.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        u64::try_from(u128::from(whole) * u128::from(self.0) / 100).unwrap_or(u64::MAX)
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        if is_bare_number(text) {
            return Err(UnitError::NoUnit(text.to_owned(), PERCENT_FORM));
        }
        let number = text.strip_suffix('%').map(str::trim_end).filter(|number| is_digits(number));
        let number = number.ok_or_else(|| UnitError::Malformed(text.to_owned(), PERCENT_FORM))?;
        match number.parse() {
            Ok(percent) if percent <= LARGEST_PERCENT => Ok(Self(percent)),
            _ => Err(UnitError::TooLarge(text.to_owned(), "1000%")),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

// === serde and schema ===

/// Reads a quantity from a string; a bare number gets the answer a bare number in quotes gets.
struct Quantity<T>(std::marker::PhantomData<T>, &'static str);

impl<T> Visitor<'_> for Quantity<T>
where
    T: FromStr<Err = UnitError>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        Err(E::custom(UnitError::NoUnit(number.to_string(), self.1)))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Err(E::custom(UnitError::NoUnit(number.to_string(), self.1)))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        Err(E::custom(UnitError::NoUnit(number.to_string(), self.1)))
    }
}

macro_rules! quantity {
    ($name:ident, $format:literal, $form:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Quantity(std::marker::PhantomData, $form))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

quantity!(Duration, "duration", DURATION_FORM);
quantity!(Size, "size", SIZE_FORM);
quantity!(Percent, "percent", PERCENT_FORM);

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_bare_number(text: &str) -> bool {
    !text.is_empty() && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests;
