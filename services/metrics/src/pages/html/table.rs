//! Tables that are told row by row: what a second changes of them is a few cells of each row, and their order.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde::Serialize;

use super::format::escape;

/// What the cells of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// The row's name.
    Name,
    Text,
    Number,
    /// What may be done with it.
    Acts,
}

impl Column {
    /// A cell's tags.
    fn tags(self) -> (&'static str, &'static str) {
        match self {
            Self::Name => ("<th scope=\"row\">", "</th>"),
            Self::Text => ("<td>", "</td>"),
            Self::Number => ("<td class=\"n\">", "</td>"),
            Self::Acts => ("<td class=\"act\">", "</td>"),
        }
    }
}

/// A table of a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// What stands before the rows, and behind them.
    around: (String, String),
    columns: &'static [Column],
    rows: Vec<Row>,
    /// The first number that no row has had.
    unused: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// What it is called in the stream of events; no other row has had it.
    number: u64,
    /// What it is about.
    key: String,
    /// What the script is to know of it, by name.
    data: Vec<(&'static str, String)>,
    /// Markup, column by column.
    cells: Vec<String>,
}

/// What has become of a table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<'a> {
    /// Nothing.
    None,
    /// More than its rows.
    Whole,
    /// Some of its rows.
    Rows(Rows<'a>),
}

/// How a table's rows differ from those of a second ago.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rows<'a> {
    /// All rows in their order, where it is another one: what is not named is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<Vec<u64>>,
    /// Those that were not there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    made: BTreeMap<u64, Made<'a>>,
    /// Cells that are not what they were, by row and column.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cells: BTreeMap<u64, BTreeMap<usize, &'a str>>,
}

/// A row that is new, told as the difference to one of a second ago: most of their cells are the same.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Made<'a> {
    like: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    data: BTreeMap<&'static str, &'a str>,
    cells: BTreeMap<usize, &'a str>,
}

impl Table {
    /// One without rows yet.
    pub(super) fn new(before: impl Into<String>, columns: &'static [Column], behind: impl Into<String>) -> Self {
        Self { around: (before.into(), behind.into()), columns, rows: Vec::new(), unused: 0 }
    }

    /// Adds a row about `key`. All rows have the same `data`.
    pub(super) fn push(&mut self, key: String, data: Vec<(&'static str, String)>, cells: Vec<String>) {
        let number = self.unused;
        self.unused += 1;
        self.rows.push(Row { number, key, data, cells });
    }

    /// The same, whose rows are called as those `before` that are about the same.
    pub(super) fn after(mut self, before: &Self) -> Self {
        let mut known: HashMap<&str, u64> = before.rows.iter().map(|row| (row.key.as_str(), row.number)).collect();
        self.unused = before.unused;
        for row in &mut self.rows {
            row.number = known.remove(row.key.as_str()).unwrap_or_else(|| {
                self.unused += 1;
                self.unused - 1
            });
        }
        self
    }

    /// All of it.
    pub(crate) fn html(&self) -> String {
        let (before, behind) = &self.around;
        let mut html = before.clone();
        for row in &self.rows {
            row.write(&mut html, self.columns);
        }
        html + behind
    }

    /// What has changed since it was `before`.
    pub(crate) fn changed_since<'a>(&'a self, before: &Self) -> Change<'a> {
        if (&self.around, self.columns) != (&before.around, before.columns) {
            return Change::Whole;
        }
        let known: HashMap<u64, &Row> = before.rows.iter().map(|row| (row.number, row)).collect();
        let mut rows = Rows::default();
        for row in &self.rows {
            match (known.get(&row.number), before.rows.first()) {
                (Some(known), _) => {
                    let cells = row.cells_unlike(known);
                    if !cells.is_empty() {
                        rows.cells.insert(row.number, cells);
                    }
                }
                (None, Some(like)) => {
                    let data = row.data.iter().map(|(name, value)| (*name, value.as_str())).collect();
                    rows.made.insert(row.number, Made { like: like.number, data, cells: row.cells_unlike(like) });
                }
                (None, None) => return Change::Whole,
            }
        }
        if !self.numbers().eq(before.numbers()) {
            rows.order = Some(self.numbers().collect());
        }
        if rows == Rows::default() { Change::None } else { Change::Rows(rows) }
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.rows.iter().map(|row| row.number)
    }
}

impl Row {
    /// Its cells that differ from those of the other.
    fn cells_unlike(&self, other: &Self) -> BTreeMap<usize, &str> {
        let both = self.cells.iter().zip(&other.cells).enumerate();
        both.filter(|(_, (own, other))| own != other).map(|(place, (own, _))| (place, own.as_str())).collect()
    }

