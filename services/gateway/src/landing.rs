//! What `/` shows when no route claims it.

use crate::answer::Answer;

const PAGE: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
<title>Troupe</title>\n<style>body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem;color:#222}\
code{background:#f3f3f3;padding:.1rem .3rem}</style>\n<h1>Troupe is serving</h1>\n\
<p>No route claims this page. With the default configuration a file <code>functions/hello.php</code> answers at \
<a href=\"/api/hello\">/api/hello</a>.</p>\n<ul>\n<li><a href=\"/api/hello\">A first function</a></li>\n<li><a href=\"/health\">Health</a></li>\n</ul>\n</html>\n";

/// The landing page.
pub(crate) fn page() -> Answer {
    Answer::own(200, "text/html; charset=utf-8", PAGE)
}
