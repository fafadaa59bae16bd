//! The part of `$_SERVER` that changes from call to call. The runtime adds the constant part.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memrchr};
use smallvec::SmallVec;
use troupe_contracts::invoke::Invoke;
use troupe_wire::head::{RawParts, RequestHead, Scheme};
use troupe_wire::trace::TraceContext;

use crate::serialize::{self, Array};

/// Longest header name that becomes a variable; longer ones are of no use to anyone and cost a copy each.
const MAX_NAME: usize = 256;
/// Room for the names of a browser's request, without an allocation.
const NAMES: usize = 512;
/// The same for its fields.
const FIELDS: usize = 32;

/// Where the variables go.
trait Sink {
    fn entry(&mut self, name: &[u8], value: &[u8]);
}

/// Appends the variables as an array in `serialize()` format. `body_len` is the length of the body PHP will find, when it is
/// known.
pub(crate) fn write(out: &mut Vec<u8>, call: &Invoke, trace: Option<&TraceContext>, body_len: Option<u64>) {
    let array = serialize::array(out);
    let mut sink = Serialized { out, array };
    variables(&mut sink, call, trace, body_len);
    let Serialized { out, array } = sink;
    array.end(out);
}

/// Appends the variables in plain form: the values, each with a NUL behind it, and then their names, one per line.
///
/// The list of names is the same from call to call, so PHP keeps what it made of it; serialized keys would be parsed and
/// hashed anew each time. False when a value holds a NUL itself and nothing was appended: that call goes serialized.
pub(crate) fn write_plain(
    out: &mut Vec<u8>,
    call: &Invoke,
    trace: Option<&TraceContext>,
    body_len: Option<u64>,
) -> bool {
    let start = out.len();
    let mut sink = Plain { out, names: SmallVec::new(), entries: 0 };
    variables(&mut sink, call, trace, body_len);
    let Plain { out, names, entries } = sink;
    // Only `%00` in a path can bring one; whoever sent it gets the slower form.
    let fits = memchr_iter(0, out.get(start..).unwrap_or_default()).count() == entries;
    if fits {
        out.extend_from_slice(names.get(1..).unwrap_or_default());
    } else {
        out.truncate(start);
    }
    fits
}

struct Serialized<'a> {
    out: &'a mut Vec<u8>,
    array: Array,
}

impl Sink for Serialized<'_> {
    fn entry(&mut self, name: &[u8], value: &[u8]) {
        self.array.entry(self.out, name, value);
    }
}

struct Plain<'a> {
    out: &'a mut Vec<u8>,
    names: SmallVec<[u8; NAMES]>,
    entries: usize,
}

impl Sink for Plain<'_> {
    fn entry(&mut self, name: &[u8], value: &[u8]) {
        self.entries += 1;
        self.names.push(b'\n');
        self.names.extend_from_slice(name);
        self.out.extend_from_slice(value);
        self.out.push(0);
    }
}

fn variables(vars: &mut impl Sink, call: &Invoke, trace: Option<&TraceContext>, body_len: Option<u64>) {
    let (head, parts) = (&call.head, call.head.raw_parts());
    let (path, query) = match memchr(b'?', parts.target) {
        Some(at) => (parts.target.get(..at).unwrap_or_default(), parts.target.get(at + 1..).unwrap_or_default()),
        None => (parts.target, &[][..]),
    };
    vars.entry(b"REQUEST_METHOD", parts.method);
    vars.entry(b"REQUEST_URI", parts.target);
    vars.entry(b"QUERY_STRING", query);
    vars.entry(b"SERVER_PROTOCOL", head.version().as_str().as_bytes());
    vars.entry(b"REMOTE_ADDR", parts.remote_addr);
    vars.entry(b"REMOTE_PORT", parts.remote_port);
    vars.entry(b"SERVER_ADDR", parts.local_addr);
    vars.entry(b"SERVER_PORT", parts.local_port);
    vars.entry(b"SERVER_NAME", server_name(&parts));
    vars.entry(b"REQUEST_SCHEME", head.scheme().as_str().as_bytes());
    if head.scheme() == Scheme::Https {
        vars.entry(b"HTTPS", b"on");
    }
    paths(vars, path, usize::from(call.path_info));
    if let Some(len) = body_len.filter(|len| *len > 0) {
        vars.entry(b"CONTENT_LENGTH", len.to_string().as_bytes());
    }
    headers(vars, head, parts.authority);
    if let Some(trace) = trace {
        vars.entry(b"HTTP_TRACEPARENT", &trace.to_traceparent());
    }
}

