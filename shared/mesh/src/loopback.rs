//! A link in memory: every call is encoded, carried as frames and decoded, on one thread and without a socket.
//!
//! Tests run whole stacks over it, so that what only shows on a link (a head that does not survive its encoding, a
//! limit, a cancel) shows without one.

use std::io;
use std::rc::Rc;

use bytes::BytesMut;
use tokio::io::{duplex, split};
use troupe_wire::handshake::{Handshake, Keys, Role, Session};

use crate::contract::Contract;
use crate::link::{Identity, Link, LinkSetup, Memory, Services};
use crate::port::{Port, Service};

/// What the pipe holds each way, like a socket's buffer.
const PIPE: usize = 256 * 1024;

/// A port whose calls are encoded and decoded on their way to `service`.
///
/// # Errors
/// When the kernel gives no random bytes for the handshake.
pub fn port<C: Contract>(service: Rc<dyn Service<C>>) -> io::Result<Port<C>> {
    let services = Services::new().with(Port::inline(service));
    Ok(Port::inline(Rc::new(link(services)?)))
}

/// A link whose other end serves `services` on this thread.
///
/// # Errors
/// As for [`port`].
pub fn link(services: Services) -> io::Result<Link> {
    link_within(services, Memory::process())
}

/// The same, with both ends in memory of their own.
///
/// # Errors
/// As for [`port`].
pub fn link_within(services: Services, memory: Memory) -> io::Result<Link> {
    let calls = services.contracts();
    let mut caller = LinkSetup::caller(Identity::new("loopback", "caller", 1)?, Keys::none(), calls);
    let mut callee = LinkSetup::callee(Identity::new("loopback", "callee", 1)?, Keys::none(), services);
    (caller.memory, callee.memory) = (memory.clone(), memory);
    let (caller_session, callee_session) = meet(&caller, &callee)?;
    let (near, far) = duplex(PIPE);
    let ((near_reader, near_writer), (far_reader, far_writer)) = (split(near), split(far));
    Link::start(Role::Callee, &callee, callee_session, far_reader, far_writer, BytesMut::new());
    Ok(Link::start(Role::Caller, &caller, caller_session, near_reader, near_writer, BytesMut::new()))
}

/// The handshake, from buffer to buffer.
fn meet(caller: &LinkSetup, callee: &LinkSetup) -> io::Result<(Session, Session)> {
    let (mut to_callee, mut to_caller) = (BytesMut::new(), BytesMut::new());
    let mut near = Handshake::new(Role::Caller, caller.hello(Role::Caller)?, caller.keys.clone(), &mut to_callee);
    let mut far = Handshake::new(Role::Callee, callee.hello(Role::Callee)?, callee.keys.clone(), &mut to_caller);
    let (mut near_session, mut far_session) = (None, None);
    while !to_callee.is_empty() || !to_caller.is_empty() {
        if !to_callee.is_empty() {
            far_session = far.advance(&mut to_callee, &mut to_caller).map_err(io::Error::other)?;
        }
        if !to_caller.is_empty() {
            near_session = near.advance(&mut to_caller, &mut to_callee).map_err(io::Error::other)?;
        }
    }
    near_session.zip(far_session).ok_or_else(|| io::Error::other("both sides of a loopback went silent"))
}
