//! For tests: a pool's actor that panics when it is told to.

use actix::{Context, Handler, Message};

use super::PoolActor;

/// Makes the actor panic.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Fail;

impl Handler<Fail> for PoolActor {
    type Result = ();

    fn handle(&mut self, _: Fail, _: &mut Context<Self>) {
        panic!("a fault in the actor");
    }
}
