//! Entries for the tests of this module.

use bytes::Bytes;
use troupe_cache::entry::Entry;
use troupe_cache::freshness::Times;
use troupe_cache::policy::Policy;
use troupe_cache::storing::judge;
use troupe_cache::time::Moment;
use troupe_wire::head::{RequestHead, RequestHeadBuilder, RequestParts, ResponseHeadBuilder, Scheme, Version};

/// `GET http://a/`.
pub(super) fn request() -> RequestHead {
    let parts = RequestParts {
        version: Version::Http11,
        scheme: Scheme::Http,
        method: "GET",
        target: "/",
        authority: "a",
        remote_addr: "192.0.2.1",
        remote_port: "1",
        local_addr: "192.0.2.2",
        local_port: "80",
    };
    RequestHeadBuilder::default().finish(&parts).unwrap()
}

/// The answer to it that came with this `Cache-Control` at `received`.
pub(super) fn entry(control: &str, received: Moment) -> Entry {
    let mut response = ResponseHeadBuilder::default();
    response.field(b"cache-control", control.as_bytes()).unwrap();
    let (head, times) = (response.finish(200), Times { requested: received, received });
    Entry::new(judge(&request(), &head, times, &Policy::new()).unwrap(), &head, Bytes::new())
}
