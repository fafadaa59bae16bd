//! The dashboard's files, which are part of the binary.

use actix_web::http::header;
use actix_web::{HttpResponse, web};

/// How long a browser may use a file without asking: a new binary brings new ones.
const CACHED: &str = "private, max-age=300";

struct Asset {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
}

/// uPlot 1.6.32 is not ours; its licence is served beside it.
const ASSETS: [Asset; 6] = [
    Asset {
        path: "/dashboard/dashboard.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../assets/dashboard.js"),
    },
    Asset {
        path: "/dashboard/dashboard.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("../../assets/dashboard.css"),
    },
    Asset { path: "/dashboard/icon.svg", kind: "image/svg+xml", content: include_str!("../../assets/icon.svg") },
    Asset {
        path: "/dashboard/uplot.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../assets/uplot/uPlot.iife.min.js"),
    },
    Asset {
        path: "/dashboard/uplot.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("../../assets/uplot/uPlot.min.css"),
    },
    Asset {
        path: "/dashboard/uplot-license.txt",
        kind: "text/plain; charset=utf-8",
        content: include_str!("../../assets/uplot/LICENSE"),
    },
];

/// Adds the files. They hold no secrets, and the page that names them asks for the token.
pub(super) fn configure(app: &mut web::ServiceConfig) {
    for asset in &ASSETS {
        app.route(
            asset.path,
            web::get().to(move || async move {
                HttpResponse::Ok()
                    .content_type(asset.kind)
                    .insert_header((header::CACHE_CONTROL, CACHED))
                    .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
                    .body(asset.content)
            }),
        );
    }
}
