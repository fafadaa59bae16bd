//! HTTP servers upstream: what they are sent, what they may answer, and what becomes of them.

mod bodies;
mod faults;
mod lies;
mod requests;
mod tunnels;

use troupe_testkit::stack::Stack;
use troupe_testkit::upstream::Upstream;

use crate::support::{binary, functions};

/// A configuration whose every path but the functions' leads to these servers. `more` goes into the group's table.
fn config(servers: &[&Upstream], more: &str) -> String {
    let addresses: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    format!(
        "gateway.access_log = false\n[[route]]\npath = \"/api/{{function*}}\"\nfunctions = \"default\"\n\
         [[route]]\npath = \"/{{rest*}}\"\nupstream = \"app\"\n\
         [upstream.app]\nservers = {addresses:?}\n{more}\n"
    )
}

fn one_process(servers: &[&Upstream], more: &str) -> Stack {
    Stack::one_process(binary(), &functions(), &config(servers, more))
}

/// A figure of the balancer's; 0 when it is not there.
fn metric(stack: &mut Stack, name: &str) -> f64 {
    let page = stack.instance("balancer").admin("/metrics").map(|page| page.text()).unwrap_or_default();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// Runs `check` against one process and against three.
fn in_both(servers: &[&Upstream], more: &str, check: impl Fn(&mut Stack)) {
    crate::support::in_both(&config(servers, more), check);
}
