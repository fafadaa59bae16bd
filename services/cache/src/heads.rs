//! Heads for tests.

use troupe_wire::head::{
    RequestHead, RequestHeadBuilder, RequestParts, ResponseHead, ResponseHeadBuilder, Scheme, Version,
};

/// A GET request of `target`.
pub(crate) fn get(target: &str, fields: &[(&str, &str)]) -> RequestHead {
    request("GET", "a.example", target, fields)
}

pub(crate) fn request(method: &str, authority: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut builder = RequestHeadBuilder::default();
    for (name, value) in fields {
        builder.field(name.to_ascii_lowercase(), value.as_bytes()).unwrap();
    }
    let parts = RequestParts {
        version: Version::Http11,
        scheme: Scheme::Http,
        method,
        target,
        authority,
        remote_addr: "192.0.2.1",
        remote_port: "1",
        local_addr: "192.0.2.2",
        local_port: "80",
    };
    builder.finish(&parts).unwrap()
}

pub(crate) fn response(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
    let mut builder = ResponseHeadBuilder::default();
    for (name, value) in fields {
        builder.field(name.as_bytes(), value.as_bytes()).unwrap();
    }
    builder.finish(status)
}
