//! Keeps the servers as they are configured: follows where they are, tends their connections, and takes another configuration
//! while calls go on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use troupe_contracts::invoke::upstream_pool;
use troupe_mesh::discovery::{self, Address, Discovery, Endpoints, PeerError, Take};

use super::Upstreams;
use super::config::{ServerConfig, UpstreamConfig};
use super::meters::Meters;
use super::server::{Server, Settings};
use crate::instances::{Instance, InstanceId};

/// How often idle connections are looked at.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// How long a reload waits for the addresses of names that are new, before it goes on without: those that leave could be all
/// there are.
const LOOKED_UP_WITHIN: Duration = Duration::from_secs(2);
/// How long a server that has left can still be called: a thread may have picked it a moment before it heard.
const LINGERS: Duration = Duration::from_secs(2);

/// The groups of a configuration.
pub(super) type Groups = BTreeMap<String, UpstreamConfig>;

/// Other groups to take.
pub(super) struct Order {
    pub(super) groups: Groups,
    pub(super) done: oneshot::Sender<Result<(), PeerError>>,
}

/// See the module.
pub(super) struct Keeper {
    upstreams: Weak<Upstreams>,
    groups: BTreeMap<String, Group>,
    /// Rings when a source has moved.
    moved: Arc<Notify>,
    /// Servers that have left and can still be called, since when.
    leaving: HashMap<InstanceId, Instant>,
    /// Servers that were called, as long as a thread knows them: one that comes back is the same, with its connections counted.
    past: HashMap<InstanceId, Weak<Server>>,
}

struct Group {
    pool: Arc<str>,
    config: UpstreamConfig,
    meters: Arc<Meters>,
    sources: Vec<Source>,
}

/// Where the servers of one entry are.
struct Source {
    server: ServerConfig,
    endpoints: watch::Receiver<Endpoints>,
    /// Kept: a source that is dropped looks no further.
    _discovery: Box<dyn Discovery>,
}

impl Keeper {
    pub(super) fn new(upstreams: &Arc<Upstreams>) -> Self {
        Self {
            upstreams: Arc::downgrade(upstreams),
            groups: BTreeMap::new(),
            moved: Arc::default(),
            leaving: HashMap::new(),
            past: HashMap::new(),
        }
    }

    /// Takes these groups and publishes their servers. Servers that stay keep their connections.
    pub(super) fn configure(&mut self, groups: &Groups) -> Result<(), PeerError> {
        let found = self.follow_new(groups)?;
        self.adopt(groups, found);
        Ok(())
    }

    /// As [`Keeper::configure`], once the new names are looked up, or take too long to be.
    async fn reconfigure(&mut self, groups: &Groups) -> Result<(), PeerError> {
        let mut found = self.follow_new(groups)?;
        let until = tokio::time::Instant::now() + LOOKED_UP_WITHIN;
        for source in found.iter_mut().flat_map(|(_, sources)| sources) {
            let known = source.endpoints.wait_for(|endpoints| !endpoints.is_empty());
            if !matches!(tokio::time::timeout_at(until, known).await, Ok(Ok(_))) {
                tracing::warn!(server = source.server.address, "the name of a new server has no address yet");
            }
        }
        self.adopt(groups, found);
        Ok(())
    }

    /// Sources for what is not followed yet.
    fn follow_new(&self, groups: &Groups) -> Result<HashMap<String, Vec<Source>>, PeerError> {
        let mut found: HashMap<String, Vec<Source>> = HashMap::new();
        for (name, config) in groups {
            let known = self.groups.get(name);
            let is_known = |address: &str| {
                known.is_some_and(|group| group.sources.iter().any(|source| source.server.address == address))
            };
            for server in config.servers.iter().filter(|server| !is_known(&server.address)) {
                found.entry(name.clone()).or_default().push(self.follow(name, server)?);
            }
        }
        Ok(found)
    }

    fn follow(&self, group: &str, server: &ServerConfig) -> Result<Source, PeerError> {
        let peers = std::slice::from_ref(&server.address);
        let discovery = discovery::discover(Take::All, &upstream_pool(group), peers)?;
        let endpoints = discovery.watch();
        let (mut changes, moved) = (endpoints.clone(), Arc::clone(&self.moved));
        changes.mark_unchanged();
        actix_rt::spawn(async move {
            while changes.changed().await.is_ok() {
                moved.notify_one();
            }
        });
        Ok(Source { server: server.clone(), endpoints, _discovery: discovery })
    }

