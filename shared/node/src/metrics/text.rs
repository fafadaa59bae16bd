//! Prometheus text: families one after the other, each with its meaning and type.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use metrics::Key;
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};

use super::describe::{Description, Kind};
use super::registry::{Reading, counted};

/// A page of Prometheus text (version 0.0.4) under way. Series of one name must follow each other.
#[derive(Debug)]
pub struct Text {
    descriptions: BTreeMap<String, Description>,
    text: String,
    family: String,
    no_labels: IndexMap<String, String>,
}

impl Text {
    /// An empty page that knows what the names mean.
    pub fn new(descriptions: BTreeMap<String, Description>) -> Self {
        Self { descriptions, text: String::new(), family: String::new(), no_labels: IndexMap::new() }
    }

    /// Adds a series.
    pub fn series(&mut self, key: &Key, reading: &Reading) {
        match reading {
            Reading::Counter(count) => {
                self.begin(key.name(), Kind::Counter);
                let labels = self.labels(key);
                line(
                    &mut self.text,
                    key.name(),
                    None,
                    &labels,
                    None::<(&'static str, f64)>,
                    counted(key.name(), *count),
                );
            }
            Reading::Gauge(value) => {
                self.begin(key.name(), Kind::Gauge);
                let labels = self.labels(key);
                line(&mut self.text, key.name(), None, &labels, None::<(&'static str, f64)>, *value);
            }
            Reading::Histogram { bounds, counts, sum } => {
                self.begin(key.name(), Kind::Histogram);
                self.histogram(key, bounds, counts, *sum);
            }
        }
    }

    /// Adds a number, of a counter or a gauge as its description says; a gauge without one.
    pub fn value(&mut self, key: &Key, value: f64) {
        let kind = self.descriptions.get(key.name()).map_or(Kind::Gauge, |description| description.kind);
        self.begin(key.name(), kind);
        let labels = self.labels(key);
        line(&mut self.text, key.name(), None, &labels, None::<(&'static str, f64)>, value);
    }

    /// The page.
    pub fn finish(self) -> String {
        self.text
    }

    fn begin(&mut self, name: &str, kind: Kind) {
        if self.family == name {
            return;
        }
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        if let Some(description) = self.descriptions.get(name) {
            // In text the backquotes of label names are only noise.
            let meaning = description.meaning.replace('`', "");
            write_help_line(&mut self.text, name, None, None, &meaning);
        }
        write_type_line(&mut self.text, name, None, None, kind.as_str());
        self.family = name.to_owned();
    }

    fn labels(&self, key: &Key) -> LabelSet {
        LabelSet::from_key_and_global(key, &self.no_labels)
    }

    fn histogram(&mut self, key: &Key, bounds: &[f64], counts: &[u64], sum: f64) {
        let (name, labels) = (key.name(), self.labels(key));
        let mut total = 0u64;
        for (bound, count) in bounds.iter().zip(counts) {
            total = total.saturating_add(*count);
            line(&mut self.text, name, Some("bucket"), &labels, Some(("le", bound)), total);
        }
        let total = counts.iter().fold(0, |total: u64, count| total.saturating_add(*count));
        line(&mut self.text, name, Some("bucket"), &labels, Some(("le", "+Inf")), total);
        let none = None::<(&'static str, f64)>;
        line(&mut self.text, name, Some("sum"), &labels, none, sum);
        line(&mut self.text, name, Some("count"), &labels, none, total);
    }
}

fn line<T: std::fmt::Display>(
    text: &mut String,
    name: &str,
    suffix: Option<&'static str>,
    labels: &LabelSet,
    more: Option<(&'static str, T)>,
    value: impl std::fmt::Display,
) {
    write_metric_line(text, name, suffix, labels, more, value, None);
}

#[cfg(test)]
mod tests {
    use metrics::{Label, describe_counter};

    use super::super::describe::described;
    use super::*;

    #[test]
    fn a_page_has_each_family_once_and_escapes_what_is_inside() {
        let mut text = Text::new(described(|| describe_counter!("troupe_a_total", "Things, by `pool`.")));
        let key = |pool: &'static str| Key::from_parts("troupe_a_total", vec![Label::new("pool", pool)]);
        text.series(&key("x"), &Reading::Counter(3));
        text.series(&key("say \"y\"\n"), &Reading::Counter(4));
        text.series(&Key::from_name("troupe_a_seconds_total"), &Reading::Counter(1_250_000));
        let histogram = Reading::Histogram { bounds: vec![0.1, 1.0], counts: vec![1, 0, 2], sum: 9.5 };
        text.series(&Key::from_name("troupe_b_seconds"), &histogram);
        let expected = "# HELP troupe_a_total Things, by pool.\n# TYPE troupe_a_total counter\n\
                        troupe_a_total{pool=\"x\"} 3\ntroupe_a_total{pool=\"say \\\"y\\\"\\n\"} 4\n\n\
                        # TYPE troupe_a_seconds_total counter\ntroupe_a_seconds_total 1.25\n\n\
                        # TYPE troupe_b_seconds histogram\ntroupe_b_seconds_bucket{le=\"0.1\"} 1\n\
                        troupe_b_seconds_bucket{le=\"1\"} 1\ntroupe_b_seconds_bucket{le=\"+Inf\"} 3\n\
                        troupe_b_seconds_sum 9.5\ntroupe_b_seconds_count 3\n";
        assert_eq!(text.finish(), expected);
    }
}
