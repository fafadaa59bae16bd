//! A cluster, a master that Sentinels name, passwords, a Unix socket.

use std::time::Duration;

use troupe_mesh::discovery::Membership;
use troupe_redis::{Login, Node, Redis, Topology};
use troupe_testkit::redis::Redis as Server;

use crate::support::{Reader, client, client_of, registration};

fn node(server: &Server) -> Node {
    Node { host: "127.0.0.1".to_owned(), port: server.address().port() }
}

fn joins(redis: Redis, uid: u8, port: u16) -> Membership {
    let membership = Membership::start(redis);
    membership.join(registration(uid, port));
    membership
}

#[actix_rt::test]
async fn a_cluster_of_three() {
    let nodes = Server::cluster();
    // Each of them knows one node only, and another.
    let through = |index: usize| client_of(Topology::Cluster { nodes: vec![node(&nodes[index])] }, Login::default());
    let reader = Reader::with(through(0));
    let one = joins(through(1), 1, 1);
    let two = joins(through(2), 2, 2);
    reader.until(&[(1, 1), (2, 2)]).await;
    one.drain();
    reader.until(&[(2, 2)]).await;
    two.leave().await;
    reader.until(&[(1, 1)]).await;
}

#[actix_rt::test]
async fn a_cluster_whose_node_dies_and_comes_back() {
    let mut nodes = Server::cluster();
    let topology = Topology::Cluster { nodes: nodes.iter().map(node).collect() };
    let reader = Reader::with(client_of(topology.clone(), Login::default()));
    let _one = joins(client_of(topology.clone(), Login::default()), 1, 1);
    reader.until(&[(1, 1)]).await;
    // The one that holds the keys: without replicas they are away with it.
    let slot = nodes[0].command(&["CLUSTER", "KEYSLOT", "t:{callee}:members"]).number();
    let holder = usize::try_from(slot).unwrap() * 3 / 16384;
    nodes[holder].kill();
    reader.keeps(&[(1, 1)], Duration::from_secs(10)).await;
    nodes[holder].restart();
    let _two = joins(client_of(topology, Login::default()), 2, 2);
    reader.until(&[(1, 1), (2, 2)]).await;
}

#[actix_rt::test]
async fn a_master_that_sentinels_name_and_the_one_they_name_next() {
    let mut master = Server::start();
    let replica = master.replica();
    let sentinel = master.sentinel(1);
    let topology = Topology::Sentinel {
        sentinels: vec![node(&sentinel)],
        login: Login::default(),
        master: "mymaster".to_owned(),
        database: 0,
    };
    let reader = Reader::with(client_of(topology.clone(), Login::default()));
    let _one = joins(client_of(topology.clone(), Login::default()), 1, 1);
    reader.until(&[(1, 1)]).await;
    master.kill();
    let _two = joins(client_of(topology, Login::default()), 2, 2);
    reader.until(&[(1, 1), (2, 2)]).await;
    assert!(replica.command(&["INFO", "replication"]).text().contains("role:master"));
}

#[actix_rt::test]
async fn a_password_is_needed_where_it_is_set() {
    let server = Server::start_with(&["--requirepass", "hunter2"]);
    let with = |password: Option<&str>| {
        let login = Login { username: None, password: password.map(str::to_owned) };
        client_of(Topology::Single(server.url().parse().unwrap()), login)
    };
    let reader = Reader::with(with(Some("hunter2")));
    let _refused = (joins(with(None), 8, 8), joins(with(Some("wrong")), 9, 9));
    let _one = joins(with(Some("hunter2")), 1, 1);
    reader.until(&[(1, 1)]).await;
    reader.keeps(&[(1, 1)], Duration::from_secs(3)).await;
    let in_url = Reader::with(client(&server.url().replace("redis://", "redis://:hunter2@")));
    in_url.until(&[(1, 1)]).await;
}

#[actix_rt::test]
async fn a_unix_socket_and_a_database() {
    let home = tempfile::TempDir::new().unwrap();
    let path = home.path().join("redis.sock");
    let path = path.to_str().unwrap();
    let server = Server::start_with(&["--unixsocket", path]);
    let reader = Reader::with(client(&format!("unix://{path}?db=3")));
    let _one = joins(client(&format!("{}/3", server.url())), 1, 1);
    let _elsewhere = joins(client(&server.url()), 2, 2);
    reader.until(&[(1, 1)]).await;
    reader.keeps(&[(1, 1)], Duration::from_secs(2)).await;
}
