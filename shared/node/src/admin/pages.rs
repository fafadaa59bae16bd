//! The admin pages.

use std::time::Duration;

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, guard, web};
use serde_json::{Value, json};

use super::{Access, AdminState};

/// Prometheus text, version 0.0.4.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn configure(app: &mut web::ServiceConfig, live_within: Duration) {
    let read = || guard::Any(guard::Get()).or(guard::Head());
    app.service(
        web::resource("/livez")
            .route(web::route().guard(read()).to(move |state| livez(state, live_within)))
            .default_service(web::to(only_reads)),
    )
    .service(web::resource("/readyz").route(web::route().guard(read()).to(readyz)).default_service(web::to(only_reads)))
    .service(
        web::resource("/metrics").route(web::route().guard(read()).to(metrics)).default_service(web::to(only_reads)),
    );
}

async fn livez(state: web::Data<AdminState>, within: Duration) -> HttpResponse {
    let stalled = state.watchdog.stalled(within);
    let live = stalled.is_empty();
    let threads: Vec<Value> = stalled
        .iter()
        .map(|stalled| {
            json!({
                "thread": stalled.thread,
                "stalled_seconds": stalled.since.as_secs_f64(),
                "ended": stalled.ended,
            })
        })
        .collect();
    status(live).json(json!({
        "live": live,
        "threads": state.watchdog.watched(),
        "stalled": threads,
    }))
}

async fn readyz(state: web::Data<AdminState>) -> HttpResponse {
    let report = state.readiness.report();
    status(report.ready).json(report)
}

async fn metrics(request: HttpRequest, state: web::Data<AdminState>, access: web::Data<Access>) -> HttpResponse {
    if let Err(refusal) = access.check(&request) {
        return *refusal;
    }
    let metrics = state.metrics.clone();
    // Rendering clones every distribution under a lock and may take milliseconds.
    match web::block(move || metrics.render()).await {
        Ok(text) => {
            HttpResponse::Ok().content_type(METRICS_TYPE).insert_header((header::CACHE_CONTROL, "no-store")).body(text)
        }
        Err(_) => problem(StatusCode::SERVICE_UNAVAILABLE, "the metrics could not be rendered; the log says why"),
    }
}

async fn only_reads(request: HttpRequest) -> HttpResponse {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("{} takes GET and HEAD", request.path()));
    answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    answer
}

pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    let mut answer =
        problem(StatusCode::NOT_FOUND, "there is no such page; there are /livez, /readyz, /metrics and /api/status");
    if request.method() == Method::HEAD {
        answer = answer.drop_body().map_into_boxed_body();
    }
    answer
}

fn status(good: bool) -> actix_web::HttpResponseBuilder {
    let mut answer = if good { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    answer.insert_header((header::CACHE_CONTROL, "no-store"));
    answer
}

/// A problem document (RFC 9457).
pub fn problem(status: StatusCode, detail: &str) -> HttpResponse {
    let document = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("error"),
        "status": status.as_u16(),
        "detail": detail,
    });
    HttpResponse::build(status).content_type("application/problem+json").body(document.to_string())
}