fn server_name<'a>(parts: &RawParts<'a>) -> &'a [u8] {
    let name = match memrchr(b':', parts.authority).and_then(|at| parts.authority.split_at_checked(at)) {
        Some((name, port)) if port.iter().skip(1).all(u8::is_ascii_digit) => name,
        _ => parts.authority,
    };
    if name.is_empty() { parts.local_addr } else { name }
}

/// `SCRIPT_NAME` is the part of the path that chose the function, `PATH_INFO` what is behind it, both decoded, as CGI
/// has them. The runtime makes `PHP_SELF` of the two.
fn paths(vars: &mut impl Sink, path: &[u8], path_info: usize) {
    let (script, info) = path.split_at_checked(path_info).unwrap_or((path, &[]));
    vars.entry(b"SCRIPT_NAME", &decoded(script));
    if !info.is_empty() {
        vars.entry(b"PATH_INFO", &decoded(info));
    }
}

fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode(path).into()
}

fn headers(vars: &mut impl Sink, head: &RequestHead, authority: &[u8]) {
    let fields: SmallVec<[(&[u8], &[u8]); FIELDS]> = head.raw_fields().collect();
    let mut key = [0; MAX_NAME];
    let mut host = false;
    for (index, &(name, value)) in fields.iter().enumerate() {
        let (before, behind) = (fields.get(..index).unwrap_or_default(), fields.get(index + 1..).unwrap_or_default());
        let again = |others: &[(&[u8], &[u8])]| others.iter().any(|(other, _)| *other == name);
        match name {
            b"content-type" if !again(before) => {
                vars.entry(b"CONTENT_TYPE", value);
                continue;
            }
            // Said by what there is of a body, or of one hop only.
            b"content-type" | b"content-length" | b"connection" | b"transfer-encoding" => continue,
            // httpoxy: HTTP libraries read the variable HTTP_PROXY as the proxy to use.
            b"proxy" => continue,
            // Travels beside the head.
            b"traceparent" => continue,
            b"host" => host = true,
            b"x-request-id" => vars.entry(b"REQUEST_ID", value),
            _ => {}
        }
        // `X_Forwarded_For` would become the same variable as `X-Forwarded-For`, which a proxy in front vouches for.
        if name.contains(&b'_') || again(before) {
            continue;
        }
        let Some(key) = variable(name, &mut key) else { continue };
        if !again(behind) {
            vars.entry(key, value);
            continue;
        }
        let separator: &[u8] = if name == b"cookie" { b"; " } else { b", " };
        let mut joined = value.to_vec();
        for (_, value) in behind.iter().filter(|(later, _)| *later == name) {
            joined.extend_from_slice(separator);
            joined.extend_from_slice(value);
        }
        vars.entry(key, &joined);
    }
    if !host && !authority.is_empty() {
        vars.entry(b"HTTP_HOST", authority);
    }
}

