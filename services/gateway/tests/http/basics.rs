//! Methods, routes, heads, ids, problems.

use crate::support::*;

#[test]
fn a_request_reaches_the_service_and_its_answer_the_client() {
    let running = serve(config(), &functions(), echo);
    let mut client = Client::connect(&running);
    for _ in 0..3 {
        let response = client.get("/hello?name=x");
        assert_eq!(response.status, 200, "{}", response.head);
        assert!(response.text().starts_with("GET /hello?name=x hello a.example\n"), "{}", response.text());
        assert_eq!(response.field("content-type"), Some("text/plain"));
        assert_eq!(response.field("x-request-id").map(str::len), Some(32));
        assert_eq!(response.field("server"), None);
        assert!(response.field("date").is_some());
    }
}
