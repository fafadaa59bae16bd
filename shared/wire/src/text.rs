//! Texts that peers write and people read.

use serde::{Deserialize, Deserializer};

/// The text as it may stand in a log: with control characters it would end its line and begin another, or move the cursor of
/// who reads it. Refusals and HELLOs come from whoever connects, before they prove anything.
pub(crate) fn printable(text: &str) -> String {
    text.replace(char::is_control, "?")
}

/// Reads a text of a message as it may stand in a log.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| printable(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_ends_its_line_or_moves_a_cursor() {
        assert_eq!(printable("a\r\nb\t\u{1b}[2J\u{9b}2J\0\u{7f}"), "a??b??[2J?2J??");
        assert_eq!(printable("php-pool@höst:4711 – ✓"), "php-pool@höst:4711 – ✓");
    }
}
