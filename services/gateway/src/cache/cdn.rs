//! What a content delivery network in front is told: each purge, behind Troupe's own.
//!
//! A thread of its own makes the calls, one after the other and each until it succeeds or has been tried often enough. A purge
//! only leaves word of itself here, in a queue with an end, and never waits.

mod template;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge};
use troupe_cache::store::Selector;
use ureq::tls::{RootCerts, TlsConfig};

use super::config::CdnConfig;
use template::{NoCall, Template};

/// Purges that wait to be told. Those beyond are not told, which is counted and logged.
const QUEUE: usize = 1000;
/// Times that a call is made at most.
const ATTEMPTS: u32 = 6;
/// The pause behind the first failure; each one after it is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Tells a network of purges. The thread ends with it, when the queue is empty.
#[derive(Debug)]
pub struct Cdn {
    queue: SyncSender<Selector>,
    waiting: Gauge,
    dropped: Counter,
}

impl Cdn {
    /// Starts the thread; `None` where nobody is told.
    ///
    /// # Errors
    /// What is wrong with the configuration, or that the thread cannot be had.
    pub fn start(config: &CdnConfig) -> Result<Option<Arc<Self>>, String> {
        let Some(template) = Template::new(config)? else { return Ok(None) };
        let (queue, purges) = sync_channel(QUEUE);
        let teller = Teller::new(template);
        std::thread::Builder::new()
            .name("cdn".to_owned())
            .spawn(move || teller.run(&purges))
            .map_err(|error| format!("cache.cdn: its thread cannot be started: {error}"))?;
        Ok(Some(Arc::new(Self {
            queue,
            waiting: gauge!("troupe_gateway_cdn_purges_waiting"),
            dropped: counter!("troupe_gateway_cdn_purges_total", "result" => "dropped"),
        })))
    }

    /// Leaves word of a purge.
    pub fn tell(&self, purged: &Selector) {
        // First, so that it never falls below nothing.
        self.waiting.increment(1.0);
        match self.queue.try_send(purged.clone()) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.waiting.decrement(1.0);
                self.dropped.increment(1);
                tracing::warn!(limit = QUEUE, "the CDN is not told of a purge: too many wait already");
            }
        }
    }
}

struct Teller {
    template: Template,
    agent: ureq::Agent,
    waiting: Gauge,
    told: Counter,
    failed: Counter,
    skipped: Counter,
}

/// How one call ended.
enum Ended {
    Told,
    /// The configuration has no words for this kind of purge.
    NotTold,
    /// It may succeed later.
    Again(String),
    /// It never will.
    Refused(String),
}

impl Teller {
    fn new(template: Template) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(template.timeout()))
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .into();
        let result = |result: &'static str| counter!("troupe_gateway_cdn_purges_total", "result" => result);
        Self {
            template,
            agent,
            waiting: gauge!("troupe_gateway_cdn_purges_waiting"),
            told: result("told"),
            failed: result("failed"),
            skipped: result("skipped"),
        }
    }

    fn run(&self, purges: &Receiver<Selector>) {
        while let Ok(purged) = purges.recv() {
            self.waiting.decrement(1.0);
            self.tell(&purged);
        }
    }

    #[allow(clippy::disallowed_methods, reason = "this thread does nothing else, and nobody waits for it")]
    fn tell(&self, purged: &Selector) {
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            match self.call(purged) {
                Ended::Told => return self.told.increment(1),
                Ended::NotTold => return self.skipped.increment(1),
                Ended::Again(why) if attempt < ATTEMPTS => {
                    tracing::debug!(why, attempt, "the CDN could not be told of a purge; it is told again");
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Ended::Again(why) | Ended::Refused(why) => {
                    self.failed.increment(1);
                    tracing::warn!(why, attempt, ?purged, "the CDN was not told of a purge: what it holds stays there");
                    return;
                }
            }
        }
    }

    fn call(&self, purged: &Selector) -> Ended {
        let request = match self.template.call(purged) {
            Ok(request) => request,
            Err(NoCall::NotTold) => return Ended::NotTold,
            Err(error) => return Ended::Refused(error.to_string()),
        };
        match self.agent.run(request) {
            Ok(answer) => match answer.status().as_u16() {
                200..300 => Ended::Told,
                // RFC 9110 §15: too many at once, and what is the other side's trouble.
                status @ (408 | 429 | 500..600) => Ended::Again(format!("status {status}")),
                status => Ended::Refused(format!("status {status}")),
            },
            Err(error) => Ended::Again(error.to_string()),
        }
    }
}
