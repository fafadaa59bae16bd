//! What a Redis without room for more comes to.

use super::*;

/// It took nothing any more until the service was restarted.
#[actix_rt::test]
async fn a_node_of_a_cluster_that_was_full_for_a_moment_takes_answers_again() {
    let nodes = Server::cluster();
    let instance = Instance::over_cluster(&nodes).await;
    let room = |bytes: &str| {
        nodes.iter().for_each(|node| {
            node.command(&["CONFIG", "SET", "maxmemory", bytes]);
        });
    };
    let right = instance.miss("/a", &[]).await;
    room("1");
    assert_eq!(instance.bring(right, "/a", &[], &[], "first").await, Kept::NoRoom);
    room("0");
    assert_eq!(instance.fill("/a", "second").await, Kept::Stored);
    assert_eq!(instance.text("/a", &[]).await.as_deref(), Some("second"));
}
