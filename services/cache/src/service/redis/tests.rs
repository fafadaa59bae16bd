//! The store against a real Redis.

mod damage;
mod doubts;
mod evicted;
mod room;
mod variants;

use std::time::Duration;

use actix_rt::task::JoinHandle;
use troupe_contracts::cache::purge::Target;
use troupe_contracts::cache::{Born, Url};
use troupe_redis::{Login, Node, Settings, Topology};
use troupe_testkit::redis::Redis as Server;

use super::*;
use crate::entry::Entry;
use crate::freshness::Times;
use crate::heads::{get, response};
use crate::policy::Policy;
use crate::record;
use crate::storing::judge;
use crate::time::Moment;

/// How long a command may take: a loaded machine is no slow store.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ten times what anything may take.
const BOUND: Duration = Duration::from_secs(60);
/// For how long what is stored is fresh, in milliseconds.
const FRESH_MS: u64 = 600_000;
const ME: Uid = [7; 16];

/// An instance of the store that follows the history, until the end of the test.
struct Instance {
    store: InRedis,
    following: JoinHandle<()>,
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.following.abort();
    }
}

fn settings(topology: Topology, timeout: Duration) -> Settings {
    Settings { topology, login: Login::default(), namespace: "t".to_owned(), timeout }
}

impl Instance {
    async fn over(server: &Server) -> Self {
        Self::with(&settings(Topology::Single(server.url().parse().unwrap()), PATIENCE)).await
    }

    async fn over_cluster(nodes: &[Server]) -> Self {
        let node = |node: &Server| Node { host: node.address().ip().to_string(), port: node.address().port() };
        Self::with(&settings(Topology::Cluster { nodes: nodes.iter().map(node).collect() }, PATIENCE)).await
    }

    async fn with(settings: &Settings) -> Self {
        Self::configured(settings, &StoreConfig::default()).await
    }

    /// One that knows where the history is.
    async fn configured(settings: &Settings, config: &StoreConfig) -> Self {
        let redis = Redis::open(settings).unwrap();
        let shared = Arc::new(Shared::new(&redis, ME, config));
        let following = actix_rt::spawn(follow(redis.again(), Arc::clone(&shared)));
        let instance = Self { store: InRedis::new(redis, shared), following };
        let begun = Instant::now();
        while instance.store.hub().position().generation == 0 {
            assert!(begun.elapsed() < BOUND, "there is no history");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        instance
    }

    async fn look_up(&self, target: &str, fields: &[(&str, &str)]) -> Looked {
        let call = Lookup { url: url(target), want: Want::Answer, head: get(target, fields), source: ME };
        self.store.look_up(call).await.unwrap()
    }

    /// What is there for a request; its body as text.
    async fn text(&self, target: &str, fields: &[(&str, &str)]) -> Option<String> {
        let mut body = self.look_up(target, fields).await.found?.body;
        let mut text = String::new();
        while let Some(piece) = body.next().await {
            text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        }
        Some(text)
    }

    /// Looks for what is not there, and has the right to fetch it.
    async fn miss(&self, target: &str, fields: &[(&str, &str)]) -> Right {
        let looked = self.look_up(target, fields).await;
        assert!(looked.found.is_none(), "{target}: {looked:?}");
        let Leased::Granted { name, token } = looked.leased else { panic!("{target}: {looked:?}") };
        Right { name, token, born: looked.born }
    }

    /// Brings what was fetched by `right`: the answer with `said` to a request with `fields`.
    async fn bring(
        &self,
        right: Right,
        target: &str,
        fields: &[(&str, &str)],
        said: &[(&str, &str)],
        body: &str,
    ) -> Kept {
        let now = Moment::from_secs(1_800_000_000);
        let control = ("cache-control", "max-age=600");
        let (request, head) = (get(target, fields), response(200, &[&[control], said].concat()));
        let terms = judge(&request, &head, Times { requested: now, received: now }, &Policy::new()).unwrap();
        let entry = Entry::new(terms, &head, Bytes::copy_from_slice(body.as_bytes()));
        let about = About {
            url: url(target),
            born: right.born,
            lease: right.name,
            token: right.token,
            age_ms: 0,
            fresh_ms: FRESH_MS,
            keep_ms: FRESH_MS,
            len: body.len() as u64,
            digest: entry.digest(),
            source: ME,
        };
        self.store.store(about, record::encode(&entry), entry.body().clone()).await.unwrap()
    }

    /// Fetches and brings what is not there.
    async fn fill(&self, target: &str, body: &str) -> Kept {
        let right = self.miss(target, &[]).await;
        self.bring(right, target, &[], &[], body).await
    }
}

/// The right to fetch.
#[derive(Debug, Clone, Copy)]
struct Right {
    name: LeaseName,
    token: u64,
    born: Born,
}

fn url(target: &str) -> Url {
    Url { https: false, host: "a.example".to_owned(), target: target.to_owned() }
}
