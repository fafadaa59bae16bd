//! The dashboard's one stream of events: first everything, then each second.
//!
//! A reader sets its own pace: it is handed the newest second when it asks, and everything anew when it has missed some. So
//! nothing is queued for one that is slow.

use std::collections::BTreeMap;

use actix_web::http::header::{self, HeaderName};
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use super::Shown;
use super::html::{Changes, Parts, PartsByName, Rows};
use super::span::Span;
use crate::cluster::{COLUMNS, Frame};
use crate::collector::{Looks, Published};

/// Dashboards that may be open at once: each costs one event a second.
pub(super) const MAX_VIEWERS: usize = 32;
/// What the browser waits before it comes back, in milliseconds.
const RETRY_MS: u32 = 2_000;

/// The header fields of a stream.
pub(super) const FIELDS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-store"),
    // Buffering proxies in front would hold the seconds back.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// Everything that a dashboard begins with.
#[derive(Serialize)]
struct Snapshot<'a> {
    tick: u64,
    at: Vec<u64>,
    columns: BTreeMap<&'static str, Vec<Number>>,
    parts: PartsByName<'a>,
}

/// One more second, with what it has changed.
#[derive(Serialize)]
struct Delta<'a> {
    tick: u64,
    at: u64,
    columns: BTreeMap<&'static str, Number>,
    parts: PartsByName<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rows: BTreeMap<&'static str, Rows<'a>>,
}

/// A number with as many digits as a chart can show; null where there is none.
struct Number(f32);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = f64::from(self.0);
        if !value.is_finite() {
            return serializer.serialize_none();
        }
        if value.fract() == 0.0 && value.abs() < 1e15 {
            return serializer.serialize_i64(value as i64);
        }
        let digits = 10f64.powi(4 - value.abs().log10().floor() as i32);
        serializer.serialize_f64((value * digits).round() / digits)
    }
}

/// The event that tells everything: the moment, and the seconds up to it.
pub(crate) fn snapshot(tick: u64, parts: &Parts, frames: &[Frame]) -> Bytes {
    let column =
        |place: usize| frames.iter().map(move |frame| Number(frame.values.get(place).copied().unwrap_or(f32::NAN)));
    let columns = COLUMNS.iter().enumerate().map(|(place, known)| (known.id, column(place).collect()));
    let at = frames.iter().map(|frame| frame.at_ms).collect();
    event("snapshot", tick, &Snapshot { tick, at, columns: columns.collect(), parts: parts.all() })
}

/// The event that tells the newest second, and what it has changed of the page.
pub(crate) fn delta(tick: u64, changes: Changes<'_>, frames: &[Frame]) -> Bytes {
    let Some(frame) = frames.last() else { return Bytes::new() };
    let Changes { parts, rows } = changes;
    let numbers = COLUMNS.iter().zip(&frame.values).map(|(column, value)| (column.id, Number(*value)));
    event("second", tick, &Delta { tick, at: frame.at_ms, columns: numbers.collect(), parts, rows })
}

fn event(name: &str, id: u64, data: &impl Serialize) -> Bytes {
    // Only maps with keys that are no strings fail, and there are none.
    let data = serde_json::to_string(data).unwrap_or_default();
    Bytes::from(format!("event: {name}\nid: {id}\nretry: {RETRY_MS}\ndata: {data}\n\n"))
}

/// Counts a dashboard as open until it is dropped.
struct Seat(Shown);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.viewers.leave();
    }
}

/// One dashboard's events.
pub(super) struct Events {
    seat: Seat,
    published: watch::Receiver<Published>,
    told: Option<u64>,
    span: Span,
}

/// Opens a stream that begins with so many minutes; `None` while too many are open.
pub(super) fn open(shown: &Shown, span: Span) -> Option<Events> {
    let seated = shown.viewers.enter(MAX_VIEWERS);
    seated.then(|| Events { seat: Seat(shown.clone()), published: shown.published.clone(), told: None, span })
}

