//! JSON log lines, flat: one object per event.
//!
//! `tracing-subscriber`'s own JSON nests the event's fields and cannot carry the service and the instance; log stores
//! index flat objects best.

use std::fmt::Debug;
use std::io::Write;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::Origin;

/// A layer that writes each event as one JSON object and a newline, in one write.
#[derive(Debug)]
pub struct JsonLines<W> {
    service: String,
    instance: String,
    writer: W,
}

/// A span's fields, kept in its extensions.
struct SpanFields(Map<String, Value>);

impl<W> JsonLines<W> {
    /// Lines of `origin`, to `writer`.
    pub fn new(origin: &Origin, writer: W) -> Self {
        Self { service: origin.service.clone(), instance: origin.instance.clone(), writer }
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    W: for<'writer> MakeWriter<'writer> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Map::new();
        attributes.record(&mut Fields(&mut fields));
        span.extensions_mut().insert(SpanFields(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<SpanFields>() {
            values.record(&mut Fields(&mut fields.0));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let meta = event.metadata();
        let mut own = Map::new();
        event.record(&mut Fields(&mut own));

        let mut line = Map::new();
        let mut put = |name: &str, value: Value| {
            line.insert(name.to_owned(), value);
        };
        put("ts", timestamp(SystemTime::now()).into());
        put("level", meta.level().as_str().to_ascii_lowercase().into());
        put("service", self.service.as_str().into());
        put("instance", self.instance.as_str().into());
        put("target", meta.target().into());
        put("msg", own.remove("message").unwrap_or_default());
        if let Some(scope) = context.event_scope(event) {
            for span in scope.from_root() {
                if let Some(fields) = span.extensions().get::<SpanFields>() {
                    merge(&mut line, &fields.0);
                }
            }
        }
        merge(&mut line, &own);

        let Ok(mut bytes) = serde_json::to_vec(&line) else {
            return;
        };
        bytes.push(b'\n');
        // A log that cannot be written has nowhere to say so.
        let _ = self.writer.make_writer_for(meta).write_all(&bytes);
    }
}

/// Adds fields; the line's fixed names cannot be overwritten by a field that happens to be called the same.
fn merge(line: &mut Map<String, Value>, fields: &Map<String, Value>) {
    for (name, value) in fields {
        let fixed = matches!(name.as_str(), "ts" | "level" | "service" | "instance" | "target" | "msg");
        let name = if fixed { format!("field_{name}") } else { name.clone() };
        line.insert(name, value.clone());
    }
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(now: SystemTime) -> String {
    humantime::format_rfc3339_micros(now).to_string()
}

struct Fields<'map>(&'map mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use parking_lot::Mutex;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    pub(in crate::telemetry) struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        pub(in crate::telemetry) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).expect("text")
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(run: impl FnOnce()) -> Vec<Value> {
        let sink = Sink::default();
        let out = sink.clone();
        let origin = Origin { service: "gateway".into(), instance: "a1".into(), apart: false };
        let subscriber = tracing_subscriber::registry().with(JsonLines::new(&origin, move || out.clone()));
        tracing::subscriber::with_default(subscriber, run);
        sink.text().lines().map(|line| serde_json::from_str(line).expect("one object per line")).collect()
    }

    #[test]
    fn an_event_is_one_flat_object_with_its_spans_fields() {
        let lines = lines(|| {
            let span = tracing::info_span!("call", request_id = "r-1", worker = tracing::field::Empty);
            let _in = span.enter();
            span.record("worker", 7);
            tracing::warn!(status = 502, cache = false, reason = ?"a\n\"b\"", "upstream gone");
        });
        let line = &lines[0];
        assert_eq!(line["level"], "warn");
        assert_eq!(line["service"], "gateway");
        assert_eq!(line["instance"], "a1");
        assert_eq!(line["msg"], "upstream gone");
        assert_eq!(line["request_id"], "r-1");
        assert_eq!(line["worker"], 7);
        assert_eq!(line["status"], 502);
        assert_eq!(line["cache"], false);
        assert!(line["target"].as_str().is_some_and(|target| target.contains("json")));
    }

    #[test]
    fn a_field_cannot_forge_the_fixed_names() {
        let lines = lines(|| tracing::info!(level = "error", service = "other", "hello\nworld"));
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["level"], "info");
        assert_eq!(lines[0]["field_level"], "error");
        assert_eq!(lines[0]["service"], "gateway");
        assert_eq!(lines[0]["msg"], "hello\nworld");
    }

    #[test]
    fn times_are_utc() {
        let time = UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        assert_eq!(timestamp(time), "2023-11-14T22:13:20.123456Z");
    }
}