    fn write(&self, html: &mut String, columns: &[Column]) {
        let _ = write!(html, "<tr data-row=\"{}\"", self.number);
        for (name, value) in &self.data {
            let _ = write!(html, " data-{name}=\"{}\"", escape(value));
        }
        html.push('>');
        for (cell, column) in self.cells.iter().zip(columns) {
            let (open, close) = column.tags();
            html.extend([open, cell, close]);
        }
        html.push_str("</tr>");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [Column; 2] = [Column::Name, Column::Number];

    /// A table of these workers and what they count.
    fn table(rows: &[(u8, u8)]) -> Table {
        let mut table = Table::new("<table>", &COLUMNS, "</table>");
        for (key, count) in rows {
            table.push(key.to_string(), vec![("name", format!("<{key}>"))], vec![format!("w{key}"), count.to_string()]);
        }
        table
    }

    /// What a page shows that is told of a change, as the script does it.
    fn told(before: &Table, change: &Change<'_>, whole: &Table) -> String {
        let row = |row: &Row| {
            let mut html = String::new();
            row.write(&mut html, &COLUMNS);
            (row.number, html)
        };
        let mut order: Vec<u64> = before.numbers().collect();
        let mut shown: HashMap<u64, String> = before.rows.iter().map(row).collect();
        match change {
            Change::None => {}
            Change::Whole => return whole.html(),
            Change::Rows(rows) => {
                for (number, cells) in &rows.cells {
                    let mut changed = before.rows.iter().find(|row| row.number == *number).unwrap().clone();
                    cells.iter().for_each(|(place, cell)| changed.cells[*place] = (*cell).to_owned());
                    shown.insert(*number, row(&changed).1);
                }
                for (number, made) in &rows.made {
                    let mut new = before.rows.iter().find(|row| row.number == made.like).unwrap().clone();
                    new.number = *number;
                    new.data.iter_mut().for_each(|(name, value)| *value = made.data[name].to_owned());
                    made.cells.iter().for_each(|(place, cell)| new.cells[*place] = (*cell).to_owned());
                    shown.insert(*number, row(&new).1);
                }
                order = rows.order.clone().unwrap_or(order);
            }
        }
        let rows: String = order.iter().map(|number| shown[number].as_str()).collect();
        format!("<table>{rows}</table>")
    }

    #[test]
    fn a_change_names_the_cells_the_order_and_what_came_and_nothing_else() {
        let json = |before: &Table, now: &Table| match now.changed_since(before) {
            Change::Rows(rows) => serde_json::to_string(&rows).unwrap(),
            other => format!("{other:?}"),
        };
        let first = table(&[(1, 5), (2, 6), (3, 7)]);
        let same = table(&[(1, 5), (2, 6), (3, 7)]).after(&first);
        assert_eq!(json(&first, &same), "None");
        let counted = table(&[(1, 5), (2, 8), (3, 7)]).after(&same);
        assert_eq!(json(&same, &counted), r#"{"cells":{"1":{"1":"8"}}}"#);
        let moved = table(&[(3, 7), (1, 5), (2, 8)]).after(&counted);
        assert_eq!(json(&counted, &moved), r#"{"order":[2,0,1]}"#);
        let gone = table(&[(3, 7), (2, 8)]).after(&moved);
        assert_eq!(json(&moved, &gone), r#"{"order":[2,1]}"#);
        // It comes back as another row: pages have forgotten it.
        let back = table(&[(3, 7), (1, 5), (2, 8)]).after(&gone);
        let made = r#""made":{"3":{"like":2,"data":{"name":"<1>"},"cells":{"0":"w1","1":"5"}}}"#;
        assert_eq!(json(&gone, &back), format!(r#"{{"order":[2,3,1],{made}}}"#));
        assert!(
            back.html().contains(r#"<tr data-row="3" data-name="&lt;1&gt;"><th scope="row">w1</th>"#),
            "{}",
            back.html()
        );
        let other = Table::new("<p>none</p>", &COLUMNS, "").after(&back);
        assert_eq!(json(&back, &other), "Whole");
    }

    proptest! {
        #[test]
        fn who_is_told_the_changes_sees_the_table(seconds in prop::collection::vec(prop::collection::vec((0_u8..9, 0_u8..4), 0..9), 1..9)) {
            let mut before = table(&[]);
            for rows in seconds {
                // Even of two rows about the same.
                let now = table(&rows).after(&before);
                let change = now.changed_since(&before);
                prop_assert_eq!(told(&before, &change, &now), now.html());
                prop_assert_eq!(change == Change::None, now.html() == before.html());
                before = now;
            }
        }
    }
}
