//! A URL whose answers vary, and then do not.

use super::*;

/// The names of the fields were taken for the token of a later holder.
#[actix_rt::test]
async fn a_plain_answer_replaces_what_was_said_of_variants() {
    let server = Server::start();
    let instance = Instance::over(&server).await;
    let (english, german) = ([("accept-language", "en")], [("accept-language", "de")]);
    let right = instance.miss("/a", &english).await;
    let vary = [("vary", "accept-encoding, accept-language")];
    assert_eq!(instance.bring(right, "/a", &english, &vary, "english").await, Kept::Stored);
    assert_eq!(instance.text("/a", &english).await.as_deref(), Some("english"));
    let right = instance.miss("/a", &german).await;
    assert_eq!(instance.bring(right, "/a", &german, &[], "plain").await, Kept::Stored);
    assert_eq!(instance.text("/a", &german).await.as_deref(), Some("plain"));
    assert_eq!(instance.text("/a", &english).await.as_deref(), Some("plain"));
}