impl Events {
    /// The next event: the newest second, or everything anew where some were missed. `None`: the collector is gone; the
    /// browser comes back when there is a new one.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        while let Some(told) = self.told {
            self.published.changed().await.ok()?;
            let newest = self.published.borrow_and_update().clone();
            if newest.tick == told + 1 && !newest.event.is_empty() {
                self.told = Some(newest.tick);
                return Some(newest.event);
            }
            if newest.tick > told {
                break;
            }
        }
        let sight = self.seat.0.look(Looks::Stream(self.span)).await.ok()?;
        self.told = Some(sight.tick);
        Some(sight.event)
    }

    /// As a body.
    pub(super) fn into_stream(self) -> impl Stream<Item = std::io::Result<Bytes>> {
        stream::unfold(self, |mut events| async move { Some((Ok(events.next().await?), events)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{View, WorkerRow};

    #[test]
    fn a_second_tells_the_parts_that_it_has_changed() {
        let frame = |value| Frame { at_ms: 1_000, values: vec![value; COLUMNS.len()].into() };
        let told = |event: Bytes| {
            let text = String::from_utf8(event.to_vec()).unwrap();
            let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            serde_json::from_str::<serde_json::Value>(data).unwrap()
        };
        let names = |told: &serde_json::Value| told["parts"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let (quiet, busy) = ([frame(0.0)], [frame(7.0)]);
        let view = View::default();
        let (before, same) = (Parts::new(&view, &quiet, None), Parts::new(&view, &quiet, None));
        let all = told(snapshot(1, &before, &quiet));
        assert_eq!(names(&all), ["map", "problems", "services", "slow", "tiles", "workers"]);
        let second = told(delta(2, same.changed_since(&before), &quiet));
        assert!(names(&second).is_empty() && second["columns"]["requests"] == 0, "{second}");
        let other = Parts::new(&view, &busy, None);
        let second = told(delta(3, other.changed_since(&same), &busy));
        assert_eq!(
            (names(&second), &second["columns"]["requests"]),
            (vec!["map".to_owned(), "tiles".into()], &7.into())
        );
        assert_eq!(second["parts"]["tiles"], told(snapshot(3, &other, &busy))["parts"]["tiles"]);
    }

    #[test]
    fn a_second_tells_of_tables_what_has_changed_of_their_rows() {
        let frames = [Frame { at_ms: 1_000, values: vec![0.0; COLUMNS.len()].into() }];
        let worker =
            |name: &str, score| WorkerRow { worker: name.into(), score, state: "ready".into(), ..WorkerRow::default() };
        let view = |workers: Vec<WorkerRow>| View { workers_total: workers.len(), workers, ..View::default() };
        let told = |now: &Parts, before: &Parts| {
            let event = delta(2, now.changed_since(before), &frames);
            let text = String::from_utf8(event.to_vec()).unwrap();
            let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            let mut told = serde_json::from_str::<serde_json::Value>(data).unwrap();
            (told["parts"].take(), told["rows"].take())
        };
        let none = Parts::new(&view(Vec::new()), &frames, None);
        let two = Parts::new(&view(vec![worker("a", 9.0), worker("b", 8.0)]), &frames, Some(&none));
        let (parts, rows) = told(&two, &none);
        assert!(parts["workers"].as_str().unwrap().contains("<tr data-row=\"0\"") && rows.is_null(), "{parts} {rows}");
        // One overtakes the other: its score, and the order.
        let overtaken = Parts::new(&view(vec![worker("b", 9.5), worker("a", 9.0)]), &frames, Some(&two));
        let (parts, rows) = told(&overtaken, &two);
        assert!(parts.get("workers").is_none(), "{parts}");
        assert_eq!(rows, serde_json::json!({"workers": {"order": [1, 0], "cells": {"1": {"3": "9.5"}}}}));
        // A page that begins now is told of rows by the same numbers.
        let all = snapshot(3, &overtaken, &frames);
        let (first, second) = (r#"<tr data-row=\"1\""#, r#"<tr data-row=\"0\""#);
        let text = String::from_utf8(all.to_vec()).unwrap();
        assert!(text.find(first).unwrap() < text.find(second).unwrap(), "{text}");
    }

    #[test]
    fn numbers_are_short_and_nothing_is_null() {
        let text = |value| serde_json::to_string(&Number(value)).unwrap();
        assert_eq!(text(f32::NAN), "null");
        assert_eq!(text(12.0), "12");
        assert_eq!(text(0.001_234_567), "0.0012346");
        assert_eq!(text(98_765.43), "98765.0");
        assert_eq!(text(0.0), "0");
    }
}
