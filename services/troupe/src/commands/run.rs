//! `troupe run`.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use actix_web::web::ServiceConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};
use troupe_metrics::MetricsService;
use troupe_node::admin::{AdminOptions, AdminServer, AdminState, Api, Identity, Readiness};
use troupe_node::config::{Loaded, Sources};
use troupe_node::limits;
use troupe_node::metrics::{BuildInfo, Metrics};
use troupe_node::notices::Notices;
use troupe_node::shutdown::{DrainOptions, Shutdown};
use troupe_node::telemetry::{self, LogOptions, Origin};
use troupe_node::threads::{Watchdog, WatchdogOptions};

use crate::config::{Config, admin_address};
use crate::failure::{Code, CommandError};
use crate::meanings;
use crate::output;
use crate::services::{Service, Services};
use crate::stack::face::{Reconfigure, on_signal};
use crate::stack::{Node, Stack, supervision};

/// The commit the binary was built from, where the build says so.
const COMMIT: &str = match option_env!("TROUPE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Runs `services` in this process until they have drained.
///
/// # Errors
///
/// What kept them from starting or ended them, with the exit code for it.
pub(crate) fn run(loaded: Loaded<Config>, mut sources: Sources, services: Services) -> Result<(), CommandError> {
    if loaded.file.is_some() {
        // A file that was found is as good as named: while it is away, a reload must not take the defaults for it.
        sources.file.clone_from(&loaded.file);
    }
    // Held to the end: dropping it writes the last lines.
    let log = telemetry::install(&LogOptions::new(&loaded.config.log, services.origin()))
        .map_err(|error| CommandError::new(Code::Configuration, error.to_string()))?;
    let gateway = services.contains(Service::Gateway);
    let notices = Notices::default();
    let connections = gateway.then_some(u64::from(loaded.config.gateway.max_connections));
    for (number, shortage) in limits::prepare(connections).into_iter().enumerate() {
        notices.raise(&format!("limit {number}"), false, shortage.to_string());
    }
    let reconfigure = Reconfigure { sources: Arc::new(sources), services, level: log.level() };
    let outcome = actix_rt::System::new().block_on(serve(loaded, services, notices, reconfigure));
    drop(log);
    outcome
}

async fn serve(
    loaded: Loaded<Config>,
    services: Services,
    notices: Notices,
    reconfigure: Reconfigure,
) -> Result<(), CommandError> {
    let build = BuildInfo { version: env!("CARGO_PKG_VERSION"), commit: COMMIT };
    let metrics = match cfg!(feature = "unmeasured") {
        // Without a recorder, handles count nothing.
        true => Metrics::detached(),
        false => Metrics::install(build).map_err(|error| CommandError::failed(error.to_string()))?,
    };
    meanings::describe();
    let watchdog = Watchdog::start(WatchdogOptions::default())
        .map_err(|error| CommandError::failed(format!("cannot start the watchdog: {error}")))?;
    let readiness = Readiness::new();
    supervision::watch(&readiness);
    let mut options = AdminOptions::from(&loaded.config.admin);
    options.listen = admin_address(&loaded, services);
    let Origin { service, instance, .. } = services.origin();
    let api = Api::new(Identity { service, instance, version: env!("CARGO_PKG_VERSION"), commit: COMMIT });
    let state = AdminState {
        readiness: readiness.clone(),
        watchdog: watchdog.clone(),
        metrics: metrics.clone(),
        api: api.clone(),
    };
    let started = match services.contains(Service::Metrics) {
        true => {
            let service = MetricsService::start(&metrics).await;
            Some(service.map_err(|error| CommandError::failed(error.to_string()))?)
        }
        false => None,
    };
    let pages = started.as_ref().map(MetricsService::pages);
    let pages = move |app: &mut ServiceConfig| {
        if let Some(pages) = &pages {
            pages(app);
        }
    };
    let admin = AdminServer::start(&options, state, pages).map_err(|error| {
        let code = if error.port_busy() { Code::TryAgain } else { Code::Failed };
        CommandError::new(code, error.to_string())
    })?;

    let mut shutdown = Shutdown::new(DrainOptions::from(&loaded.config.node));
    let trigger = shutdown.trigger();
    let no_signals = |error| CommandError::failed(format!("cannot wait for signals: {error}"));
    trigger.on_signals().map_err(no_signals)?;
    let hangups = hangups().map_err(no_signals)?;

    let access = admin.access().clone();
    let node = Node { readiness: readiness.clone(), watchdog, metrics, notices, access, reconfigure };
    let stack = tokio::select! {
        stack = Stack::start(&loaded.config, services, &node, started, &api) => stack?,
        () = trigger.fired() => return Err(CommandError::failed("stopped before the start was complete")),
    };
    if let Some(hangups) = hangups {
        actix_rt::spawn(reload_on(hangups, api));
    }
    readiness.started();
    output::data(&format!("ready {} admin http://{}\n", stack.addresses().join(" "), admin.address()))?;

    shutdown.on_begin(move || readiness.drain());
    stack.drain_with(&mut shutdown);
    shutdown.last("admin", move |_| async move {
        admin.stop();
        true
    });
    let outcome = shutdown.run().await;
    match outcome.exit_code() {
        0 => Ok(()),
        _ if outcome.forced => Err(CommandError::failed("stopped at once by a second signal")),
        _ => Err(CommandError::failed(format!("not drained in time: {}", outcome.unfinished.join(", ")))),
    }
}

/// SIGHUP, which ends the process no more; one that comes during the start is kept. At a terminal, its end is what sends that
/// signal, and ends the process.
fn hangups() -> io::Result<Option<Signal>> {
    if io::stdin().is_terminal() { Ok(None) } else { signal(SignalKind::hangup()).map(Some) }
}

/// Reads configuration and code anew at each hangup.
async fn reload_on(mut hangups: Signal, api: Api) {
    while hangups.recv().await.is_some() {
        on_signal(&api).await;
    }
}
