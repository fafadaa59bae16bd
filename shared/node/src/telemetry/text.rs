//! Lines of text: who writes them stands behind the time.

use std::fmt;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::Origin;

/// Begins a line with the time and its origin.
#[derive(Debug)]
pub(super) struct Stamp(String);

impl Stamp {
    pub(super) fn new(origin: &Origin) -> Self {
        Self(origin.to_string())
    }
}

impl FormatTime for Stamp {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        SystemTime.format_time(out)?;
        write!(out, " {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::fmt::layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::json::tests::Sink;
    use super::*;

    fn line(apart: bool) -> String {
        let sink = Sink::default();
        let out = sink.clone();
        let origin = Origin { service: "gateway".into(), instance: "host/7".into(), apart };
        let layer = layer().with_ansi(false).with_timer(Stamp::new(&origin)).with_writer(move || out.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(target: "php", request_id = "r-1", "it failed");
        });
        sink.text()
    }

    #[test]
    fn a_line_names_the_service_and_where_services_run_apart_the_instance() {
        let (time, rest) =
            line(false).split_once(' ').map(|(time, rest)| (time.to_owned(), rest.to_owned())).expect("two");
        assert!(humantime::parse_rfc3339(&time).is_ok(), "{time}");
        assert_eq!(rest, "gateway  WARN php: it failed request_id=\"r-1\"\n");
        assert!(line(true).contains("Z gateway host/7  WARN php: it failed"), "{}", line(true));
    }
}
