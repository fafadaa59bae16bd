//! The dashboard's one stream of events: first everything, then each second.
//!
//! A reader sets its own pace: it is handed the newest second when it asks, and everything anew when it has missed some. So
//! nothing is queued for one that is slow.

use std::collections::BTreeMap;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::stream;
use serde::{Serialize, Serializer};
use troupe_node::admin::{Access, problem};

use super::Shown;
use super::html::Parts;
use crate::cluster::{COLUMNS, Frame, View};
use crate::collector::Looks;

/// Seconds that a dashboard shows.
pub(crate) const SHOWN: usize = 300;
/// Dashboards that may be open at once: each costs one event a second.
const MAX_VIEWERS: usize = 32;
/// What the browser waits before it comes back, in milliseconds.
const RETRY_MS: u32 = 2_000;

/// Everything that a dashboard begins with.
#[derive(Serialize)]
struct Snapshot {
    tick: u64,
    at: Vec<u64>,
    columns: BTreeMap<&'static str, Vec<Number>>,
    parts: Parts,
}

/// One more second.
#[derive(Serialize)]
struct Delta {
    tick: u64,
    at: u64,
    columns: BTreeMap<&'static str, Number>,
    parts: Parts,
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
pub(crate) fn snapshot(tick: u64, view: &View, frames: &[Frame]) -> Bytes {
    let column =
        |place: usize| frames.iter().map(move |frame| Number(frame.values.get(place).copied().unwrap_or(f32::NAN)));
    let columns = COLUMNS.iter().enumerate().map(|(place, known)| (known.id, column(place).collect()));
    let at = frames.iter().map(|frame| frame.at_ms).collect();
    event("snapshot", tick, &Snapshot { tick, at, columns: columns.collect(), parts: Parts::new(view, frames) })
}

/// The event that tells the newest second.
pub(crate) fn delta(tick: u64, view: &View, frames: &[Frame]) -> Bytes {
    let Some(frame) = frames.last() else { return Bytes::new() };
    let numbers = COLUMNS.iter().zip(&frame.values).map(|(column, value)| (column.id, Number(*value)));
    event("second", tick, &Delta { tick, at: frame.at_ms, columns: numbers.collect(), parts: Parts::new(view, frames) })
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

pub(super) async fn serve(request: HttpRequest, shown: web::Data<Shown>, access: web::Data<Access>) -> HttpResponse {
    if let Err(refusal) = access.check_call(&request) {
        return *refusal;
    }
    let shown = shown.get_ref().clone();
    if !shown.viewers.enter(MAX_VIEWERS) {
        let mut answer = problem(StatusCode::SERVICE_UNAVAILABLE, "too many dashboards are open; close one");
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("10"));
        return answer;
    }
    let seat = Seat(shown.clone());
    let events = stream::unfold((seat, shown.published.clone(), None), |(seat, mut published, told)| async move {
        loop {
            if let Some(told) = told {
                // The collector is gone: the stream ends, and the browser comes back when there is a new one.
                published.changed().await.ok()?;
                let newest = published.borrow_and_update().clone();
                if newest.tick == told + 1 && !newest.event.is_empty() {
                    return Some((Ok::<_, std::io::Error>(newest.event), (seat, published, Some(newest.tick))));
                }
                if newest.tick <= told {
                    continue;
                }
            }
            let sight = seat.0.look(Looks::Stream).await.ok()?;
            return Some((Ok(sight.event), (seat, published, Some(sight.tick))));
        }
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(events)
}

#[cfg(test)]
mod tests {
    use super::*;

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
