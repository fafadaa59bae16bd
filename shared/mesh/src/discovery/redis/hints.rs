//! Listening for hints: something has changed, so poll now.
//!
//! A hint that is lost costs a poll's pause and nothing else, so nothing here is an error worth a line.

use std::time::Duration;

use super::Shared;

/// Pause before listening again, about. Polling goes on meanwhile.
const PAUSE: Duration = Duration::from_secs(2);

/// Listens, and tells of each hint, until it is dropped.
pub(super) async fn listen(shared: &Shared) {
    let channels: Vec<String> = shared.watched.borrow().iter().map(|watched| watched.keys.changes()).collect();
    loop {
        match shared.redis.subscribe(&channels).await {
            Ok(mut subscription) => {
                // What was published before was not heard.
                shared.hinted.notify_one();
                while subscription.next().await.is_some() {
                    shared.hinted.notify_one();
                }
            }
            Err(error) => tracing::debug!(%error, "no hints from redis for now; polling goes on"),
        }
        tokio::time::sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
    }
}
