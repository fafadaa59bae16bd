//! The gateway over real sockets, with a service in the test's own hands behind it.

mod basics;
mod support;
