//! What the service counts.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use troupe_contracts::cache::Leased;
use troupe_contracts::cache::lookup::Looked;
use troupe_contracts::cache::purge::Purged;
use troupe_contracts::cache::store::Kept;
use troupe_mesh::failure::Failure;

use super::tier::Tier;

const LOOKUPS: [&str; 4] = ["hit", "stale", "miss", "error"];
const STORES: [&str; 5] = ["stored", "raced", "fenced", "no-room", "error"];
const LEASES: [&str; 5] = ["granted", "held", "apart", "over", "error"];

/// One thread's handles.
#[derive(Debug)]
pub(crate) struct Meters {
    lookups: [Counter; 4],
    lookup_time: Histogram,
    stores: [Counter; 5],
    leases: [Counter; 5],
    sent: Counter,
    purges: Counter,
    failed_purges: Counter,
    purge_time: Histogram,
    lapsed: Counter,
}

/// What is read once a second.
#[derive(Debug)]
pub(crate) struct Gauges {
    watchers: Gauge,
    bytes: Gauge,
    objects: Gauge,
    evicted: Counter,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            lookups: LOOKUPS.map(|result| counter!("troupe_cache_lookups_total", "result" => result)),
            lookup_time: histogram!("troupe_cache_lookup_duration_seconds"),
            stores: STORES.map(|result| counter!("troupe_cache_stores_total", "result" => result)),
            leases: LEASES.map(|result| counter!("troupe_cache_leases_total", "result" => result)),
            sent: counter!("troupe_cache_sent_bytes_total"),
            purges: counter!("troupe_cache_purges_total", "result" => "done"),
            failed_purges: counter!("troupe_cache_purges_total", "result" => "error"),
            purge_time: histogram!("troupe_cache_purge_duration_seconds"),
            lapsed: counter!("troupe_cache_watchers_lapsed_total"),
        }
    }

    pub(crate) fn looked(&self, looked: &Result<Looked, Failure>, took: Duration) {
        let result = match looked {
            Ok(Looked { found: Some(_), leased: Leased::No, .. }) => 0,
            Ok(Looked { found: Some(_), .. }) => 1,
            Ok(Looked { found: None, .. }) => 2,
            Err(_) => 3,
        };
        count(&self.lookups, result);
        self.lookup_time.record(took.as_secs_f64());
        if let Ok(looked) = looked {
            self.leased(looked.leased);
            self.sent.increment(looked.found.as_ref().and_then(|stored| stored.body.len()).unwrap_or(0));
        }
    }

    pub(crate) fn stored(&self, kept: &Result<Kept, Failure>) {
        let result = match kept {
            Ok(Kept::Stored) => 0,
            Ok(Kept::Raced) => 1,
            Ok(Kept::Fenced) => 2,
            Ok(Kept::NoRoom) => 3,
            Err(_) => 4,
        };
        count(&self.stores, result);
    }

    pub(crate) fn waited(&self, leased: &Result<Leased, Failure>) {
        match leased {
            Ok(leased) => self.leased(*leased),
            Err(_) => count(&self.leases, 4),
        }
    }

    pub(crate) fn purged(&self, purged: &Result<Purged, Failure>, took: Duration) {
        match purged {
            Ok(purged) => {
                self.purges.increment(1);
                self.purge_time.record(took.as_secs_f64());
                self.lapsed.increment(purged.lapsed.into());
            }
            Err(_) => self.failed_purges.increment(1),
        }
    }

    fn leased(&self, leased: Leased) {
        let result = match leased {
            Leased::No => return,
            Leased::Granted { .. } => 0,
            Leased::Held { .. } => 1,
            Leased::Apart => 2,
            Leased::Over => 3,
        };
        count(&self.leases, result);
    }
}

fn count<const N: usize>(counters: &[Counter; N], index: usize) {
    if let Some(counter) = counters.get(index) {
        counter.increment(1);
    }
}

/// Counts what had to make room in this part of the embedded store.
pub(crate) fn evicted(store: &'static str) -> Counter {
    counter!("troupe_cache_evicted_total", "store" => store)
}

impl Gauges {
    pub(crate) fn new() -> Self {
        Self {
            watchers: gauge!("troupe_cache_watchers"),
            bytes: gauge!("troupe_cache_bytes"),
            objects: gauge!("troupe_cache_objects"),
            evicted: evicted("memory"),
        }
    }

    pub(crate) fn read(&self, tier: &Tier) {
        self.watchers.set(tier.hub().watchers() as f64);
        if let Some((bytes, objects)) = tier.figures() {
            self.bytes.set(bytes as f64);
            self.objects.set(objects as f64);
        }
        if let Some(evicted) = tier.evicted() {
            self.evicted.absolute(evicted);
        }
    }
}

/// Describes what the service counts.
pub fn describe() {
    describe_counter!(
        "troupe_cache_lookups_total",
        "Look-ups of gateways in the second tier, by `result`: `hit`, `stale` (found, and to be fetched anew), `miss`, `error` (the store did not answer)."
    );
    describe_histogram!(
        "troupe_cache_lookup_duration_seconds",
        Unit::Seconds,
        "From a look-up's arrival to the head of its reply."
    );
    describe_counter!(
        "troupe_cache_stores_total",
        "Answers that gateways brought, by `result`: `stored`, `raced` (a purge since the fetch was about it), `fenced` (another had the lease by then), `no-room`, `error`."
    );
    describe_counter!(
        "troupe_cache_leases_total",
        "What gateways were told about the right to fetch, by `result`: `granted`, `held` (another fetches), `apart` (not stored, nobody waits), `over` (whoever fetched is through), `error`."
    );
    describe_counter!("troupe_cache_sent_bytes_total", Unit::Bytes, "Bytes of bodies given to gateways.");
    describe_counter!("troupe_cache_purges_total", "Purges, by `result`: `done` (confirmed by all), `error`.");
    describe_histogram!(
        "troupe_cache_purge_duration_seconds",
        Unit::Seconds,
        "From a purge's arrival until every gateway has confirmed it or has nothing fresh any more."
    );
    describe_counter!(
        "troupe_cache_watchers_lapsed_total",
        "Gateways that did not confirm a purge, summed over purges: they had nothing fresh any more."
    );
    describe_gauge!("troupe_cache_redis_up", "1 while the connection by which purges are heard is up.");
    describe_counter!(
        "troupe_cache_redis_losses_total",
        "Times that this connection was lost or could not be made; gateways were cut off meanwhile."
    );
    describe_counter!(
        "troupe_cache_histories_total",
        "Times that the history of purges was read from its beginning: once at the start, and after Redis lost it."
    );
    describe_gauge!("troupe_cache_redis_full", "1 while Redis has no room for more answers.");
    describe_gauge!("troupe_cache_watchers", "Gateways that hear of purges from this instance.");
    describe_gauge!("troupe_cache_bytes", Unit::Bytes, "Memory that the embedded store takes.");
    describe_gauge!("troupe_cache_objects", "URLs that are known to the embedded store.");
    describe_counter!(
        "troupe_cache_evicted_total",
        "What had to make room for others in the embedded store, by `store`: URLs in `memory`, answers on the `disk`. Redis evicts nothing: when it is full, nothing more is stored (`troupe_cache_stores_total`, `no-room`)."
    );
    describe_counter!(
        "troupe_cache_disk_writes_total",
        "Answers for the disk, by `result`: `written`, `skipped` (too much was waiting), `error`."
    );
    describe_gauge!("troupe_cache_disk_bytes", Unit::Bytes, "Bytes of the answers in `cache.store.file`.");
}
