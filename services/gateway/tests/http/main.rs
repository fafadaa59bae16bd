//! The gateway over real sockets, with a service in the test's own hands behind it.

mod basics;
mod bodies;
mod cached;
mod cached_fire;
mod cdn;
mod faults;
mod lifecycle;
mod observed;
mod pipelined;
mod strict;
mod support;
mod tunnels;
