//! What an answer of the interface says, by its keys.

use serde_json::Value;

/// The text at `key`; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The number at `key`; 0 where there is none.
pub(super) fn number(value: &Value, key: &str) -> f64 {
    value.get(key).and_then(Value::as_f64).unwrap_or(0.0)
}

/// The list at `key`.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What the PHP pools of a status have at `key`, in sum; 0 where there is none.
pub(super) fn php(status: &Value, key: &str) -> f64 {
    list(status, "php").iter().map(|pool| number(pool, key)).sum()
}
