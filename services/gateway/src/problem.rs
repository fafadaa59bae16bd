//! The one place where a failure becomes an HTTP answer: an RFC 9457 problem document, or a small page for people.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;
use troupe_mesh::failure::{Failure, Outcome, Stage};
use troupe_node::html::escape;

use crate::answer::Answer;
use crate::metrics::Cause;

/// What `Retry-After` says when a failure names no time: long enough for a restart, short enough for a person.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The status that logs show for a request whose client left. Nobody receives it.
pub(crate) const CLIENT_CLOSED: u16 = 499;

/// What a problem document says beside its status.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Problem<'a> {
    pub(crate) status: u16,
    pub(crate) detail: &'a str,
    /// The stage that failed, or that spent the time.
    pub(crate) stage: Stage,
    pub(crate) outcome: Option<Outcome>,
    /// The path of the request, when there was one.
    pub(crate) instance: &'a str,
    pub(crate) request_id: &'a str,
    /// What only people who develop may read.
    pub(crate) debug: Option<&'a str>,
}

/// The status that stands for a failure.
pub(crate) fn status(failure: &Failure) -> u16 {
    let asked = failure.status.filter(|status| (400..600).contains(status));
    match failure.outcome {
        Outcome::Unreachable => 503,
        Outcome::Overloaded => {
            if asked == Some(429) {
                429
            } else {
                503
            }
        }
        Outcome::Deadline => 504,
        Outcome::Cancelled => CLIENT_CLOSED,
        Outcome::Incompatible | Outcome::Broken => 502,
        Outcome::Refused => asked.unwrap_or(500),
        Outcome::Internal => 500,
    }
}

/// The answer to a call that failed. `development` shows what otherwise only logs show.
pub(crate) fn of_failure(failure: &Failure, instance: &str, request_id: &str, html: bool, development: bool) -> Answer {
    let status = match status(failure) {
        // A call that was cancelled although its client is still there.
        CLIENT_CLOSED => 503,
        status => status,
    };
    let named;
    let detail = match failure.outcome {
        Outcome::Deadline => {
            named = format!("{} ({})", failure.reason, failure.stage.as_str());
            &named
        }
        _ => &*failure.reason,
    };
    let problem = Problem {
        status,
        detail,
        stage: failure.stage,
        outcome: Some(failure.outcome),
        instance,
        request_id,
        debug: failure.detail.as_deref().filter(|_| development),
    };
    let retry = matches!(status, 429 | 503).then(|| seconds(failure.retry_after.unwrap_or(RETRY_AFTER)));
    problem.answer(html).with_retry_after(retry).because(Cause::of(failure))
}

/// Whole seconds, rounded up: coming back early helps nobody.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl Problem<'_> {
    pub(crate) fn answer(&self, html: bool) -> Answer {
        if html {
            return Answer::own(self.status, "text/html; charset=utf-8", self.page());
        }
        let mut document = json!({
            "type": self.outcome.map_or_else(|| "about:blank".to_owned(), |outcome| format!("urn:troupe:problem:{}", outcome.as_str())),
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
        });
        if let Some(members) = document.as_object_mut() {
            if !self.instance.is_empty() {
                members.insert("instance".to_owned(), self.instance.into());
            }
            members.insert("request_id".to_owned(), self.request_id.into());
            members.insert("stage".to_owned(), self.stage.as_str().into());
            if let Some(debug) = self.debug {
                members.insert("debug".to_owned(), debug.into());
            }
        }
        Answer::own(self.status, "application/problem+json", document.to_string())
    }

    fn page(&self) -> String {
        let title = title(self.status);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{} {title}</title>\n<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem;\
             color:#222}}code,pre{{background:#f3f3f3;padding:.1rem .3rem;white-space:pre-wrap}}</style>\n<h1>{} {title}</h1>\n<p>",
            self.status, self.status
        );
        page.push_str(&escape(self.detail));
        page.push_str("</p>\n");
        if let Some(debug) = self.debug {
            page.push_str("<pre>");
            page.push_str(&escape(debug));
            page.push_str("</pre>\n");
        }
        let _ = write!(page, "<p>Stage <code>{}</code>, request <code>", self.stage.as_str());
        page.push_str(&escape(self.request_id));
        page.push_str("</code></p>\n</html>\n");
        page
    }
}

fn title(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        status if status < 500 => "Client Error",
        _ => "Server Error",
    }
}

#[cfg(test)]
mod tests {
    use troupe_mesh::body::Body;

    use super::*;
    use crate::answer::Payload;

    fn text(answer: Answer) -> String {
        match answer.body {
            Payload::Body(Body::Full(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_outcome_has_its_status() {
        let failure = |outcome| Failure::new(outcome, Stage::Queue, "x");
        for (outcome, expected) in [
            (Outcome::Unreachable, 503),
            (Outcome::Overloaded, 503),
            (Outcome::Deadline, 504),
            (Outcome::Cancelled, 499),
            (Outcome::Incompatible, 502),
            (Outcome::Refused, 500),
            (Outcome::Broken, 502),
            (Outcome::Internal, 500),
        ] {
            assert_eq!(status(&failure(outcome)), expected, "{outcome:?}");
        }
        assert_eq!(status(&Failure::refused(Stage::Php, 404, "x")), 404);
        assert_eq!(status(&Failure::refused(Stage::Php, 200, "x")), 500);
        let limited = Failure { status: Some(429), ..failure(Outcome::Overloaded) };
        assert_eq!(status(&limited), 429);
    }

    #[test]
    fn documents_name_the_stage_and_keep_secrets() {
        let failure = Failure::deadline(Stage::Php).with_detail("/srv/app/x.php:3");
        let document = text(of_failure(&failure, "/a", "id-1", false, false));
        let value: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!((&value["status"], &value["stage"]), (&json!(504), &json!("php")));
        assert_eq!((&value["request_id"], &value["instance"]), (&json!("id-1"), &json!("/a")));
        assert_eq!(value["type"], "urn:troupe:problem:deadline");
        assert!(value["detail"].as_str().unwrap().contains("php") && !document.contains("x.php"));
        assert!(text(of_failure(&failure, "/a", "id-1", false, true)).contains("x.php"));
    }

    #[test]
    fn pages_are_escaped() {
        let failure = Failure::refused(Stage::Php, 404, "<script>alert(1)</script>");
        let page = text(of_failure(&failure, "/", "a", true, false));
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!((seconds(Duration::from_millis(1)), seconds(Duration::from_secs(2))), (1, 2));
    }
}
