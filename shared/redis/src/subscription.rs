//! Listening to what is published.

use futures_util::StreamExt;
use redis::aio::PubSub;

/// A connection that listens. What is published while there is none is lost: it may only hint at what is stored.
pub struct Subscription {
    listener: PubSub,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl Subscription {
    pub(crate) fn new(listener: PubSub) -> Self {
        Self { listener }
    }

    /// Waits for the next message and gives back the name of its channel; what it says is nobody's business here. `None`
    /// once the connection has ended.
    pub async fn next(&mut self) -> Option<String> {
        let message = self.listener.on_message().next().await?;
        Some(message.get_channel_name().to_owned())
    }
}
