//! What is wrong with this process beside its readiness, its threads and its workers: for `troupe status` and, told to the
//! metrics service, for the dashboard.

use troupe_node::metrics::{Metrics, Reading};
use troupe_node::notices::{Notice, Notices};
use troupe_php_pool::{CrashLoop, PoolStatus};

/// What says whether membership reaches Redis.
const REDIS_UP: &str = "troupe_discovery_redis_up";

/// All of it now, the notices first.
pub(super) fn list(notices: &Notices, metrics: &Metrics, php: &[PoolStatus]) -> Vec<Notice> {
    let mut all = notices.list();
    all.extend(redis(metrics));
    all.extend(php.iter().filter_map(of_php));
    all
}

fn redis(metrics: &Metrics) -> Option<Notice> {
    let series = metrics.registry().series_from(0);
    let up = series.iter().find(|series| series.key().name() == REDIS_UP)?;
    matches!(up.read(), Reading::Gauge(up) if up == 0.0).then(|| Notice {
        urgent: false,
        text: "Redis is away: the instances that are known are used on, and none that starts meanwhile is found; see \
               redis.url and `troupe check`"
            .to_owned(),
    })
}

fn of_php(pool: &PoolStatus) -> Option<Notice> {
    let (name, urgent) = (&pool.pool, true);
    if let Some(CrashLoop { processes, last }) = &pool.crash_loop {
        let text = format!(
            "the pool {name} is in a crash loop: {processes} PHP processes in a row died before their first call, the last with \
             {last}; see what runs at their start (vendor/autoload.php), and the log of php-pool"
        );
        return Some(Notice { urgent, text });
    }
    match (pool.condition, &pool.reason) {
        ("down", Some(reason)) => {
            Some(Notice { urgent, text: format!("the code of pool {name} cannot be loaded: {reason}") })
        }
        ("booting", _) => {
            Some(Notice { urgent, text: format!("the code of pool {name} is being loaded; its requests wait") })
        }
        _ => None,
    }
}