    fn adopt(&mut self, groups: &Groups, mut found: HashMap<String, Vec<Source>>) {
        let mut before = std::mem::take(&mut self.groups);
        for (name, config) in groups {
            let (meters, mut sources) = match before.remove(name) {
                Some(group) => (group.meters, group.sources),
                None => (Arc::new(Meters::new(&upstream_pool(name))), Vec::new()),
            };
            sources.extend(found.remove(name).unwrap_or_default());
            let source = |server: &ServerConfig| {
                let at = sources.iter().position(|source| source.server.address == server.address)?;
                Some(Source { server: server.clone(), ..sources.swap_remove(at) })
            };
            let sources = config.servers.iter().filter_map(source).collect();
            let group = Group { pool: upstream_pool(name).into(), config: config.clone(), meters, sources };
            self.groups.insert(name.clone(), group);
        }
        for group in before.into_values() {
            group.meters.open.set(0.0);
            group.meters.idle.set(0.0);
        }
        self.list();
    }

    /// Publishes the servers that the sources name. Those that were there keep their connections; those that are no longer
    /// named can be called for a moment more.
    fn list(&mut self) {
        let Some(upstreams) = self.upstreams.upgrade() else { return };
        let before = upstreams.servers.load_full();
        let mut servers: HashMap<InstanceId, Arc<Server>> = HashMap::new();
        let mut instances = Vec::new();
        for group in self.groups.values() {
            for source in &group.sources {
                for endpoint in source.endpoints.borrow().iter() {
                    let Address::Tcp(address) = endpoint.address else { continue };
                    let id = InstanceId::new(format!("{}/{address}", group.pool));
                    if servers.contains_key(&id) {
                        continue;
                    }
                    let settings = Settings::new(&source.server, &group.config);
                    let weight = settings.weight;
                    let known = before.get(&id).cloned().or_else(|| self.past.get(&id).and_then(Weak::upgrade));
                    let server = match known {
                        Some(server) => {
                            server.tune(settings);
                            server
                        }
                        None => {
                            let what = (Arc::clone(&group.pool), Arc::clone(&endpoint.name), address);
                            Arc::new(Server::new(what, settings, Arc::clone(&group.meters), upstreams.threads))
                        }
                    };
                    self.leaving.remove(&id);
                    instances.push(Instance::new(id.clone(), Arc::clone(&server.name)).weighing(weight));
                    servers.insert(id, server);
                }
            }
        }
        for (id, server) in before.iter().filter(|(id, _)| !servers.contains_key(*id)).collect::<Vec<_>>() {
            self.leaving.entry(id.clone()).or_insert_with(|| {
                server.leave();
                Instant::now()
            });
            servers.insert(id.clone(), Arc::clone(server));
        }
        upstreams.servers.store(Arc::new(servers));
        upstreams.listed.send_replace(instances.into());
    }

