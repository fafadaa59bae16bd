//! Calls and their replies, with real PHP.

use crate::support::*;

#[test]
fn a_function_answers() {
    on_runtime(async {
        let stage =
            Stage::start(&[("hello", "fn() => ['message' => 'hello', 'name' => $_GET['name'] ?? 'world']")], |_| {})
                .await;
        let pool = stage.handle();
        let reply = get(&pool, "hello?name=x").await.unwrap();
        assert_eq!(reply.head.status(), 200);
        assert_eq!(reply.head.field("content-type"), Some(&b"application/json"[..]));
        assert_eq!(text(reply.body).await, r#"{"message":"hello","name":"x"}"#);
        stage.pools.stop().await;
    });
}
