//! How services that share a process reach each other.

use std::io;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract::Contract;
use crate::loopback;
use crate::port::{Port, Service};

/// Calls that may be behind one mailbox at once: what the balancer's queue holds by default.
const MAILBOX: usize = 10_000;

/// What stands between two services of one process. A service cannot tell which it is; `inline` is the fastest by far,
/// and the others exist so that whole stacks can be tested over them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Wiring {
    /// A function call.
    #[default]
    Inline,
    /// The mailbox of an actor.
    Mailbox,
    /// A link in memory: every call is encoded and decoded.
    Loopback,
}

impl Wiring {
    /// A port to a service of this thread.
    ///
    /// # Errors
    /// When the kernel gives no random bytes for a loopback's handshake.
    pub fn port<C: Contract>(self, service: Rc<dyn Service<C>>) -> io::Result<Port<C>> {
        Ok(match self {
            Self::Inline => Port::inline(service),
            Self::Mailbox => Port::mailbox(service, MAILBOX),
            Self::Loopback => return loopback::port(service),
        })
    }
}