fn variable<'a>(name: &[u8], key: &'a mut [u8; MAX_NAME]) -> Option<&'a [u8]> {
    const PREFIX: &[u8] = b"HTTP_";
    let place = key.get_mut(..PREFIX.len() + name.len())?;
    let (prefix, rest) = place.split_at_mut(PREFIX.len());
    prefix.copy_from_slice(PREFIX);
    for (to, from) in rest.iter_mut().zip(name) {
        *to = if *from == b'-' { b'_' } else { from.to_ascii_uppercase() };
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use troupe_contracts::invoke::InvokeFlags;
    use troupe_mesh::body::Body;
    use troupe_wire::head::{RequestHeadBuilder, RequestParts, Version};

    use super::*;

    fn written(target: &str, path_info: u16, fields: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        write(&mut out, &call(target, path_info, fields), None, None);
        String::from_utf8(out).unwrap()
    }

    fn call(target: &str, path_info: u16, fields: &[(&str, &str)]) -> Invoke {
        let mut builder = RequestHeadBuilder::default();
        for (name, value) in fields {
            builder.field(name, value.as_bytes()).unwrap();
        }
        let parts = RequestParts {
            version: Version::Http11,
            scheme: Scheme::Https,
            method: "GET",
            target,
            authority: "example.test:8443",
            remote_addr: "192.0.2.1",
            remote_port: "4711",
            local_addr: "192.0.2.2",
            local_port: "443",
        };
        Invoke {
            pool: "default".into(),
            route: "/".into(),
            function: "hello".into(),
            flags: InvokeFlags::default(),
            path_info,
            queued: Duration::ZERO,
            head: builder.finish(&parts).unwrap(),
            body: Body::Empty,
        }
    }

    #[test]
    fn paths_are_split_and_decoded() {
        let vars = written("/api/hello/a%20b?x=%20", 10, &[]);
        for entry in [
            "s:11:\"SCRIPT_NAME\";s:10:\"/api/hello\";",
            "s:9:\"PATH_INFO\";s:4:\"/a b\";",
            "s:12:\"QUERY_STRING\";s:5:\"x=%20\";",
            "s:11:\"SERVER_NAME\";s:12:\"example.test\";",
            "s:9:\"HTTP_HOST\";s:17:\"example.test:8443\";",
            "s:5:\"HTTPS\";s:2:\"on\";",
        ] {
            assert!(vars.contains(entry), "{entry} in {vars}");
        }
    }

    #[test]
    fn the_plain_form_is_values_and_then_names_unless_a_value_holds_a_nul() {
        let mut out = Vec::new();
        assert!(write_plain(&mut out, &call("/api/hello", 10, &[("accept", "*/*")]), None, None));
        let text = String::from_utf8(out).unwrap();
        let mut parts: Vec<_> = text.split('\0').collect();
        let names: Vec<_> = parts.pop().unwrap().split('\n').collect();
        assert_eq!(names.len(), parts.len());
        let at = |name| parts[names.iter().position(|candidate| *candidate == name).unwrap()];
        assert_eq!((at("REQUEST_METHOD"), at("HTTP_ACCEPT"), at("SCRIPT_NAME")), ("GET", "*/*", "/api/hello"));

        let mut out = b"before".to_vec();
        assert!(!write_plain(&mut out, &call("/api/a%00b", 10, &[]), None, None));
        assert_eq!(out, b"before");
    }

    #[test]
    fn headers_become_variables_but_not_the_dangerous_ones() {
        let vars = written(
            "/",
            1,
            &[
                ("proxy", "evil"),
                ("x_real", "1"),
                ("cookie", "a=1"),
                ("accept", "x"),
                ("cookie", "b=2"),
                ("accept", "y"),
            ],
        );
        assert!(vars.contains("s:11:\"HTTP_COOKIE\";s:8:\"a=1; b=2\";"), "{vars}");
        assert!(vars.contains("s:11:\"HTTP_ACCEPT\";s:4:\"x, y\";"), "{vars}");
        assert!(!vars.contains("HTTP_PROXY") && !vars.contains("REAL"), "{vars}");
        assert_eq!(vars.matches("HTTP_ACCEPT").count(), 1);
    }
}
