//! What can be wrong with a list of routes. All of it is reported at once, each problem with the number of its route.

use std::collections::HashMap;

use super::pattern::{Pattern, Segment};
use super::{OwnPages, same_host, takes};
use crate::config::RouteConfig;

/// What is wrong with a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("route {}: {key}: {what}", route + 1)]
pub struct Problem {
    /// The route's number in the list, from 0.
    pub route: usize,
    /// Its key that is wrong.
    pub key: &'static str,
    /// What is wrong and what to do.
    pub what: String,
}

/// Checks routes as [`super::RouteTable::build`] does, without building anything.
pub fn check(configs: &[RouteConfig], own: OwnPages) -> Vec<Problem> {
    super::RouteTable::build(configs, own).err().unwrap_or_default()
}

pub(super) fn check_all(configs: &[RouteConfig], own: OwnPages) -> Result<Vec<Pattern>, Vec<Problem>> {
    let mut patterns = Vec::with_capacity(configs.len());
    let mut problems = Vec::new();
    for (route, config) in configs.iter().enumerate() {
        let mut report = |key, what| problems.push(Problem { route, key, what });
        check_host(config, &mut report);
        check_methods(config, &mut report);
        match Pattern::parse(&config.path) {
            Ok(pattern) => {
                check_function(config, &pattern, &mut report);
                let path = pattern.key();
                if let Some(page) = own.find(&path) {
                    let key = page.key();
                    let what = format!("is unreachable: {key} answers {path}; set it to false or choose another path");
                    report("path", what);
                }
                patterns.push(pattern);
            }
            Err(what) => report("path", what),
        }
    }
    if problems.is_empty() {
        check_pairs(configs, &patterns, &mut problems);
    }
    if problems.is_empty() { Ok(patterns) } else { Err(problems) }
}

fn check_host(config: &RouteConfig, report: &mut impl FnMut(&'static str, String)) {
    let Some(host) = &config.host else { return };
    let plain = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if !plain && host.parse::<std::net::Ipv6Addr>().is_err() && !is_bracketed(host) {
        report("host", format!("`{host}` is no host name: write it without a port, such as \"app.example\""));
    }
}

fn is_bracketed(host: &str) -> bool {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok())
}

fn check_methods(config: &RouteConfig, report: &mut impl FnMut(&'static str, String)) {
    for (index, method) in config.methods.iter().enumerate() {
        if method.is_empty() || !method.bytes().all(troupe_wire::head::is_token) {
            report("methods", format!("`{method}` is no method"));
        } else if method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            report(
                "methods",
                format!("`{method}` is unreachable: methods are upper case, write \"{}\"", method.to_ascii_uppercase()),
            );
        } else if config.methods.iter().take(index).any(|earlier| earlier == method) {
            report("methods", format!("`{method}` stands twice"));
        }
    }
}

fn check_function(config: &RouteConfig, pattern: &Pattern, report: &mut impl FnMut(&'static str, String)) {
    let named = pattern.position("function").is_some();
    if config.upstream.is_some() {
        for (key, set) in [("functions", &config.functions), ("function", &config.function)] {
            if set.is_some() {
                report(key, "stands beside upstream: a route leads to PHP or to HTTP servers, not to both".to_owned());
            }
        }
        return;
    }
    match (&config.functions, &config.function) {
        (None, None) => report(
            "path",
            "leads nowhere: set functions = \"<pool>\", function = \"<name>\" or upstream = \"<name>\"".to_owned(),
        ),
        (Some(_), None) if !named => {
            report(
                "path",
                "names no function: add {function} or {function*} to the path, or pin one with function = \"<name>\""
                    .to_owned(),
            );
        }
        (_, Some(name)) if name.is_empty() || name.starts_with('/') || name.ends_with(".php") => {
            report("function", format!("`{name}` is no function: write its path below the pool's root, without .php"));
        }
        _ => {}
    }
}

fn check_pairs(configs: &[RouteConfig], patterns: &[Pattern], problems: &mut Vec<Problem>) {
    let mut same: HashMap<(String, String), Vec<usize>> = HashMap::new();
    for (index, (config, pattern)) in configs.iter().zip(patterns).enumerate() {
        let host = config.host.as_deref().unwrap_or_default().to_ascii_lowercase();
        same.entry((host, pattern.key())).or_default().push(index);
    }
    let mut clashes = Vec::new();
    for group in same.values() {
        for (place, &later) in group.iter().enumerate() {
            for &earlier in group.iter().take(place) {
                if let (Some(one), Some(other)) = (configs.get(earlier), configs.get(later))
                    && clash(one, other)
                {
                    clashes.push((later, earlier));
                }
            }
        }
    }
    clashes.sort_unstable();
    for (later, earlier) in clashes {
        let what = format!(
            "is of equal rank with `route[{earlier}].path`: they match the same requests; remove one or give them different methods"
        );
        problems.push(Problem { route: later, key: "path", what });
    }
    for (route, (config, pattern)) in configs.iter().zip(patterns).enumerate() {
        if is_covered(configs, &same, config, pattern) {
            let what = "is unreachable: more specific routes take every path it matches".to_owned();
            problems.push(Problem { route, key: "path", what });
        }
    }
}

/// Two routes with one pattern clash when one request fits both and neither is more specific by its methods.
fn clash(one: &RouteConfig, other: &RouteConfig) -> bool {
    if one.methods.is_empty() || other.methods.is_empty() {
        return one.methods.is_empty() && other.methods.is_empty();
    }
    one.methods.iter().any(|method| other.methods.contains(method))
}

/// `{rest*}` is used up when its empty case, its one-segment case and its longer case are all taken by others.
fn is_covered(
    configs: &[RouteConfig],
    same: &HashMap<(String, String), Vec<usize>>,
    config: &RouteConfig,
    pattern: &Pattern,
) -> bool {
    let Some(name) = pattern.rest() else { return false };
    let host = config.host.as_deref().unwrap_or_default().to_ascii_lowercase();
    let taken = |last: &[Segment]| {
        let key = pattern.ending_with(last).key();
        same.get(&(host.clone(), key)).into_iter().flatten().filter_map(|&index| configs.get(index)).any(|other| {
            same_host(other.host.as_deref(), config.host.as_deref())
                && (other.methods.is_empty()
                    || (!config.methods.is_empty() && config.methods.iter().all(|method| takes(other, method))))
        })
    };
    let one = Segment::Name(String::new());
    let rest = Segment::Rest(String::new());
    let empty = Segment::Literal(String::new());
    taken(std::slice::from_ref(&one)) && taken(&[one, rest]) && (name == "function" || taken(&[empty]))
}
