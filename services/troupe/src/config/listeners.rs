//! The listeners of one process, of which none may be in another's place. Whether another process is, is no matter of configuration.

use std::net::SocketAddr;

use troupe_node::config::{Loaded, Problem};

use super::{Config, admin_address, mesh_listeners, rules};
use crate::services::{Service, Services};

/// Finds listeners for links where another listener of `services` is. The others among themselves are no matter of services:
/// [`rules`] looks at them.
pub(super) fn check(loaded: &Loaded<Config>, services: Services) -> Vec<Problem> {
    let mut taken = vec![("admin.listen".to_owned(), admin_address(loaded, services))];
    if services.contains(Service::Gateway) {
        let listen = loaded.config.gateway.listen.iter().enumerate();
        taken.extend(listen.map(|(index, listen)| (format!("gateway.listen[{index}]"), listen.address)));
    }
    let mut problems = Vec::new();
    let mut linked: Vec<(Service, String)> = Vec::new();
    for (service, text) in mesh_listeners(&loaded.config, services) {
        let address = text.parse::<SocketAddr>().ok();
        let clashes = |other: SocketAddr| address.is_some_and(|address| rules::clash(address, other));
        if let Some((key, _)) = taken.iter().find(|(_, other)| clashes(*other)) {
            let message = format!("`mesh.listen` is {text}, which `{key}` takes already");
            problems.push(Problem::new("mesh.listen", message).help("give each listener a port of its own"));
        }
        // Addresses with port 0 are the same and not in each other's way.
        let is_other = |other: &str| other.parse().map_or(other == text, clashes);
        if let Some((other, _)) = linked.iter().find(|(_, other)| is_other(other)) {
            let message =
                format!("`mesh.listen` is {text}, which both {} and {} would take", other.name(), service.name());
            problems.push(Problem::new("mesh.listen", message).help(
                "run them as processes of their own, or leave mesh.listen out: each of them has a port of its own then",
            ));
        }
        linked.push((service, text));
    }
    problems
}
