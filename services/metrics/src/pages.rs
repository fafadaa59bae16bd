//! The metrics service's pages: `/metrics/cluster` for Prometheus, the dashboard for people.
//!
//! They are made here for whoever serves them: the admin listener of this process, and gateways that show the dashboard
//! ([`face`]). Both ask for the admin token where there is one.

mod actions;
mod assets;
pub(crate) mod events;
pub(crate) mod face;
pub(crate) mod html;
pub(crate) mod span;

use std::sync::Arc;

use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, guard, web};
use bytes::Bytes;
use serde_json::json;
use tokio::sync::watch;
use troupe_mesh::supervise::{Handle, SendError};
use troupe_node::admin::{Access, problem};

use crate::collector::{Collector, Look, Looks, Published, Render, Sight, Viewers};
use events::Events;
use span::Span;

/// Where the dashboard is; everything of it is below.
const DASHBOARD: &str = "/dashboard";

/// Prometheus text, version 0.0.4.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything comes from here, nothing is run that stands in the page, and nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What pages show: the collector, and what it publishes each second.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    collector: Handle<Collector>,
    published: watch::Receiver<Published>,
    viewers: Arc<Viewers>,
}

/// What is asked for, whatever server it came in by.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    /// Whether it changes something, by POST; else it reads.
    post: bool,
    /// Whether nothing but the header fields is wanted, by HEAD.
    head: bool,
    path: &'a str,
    query: &'a str,
}

/// What is answered.
enum Answer {
    Whole(Whole),
    /// Without a stream for who wants its header fields alone: nothing would ever be written of it, so that nobody would
    /// notice the client leave.
    Events(Option<Events>),
}

/// An answer that is at hand.
#[derive(Debug, Clone)]
struct Whole {
    status: u16,
    kind: &'static str,
    cache: &'static str,
    /// Whether it is a page of HTML.
    page: bool,
    retry_after: Option<&'static str>,
    body: Bytes,
}

impl Shown {
    pub(crate) fn new(
        collector: Handle<Collector>,
        published: watch::Receiver<Published>,
        viewers: Arc<Viewers>,
    ) -> Self {
        Self { collector, published, viewers }
    }

    pub(crate) fn collector(&self) -> Handle<Collector> {
        self.collector.clone()
    }

    async fn look(&self, at: Looks) -> Result<Sight, SendError> {
        self.collector.send(Look(at)).await
    }

    /// Answers what is below [`DASHBOARD`], to somebody who may ask.
    async fn answer(&self, asked: Asked<'_>) -> Answer {
        let below = asked.path.strip_prefix(DASHBOARD).unwrap_or_default();
        Answer::Whole(match (asked.post, below) {
            (true, below) => actions::carry_out(self, below, asked.query).await,
            (false, "" | "/") => match self.look(Looks::Page(Span::of_query(asked.query))).await {
                Ok(sight) => Whole { page: true, ..Whole::new(200, "text/html; charset=utf-8", sight.page) },
                Err(error) => Whole::away(&error),
            },
            (false, "/events") if asked.head => return Answer::Events(None),
            (false, "/events") => match events::open(self, Span::of_query(asked.query)) {
                Some(events) => return Answer::Events(Some(events)),
                None => {
                    Whole { retry_after: Some("10"), ..Whole::problem(503, "too many dashboards are open; close one") }
                }
            },
            (false, below) => match assets::find(below) {
                Some(asset) => asset,
                None => Whole::problem(404, "there is no such page; the dashboard is at /dashboard"),
            },
        })
    }
}

impl Whole {
    fn new(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, kind, cache: "no-store", page: false, retry_after: None, body: body.into() }
    }

    fn problem(status: u16, detail: &str) -> Self {
        let status_code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = status_code.canonical_reason().unwrap_or("error");
        let document = json!({ "type": "about:blank", "title": title, "status": status, "detail": detail });
        Self::new(status, "application/problem+json", document.to_string())
    }

    fn away(error: &SendError) -> Self {
        Self::problem(503, &format!("the metrics service does not answer: {error}"))
    }

    /// Its header fields beside the length.
    fn fields(&self) -> Vec<(header::HeaderName, &'static str)> {
        let mut fields = vec![
            (header::CONTENT_TYPE, self.kind),
            (header::CACHE_CONTROL, self.cache),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        if self.page {
            fields.extend([(header::CONTENT_SECURITY_POLICY, POLICY), (header::REFERRER_POLICY, "no-referrer")]);
        }
        fields.extend(self.retry_after.map(|seconds| (header::RETRY_AFTER, seconds)));
        fields
    }
}

/// Adds the pages to the admin listener.
pub(crate) fn configure(app: &mut web::ServiceConfig, shown: &Shown) {
    let read = || guard::Any(guard::Get()).or(guard::Head());
    let asked = || guard::Any(guard::Get()).or(guard::Head()).or(guard::Post());
    app.app_data(web::Data::new(shown.clone()))
        .service(web::resource("/metrics/cluster").route(web::route().guard(read()).to(cluster)))
        .service(
            web::resource(["/dashboard", "/dashboard/{rest:.*}"]).route(web::route().guard(asked()).to(dashboard)),
        );
}

async fn cluster(request: HttpRequest, shown: web::Data<Shown>, access: web::Data<Access>) -> HttpResponse {
    if let Err(refusal) = access.check(&request) {
        return *refusal;
    }
    match shown.collector.send(Render).await {
        Ok(text) => {
            HttpResponse::Ok().content_type(METRICS_TYPE).insert_header((header::CACHE_CONTROL, "no-store")).body(text)
        }
        Err(error) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &format!("the metrics service does not answer: {error}"))
        }
    }
}

async fn dashboard(request: HttpRequest, shown: web::Data<Shown>, access: web::Data<Access>) -> HttpResponse {
    let asked = Asked {
        post: request.method() == Method::POST,
        head: request.method() == Method::HEAD,
        path: request.path(),
        query: request.query_string(),
    };
    // What the page is made of holds no secrets; the page itself asks.
    if (asked.post || !assets::is_one(asked.path))
        && let Err(refusal) = access.check_call(&request)
    {
        return *refusal;
    }
    match shown.answer(asked).await {
        Answer::Whole(whole) => {
            let status = StatusCode::from_u16(whole.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = HttpResponse::build(status);
            for field in whole.fields() {
                answer.insert_header(field);
            }
            answer.body(whole.body)
        }
        Answer::Events(events) => {
            let mut answer = HttpResponse::Ok();
            for field in events::FIELDS {
                answer.insert_header(field);
            }
            match events {
                Some(events) => answer.streaming(events.into_stream()),
                None => answer.finish(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
