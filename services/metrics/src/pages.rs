//! The metrics service's pages on the admin listener.
//!
//! `/metrics/cluster` is for Prometheus; the rest shows the same to people. All of it asks for the admin token where there
//! is one.

mod assets;
pub(crate) mod events;
pub(crate) mod html;

use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, guard, web};
use tokio::sync::watch;
use troupe_mesh::supervise::{Handle, SendError};
use troupe_node::admin::{Access, problem};

use crate::collector::{Collector, Look, Looks, Published, Render, Sight, Viewers};

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

    async fn look(&self, at: Looks) -> Result<Sight, HttpResponse> {
        self.collector.send(Look(at)).await.map_err(|error| away(&error))
    }
}

/// Adds the pages.
pub(crate) fn configure(app: &mut web::ServiceConfig, shown: &Shown) {
    let read = || guard::Any(guard::Get()).or(guard::Head());
    app.app_data(web::Data::new(shown.clone()))
        .service(web::resource("/metrics/cluster").route(web::route().guard(read()).to(cluster)))
        .service(web::resource(["/dashboard", "/dashboard/"]).route(web::route().guard(read()).to(dashboard)))
        .service(web::resource("/dashboard/events").route(web::get().to(events::serve)));
    assets::configure(app);
}

async fn cluster(request: HttpRequest, shown: web::Data<Shown>, access: web::Data<Access>) -> HttpResponse {
    if let Err(refusal) = access.check(&request) {
        return *refusal;
    }
    match shown.collector.send(Render).await {
        Ok(text) => {
            HttpResponse::Ok().content_type(METRICS_TYPE).insert_header((header::CACHE_CONTROL, "no-store")).body(text)
        }
        Err(error) => away(&error),
    }
}

async fn dashboard(request: HttpRequest, shown: web::Data<Shown>, access: web::Data<Access>) -> HttpResponse {
    if let Err(refusal) = access.check_call(&request) {
        return *refusal;
    }
    match shown.look(Looks::Page).await {
        Ok(sight) => HttpResponse::Ok()
            .content_type("text/html; charset=utf-8")
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .body(sight.page),
        Err(answer) => answer,
    }
}

fn away(error: &SendError) -> HttpResponse {
    problem(StatusCode::SERVICE_UNAVAILABLE, &format!("the metrics service does not answer: {error}"))
}
