//! The dashboard's files, which are part of the binary.

use bytes::Bytes;

use super::{DASHBOARD, Whole};

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
        path: "/dashboard.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../assets/dashboard.js"),
    },
    Asset {
        path: "/dashboard.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("../../assets/dashboard.css"),
    },
    Asset { path: "/icon.svg", kind: "image/svg+xml", content: include_str!("../../assets/icon.svg") },
    Asset {
        path: "/uplot.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../../assets/uplot/uPlot.iife.min.js"),
    },
    Asset {
        path: "/uplot.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("../../assets/uplot/uPlot.min.css"),
    },
    Asset {
        path: "/uplot-license.txt",
        kind: "text/plain; charset=utf-8",
        content: include_str!("../../assets/uplot/LICENSE"),
    },
];

/// The file at `below`, which stands behind `/dashboard`.
pub(super) fn find(below: &str) -> Option<Whole> {
    let asset = ASSETS.iter().find(|asset| asset.path == below)?;
    Some(Whole { cache: CACHED, ..Whole::new(200, asset.kind, Bytes::from_static(asset.content.as_bytes())) })
}

/// Whether a path is that of a file.
pub(super) fn is_one(path: &str) -> bool {
    path.strip_prefix(DASHBOARD).is_some_and(|below| ASSETS.iter().any(|asset| asset.path == below))
}
