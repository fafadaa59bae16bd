//! Are the ports free?

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use troupe_node::config::Loaded;

use super::Finding;
use crate::config::{self, Config};
use crate::failure::Code;
use crate::services::{Service, Services};

pub(super) fn check(loaded: &Loaded<Config>, services: Services) -> Vec<Finding> {
    let mut listeners: Vec<(String, SocketAddr)> = Vec::new();
    if services.contains(Service::Gateway) {
        listeners
            .extend(loaded.config.gateway.listen.iter().map(|listen| ("gateway.listen".to_owned(), listen.address)));
    }
    listeners.push(("admin.listen".to_owned(), config::admin_address(loaded, services)));
    // A Unix socket has no port to be busy.
    let mesh = config::mesh_listeners(&loaded.config, services);
    listeners.extend(mesh.filter_map(|(_, address)| Some(("mesh.listen".to_owned(), address.parse().ok()?))));
    listeners.into_iter().map(|(key, address)| probe(&key, address)).collect()
}

fn probe(key: &str, address: SocketAddr) -> Finding {
    // The standard library's listener reuses addresses as ours do: old connections that linger are not in the way.
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{address} is free ({key})")),
        Err(error) => match error.kind() {
            ErrorKind::AddrInUse => Finding::fail(
                "port",
                Code::TryAgain,
                format!("{address} is busy ({key})"),
                format!("`ss -ltnp 'sport = :{}'` tells who has it; `--set {key}=...` takes another", address.port()),
            ),
            ErrorKind::PermissionDenied => Finding::fail(
                "port",
                Code::Failed,
                format!("{address} is not for this user ({key})"),
                "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            ),
            _ => Finding::fail(
                "port",
                Code::Configuration,
                format!("{address} cannot be listened on ({key}): {error}"),
                "the address has to be one of this machine's",
            ),
        },
    }
}
