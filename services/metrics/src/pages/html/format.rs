//! Numbers and text as people read them.

use troupe_node::figures;
pub(super) use troupe_node::figures::span;
pub(super) use troupe_node::html::escape;

/// What kind of number it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// So many.
    Count,
    /// So many a second.
    Rate,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    ByteRate,
    /// Cores.
    Cores,
}

impl Unit {
    /// The name for the dashboard's script.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Rate => "rate",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::ByteRate => "byterate",
            Self::Cores => "cores",
        }
    }

    /// The number with its unit; a dash for none.
    pub(super) fn format(self, value: f32) -> String {
        if !value.is_finite() {
            return "–".to_owned();
        }
        match self {
            Self::Count | Self::Rate => count(value),
            Self::Seconds => seconds(value),
            Self::Bytes => bytes(value),
            Self::ByteRate => format!("{}/s", bytes(value)),
            Self::Cores => format!("{value:.2}"),
        }
    }
}

fn count(value: f32) -> String {
    match value.abs() {
        less if less < 10.0 && value.fract() != 0.0 => format!("{value:.1}"),
        less if less < 10_000.0 => format!("{value:.0}"),
        less if less < 1e6 => format!("{:.1}k", value / 1e3),
        _ => format!("{:.1}M", value / 1e6),
    }
}

pub(super) fn seconds(value: f32) -> String {
    match value {
        less if less < 0.000_999_5 => format!("{:.0} µs", value * 1e6),
        less if less < 0.009_995 => format!("{:.2} ms", value * 1e3),
        less if less < 0.999_5 => format!("{:.0} ms", value * 1e3),
        _ => format!("{value:.2} s"),
    }
}

pub(super) fn bytes(value: f32) -> String {
    figures::bytes(f64::from(value))
}

/// A share.
pub(super) fn percent(share: f32) -> String {
    match share * 100.0 {
        nothing if nothing <= 0.0 => "0 %".to_owned(),
        little if little < 10.0 => format!("{little:.1} %"),
        more => format!("{more:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(Unit::Rate.format(12_345.0), "12.3k");
        assert_eq!(Unit::Rate.format(0.25), "0.2");
        assert_eq!(Unit::Rate.format(0.0), "0");
        assert_eq!(Unit::Seconds.format(f32::NAN), "–");
        assert_eq!(
            (seconds(0.000_42), seconds(0.004_2), seconds(0.042)),
            ("420 µs".into(), "4.20 ms".into(), "42 ms".into())
        );
        assert_eq!((percent(0.0), percent(0.012), percent(0.5)), ("0 %".into(), "1.2 %".into(), "50 %".into()));
    }
}