    /// Forgets servers that left long enough ago.
    fn part(&mut self, upstreams: &Upstreams) {
        self.past.retain(|_, server| server.strong_count() > 0);
        let now = Instant::now();
        let gone: Vec<InstanceId> = (self.leaving.iter())
            .filter(|(_, since)| now.saturating_duration_since(**since) >= LINGERS)
            .map(|(id, _)| id.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        let mut servers = HashMap::clone(&upstreams.servers.load());
        for id in gone {
            self.leaving.remove(&id);
            if let Some(server) = servers.remove(&id) {
                self.past.insert(id, Arc::downgrade(&server));
            }
        }
        upstreams.servers.store(Arc::new(servers));
    }

    async fn tend(&mut self, upstreams: &Upstreams) {
        self.part(upstreams);
        let servers = upstreams.servers.load_full();
        for (_, server) in servers.iter().filter(|(id, _)| !self.leaving.contains_key(*id)) {
            server.tend().await;
        }
        for group in self.groups.values() {
            let own = servers.values().filter(|server| server.pool == group.pool);
            let (open, idle) = own.fold((0.0, 0.0), |(open, idle), server| {
                (open + f64::from(server.open()), idle + server.idle() as f64)
            });
            group.meters.open.set(open);
            group.meters.idle.set(idle);
        }
    }

    /// Works for as long as the upstreams live.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut tick = tokio::time::interval(TEND_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let moved = Arc::clone(&self.moved);
        loop {
            tokio::select! {
                () = moved.notified() => self.list(),
                order = orders.recv() => {
                    let Some(Order { groups, done }) = order else { return };
                    // Who gave it may be gone.
                    let _ = done.send(self.reconfigure(&groups).await);
                }
                _ = tick.tick() => {
                    let Some(upstreams) = self.upstreams.upgrade() else { return };
                    self.tend(&upstreams).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(written: &[(&str, &[&str])]) -> Groups {
        let server = |address: &&str| ServerConfig { address: (*address).to_owned(), weight: 1, max_connections: None };
        let group = |(name, servers): &(&str, &[&str])| {
            let config = UpstreamConfig { servers: servers.iter().map(server).collect(), ..UpstreamConfig::default() };
            ((*name).to_owned(), config)
        };
        written.iter().map(group).collect()
    }

    fn listed(upstreams: &Upstreams) -> Vec<(String, u32)> {
        let instances = upstreams.instances();
        let listed = instances.borrow();
        listed.iter().map(|instance| (instance.id.to_string(), instance.weight)).collect()
    }

    const A: &str = "127.0.0.1:1001";
    const B: &str = "127.0.0.1:1002";
    const C: &str = "127.0.0.1:1003";

    #[actix_rt::test]
    async fn what_stays_is_the_same_server_with_other_settings_and_what_leaves_can_be_called_for_a_moment() {
        let before = groups(&[("app", &[A, B])]);
        let upstreams = Upstreams::start(&before, 1).unwrap();
        let (a, b) = (InstanceId::new(format!("upstream:app/{A}")), InstanceId::new(format!("upstream:app/{B}")));
        let kept = upstreams.servers.load().get(&a).cloned().unwrap();
        let mut after = groups(&[("app", &[A, C])]);
        let app = after.get_mut("app").unwrap();
        app.servers[0].weight = 7;
        app.max_connections = 3;
        upstreams.reload(after.clone()).await.unwrap();
        assert_eq!(listed(&upstreams), [(a.to_string(), 7), (format!("upstream:app/{C}"), 1)]);
        let servers = upstreams.servers.load_full();
        assert!(Arc::ptr_eq(&kept, &servers[&a]), "its connections would be counted anew");
        assert_eq!((kept.cap(), kept.settings().weight, kept.is_leaving()), (3, 7, false));
        let left = servers.get(&b).cloned().expect("a thread may have picked it a moment ago");
        assert!(left.is_leaving());
        drop(servers);
        tokio::time::sleep(LINGERS + 2 * TEND_EVERY).await;
        assert!(!upstreams.servers.load().contains_key(&b));
        // A thread that had a port to it still has: it must not count by itself.
        upstreams.reload(before).await.unwrap();
        assert!(Arc::ptr_eq(&left, &upstreams.servers.load()[&b]));
        assert!(!left.is_leaving());
    }

    #[actix_rt::test]
    async fn an_address_that_is_none_changes_nothing() {
        let upstreams = Upstreams::start(&groups(&[("app", &[A])]), 1).unwrap();
        let before = listed(&upstreams);
        let wrong = groups(&[("app", &[B]), ("more", &["nonsense"])]);
        assert!(upstreams.reload(wrong).await.is_err());
        assert_eq!(listed(&upstreams), before);
    }

    #[actix_rt::test]
    async fn groups_come_and_go_where_there_was_none() {
        let upstreams = Upstreams::start(&Groups::new(), 1).unwrap();
        let mut beside = upstreams.instances_beside(crate::instances::only_local());
        assert_eq!(beside.borrow_and_update().len(), 1);
        upstreams.reload(groups(&[("app", &[A])])).await.unwrap();
        let all = beside.wait_for(|instances| instances.len() == 2);
        tokio::time::timeout(Duration::from_secs(30), all).await.unwrap().unwrap();
        upstreams.reload(Groups::new()).await.unwrap();
        let rest = beside.wait_for(|instances| instances.len() == 1);
        tokio::time::timeout(Duration::from_secs(30), rest).await.unwrap().unwrap();
    }
}
