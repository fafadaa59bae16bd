//! Tables for terminals, and times that are short enough for their columns.

use std::io::IsTerminal;

/// Columns of the terminal that is written to; without bound where that is none.
pub(super) fn room() -> usize {
    match std::io::stdout().is_terminal() {
        true => terminal_size::terminal_size().map_or(usize::MAX, |(width, _)| usize::from(width.0).max(20)),
        false => usize::MAX,
    }
}

/// The longest line's length.
pub(super) fn widest(table: &str) -> usize {
    table.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

/// The line in so many columns; what does not fit is told by a mark.
pub(super) fn cut(line: String, width: usize) -> String {
    if line.chars().count() <= width {
        return line;
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Rows as columns: as wide as their widest cell, numbers to the right.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    columns_apart(rows, "  ")
}

/// The same, with so much between two columns.
pub(super) fn columns_apart(rows: &[Vec<String>], between: &str) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    // The header does not say what is below it; the last row does.
    let is_number = |column: usize| {
        let cell = rows.last().and_then(|row| row.get(column));
        cell.is_some_and(|cell| cell.starts_with(|first: char| first.is_ascii_digit() || first == '-'))
    };
    let numbers: Vec<bool> = (0..count).map(is_number).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let gap = if column == 0 { "" } else { between };
            match numbers.get(column) {
                Some(true) => line.push_str(&format!("{gap}{padding}{cell}")),
                _ => line.push_str(&format!("{gap}{cell}{padding}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A name in so many characters: pools differ at its beginning, instances at its end.
pub(super) fn shortened(name: &str, room: usize) -> String {
    let chars: Vec<char> = name.chars().collect();
    let gone = (chars.len() + 1).saturating_sub(room.max(1));
    if chars.len() <= room {
        return name.to_owned();
    }
    let from = (chars.len() - gone) / 2;
    let (head, tail) = (chars.iter().take(from), chars.iter().skip(from + gone));
    head.chain(&['…']).chain(tail).collect()
}

/// A time of so many microseconds.
pub(super) fn micros(us: f64) -> String {
    match us {
        us if us <= 0.0 => "-".to_owned(),
        us if us < 1_000.0 => format!("{us:.0}us"),
        us if us < 100_000.0 => format!("{:.1}ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.0}ms", us / 1e3),
        us => format!("{:.1}s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_texts_to_the_left() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let table =
            columns(&[row(["WORKER", "STATE", "SCORE"]), row(["a", "ready", "7.5"]), row(["bb", "out", "12.5"])]);
        assert_eq!(table, "WORKER  STATE  SCORE\na       ready    7.5\nbb      out     12.5\n");
    }

    #[test]
    fn a_name_that_is_too_long_loses_its_middle() {
        let shown: Vec<String> = [99, 18, 17, 11, 2, 0].map(|room| shortened("a-pool/php-pool@12", room)).to_vec();
        assert_eq!(shown, ["a-pool/php-pool@12", "a-pool/php-pool@12", "a-pool/p…-pool@12", "a-poo…ol@12", "…2", "…"]);
        assert_eq!((shortened("", 5), shortened("", 0)), (String::new(), String::new()));
    }

    #[test]
    fn times_are_short() {
        let shown: Vec<String> = [0.0, 42.0, 1_234.0, 250_000.0, 2_500_000.0].map(micros).to_vec();
        assert_eq!(shown, ["-", "42us", "1.2ms", "250ms", "2.5s"]);
    }
}
