//! Logs: one line per event on stderr, text for people, JSON for machines, and a panic hook that writes there too.
//!
//! A line of text is the time, the service (and the instance, where services run apart), the level, the target and the event.
//! A JSON line is `{"ts":…,"level":…,"service":…,"instance":…,"target":…,"msg":…}` plus the event's own fields and those
//! of the spans around it, all on one level. A line that repeats itself is written a few times and then counted. Lines are written by a thread of their own: a log that cannot keep up loses
//! lines, which are counted, and never stalls a request. stdout is never written to: it is an interface of the command line.

mod json;
mod outlet;
mod panics;
mod repeats;
mod text;

use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::LogConfig;

pub use crate::config::LogFormat;
pub use json::JsonLines;
pub use outlet::{LineWriter, LogGuard, Outlet};
use repeats::Repeats;
use text::Stamp;

/// The environment variable that overrides the configured level, for one run: `TROUPE_LOG=debug`.
pub const LEVEL_VARIABLE: &str = "TROUPE_LOG";
/// What the process's log is called where its lost lines are counted.
pub(crate) const LOG: &str = "log";

/// What the log of a process is set up with.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A level (`info`) or directives (`info,troupe_gateway=debug`).
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Who writes it.
    pub origin: Origin,
}

/// Who writes log lines, as each of them says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// What runs in this process: `gateway`, or `troupe` for several services at once.
    pub service: String,
    /// Which instance of it.
    pub instance: String,
    /// Whether services run in other processes, too: lines of text then name the instance.
    pub apart: bool,
}

impl Origin {
    /// This process, which runs `service`, named after the host and the process.
    pub fn here(service: &str, apart: bool) -> Self {
        Self { service: service.to_owned(), instance: format!("{}/{}", host(), std::process::id()), apart }
    }
}

/// As lines of text name it.
impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.service)?;
        if self.apart { write!(out, " {}", self.instance) } else { Ok(()) }
    }
}

impl LogOptions {
    /// The log of `origin` as configured.
    pub fn new(config: &LogConfig, origin: Origin) -> Self {
        Self { level: config.level.clone(), format: config.format, origin }
    }
}

/// The name of this machine, or of this container; empty where the kernel does not tell.
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not understood.
    #[error(
        "cannot read the log level {given:?} from {origin}: {source}; use error, warn, info, debug or trace, or a list such as \
         info,troupe_gateway=debug"
    )]
    Level {
        /// Where it was given: `log.level` or the environment variable.
        origin: &'static str,
        /// What was given.
        given: String,
        /// What the parser says.
        source: ParseError,
    },
    /// The process has a subscriber already.
    #[error("cannot set up the log: {0}")]
    Installed(#[from] TryInitError),
    /// The kernel refuses the log's thread.
    #[error("cannot start the log's thread: {0}")]
    Thread(std::io::Error),
}

/// Sets up the process's log on stderr and the panic hook. Call once, before threads are started, and hold what it gives
/// back to the end of `main`.
///
/// # Errors
///
/// When the level is not understood, the process has a log already, or the log's thread cannot be started.
pub fn install(options: &LogOptions) -> Result<LogGuard, TelemetryError> {
    let from_environment = std::env::var(LEVEL_VARIABLE).ok();
    let filter = filter(&options.level, from_environment.as_deref())?;
    let terminal = std::io::stderr().is_terminal();
    let outlet = Outlet::start(LOG, std::io::stderr()).map_err(TelemetryError::Thread)?;
    let layer = if as_json(options.format, terminal) {
        JsonLines::new(&options.origin, outlet.clone()).boxed()
    } else {
        let no_color = std::env::var_os("NO_COLOR");
        layer()
            .with_writer(outlet.clone())
            .with_timer(Stamp::new(&options.origin))
            .with_ansi(terminal && no_color.is_none_or(|value| value.is_empty()))
            // A log that cannot be written must not panic on its way to say so.
            .log_internal_errors(false)
            .boxed()
    };
    let repeats = Repeats::start().map_err(TelemetryError::Thread)?;
    let (filter, handle) = reload::Layer::new(filter);
    tracing_subscriber::registry().with(filter).with(repeats.clone()).with(layer).try_init()?;
    panics::install();
    Ok(LogGuard::new(outlet, repeats, LogLevel { handle }))
}

/// The level of the process's log, which may be changed while it runs. Clones change the same.
#[derive(Debug, Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LogLevel {
    /// Sets it.
    pub fn set(&self, level: Level) {
        // Fails only once the log is gone, and then there is none to filter.
        let _ = self.handle.reload(level.0);
    }
}

/// A level that is understood.
#[derive(Debug)]
pub struct Level(EnvFilter);

impl Level {
    /// The configured level, unless [`LEVEL_VARIABLE`] overrides it.
    ///
    /// # Errors
    ///
    /// When it is not understood.
    pub fn read(configured: &str) -> Result<Self, TelemetryError> {
        let from_environment = std::env::var(LEVEL_VARIABLE).ok();
        filter(configured, from_environment.as_deref()).map(Self)
    }
}

fn as_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

fn filter(configured: &str, environment: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let (origin, given) = match environment.map(str::trim).filter(|level| !level.is_empty()) {
        Some(level) => (LEVEL_VARIABLE, level),
        None => ("log.level", configured),
    };
    EnvFilter::builder().parse(given).map_err(|source| TelemetryError::Level {
        origin,
        given: given.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_overrides_the_level_and_errors_name_their_origin() {
        assert_eq!(filter("info", None).expect("valid").to_string(), "info");
        assert_eq!(filter("info", Some("debug")).expect("valid").to_string(), "debug");
        assert_eq!(filter("warn", Some(" ")).expect("valid").to_string(), "warn");
        let error = filter("info", Some("troupe=loud")).expect_err("no such level");
        assert!(error.to_string().contains("TROUPE_LOG"), "{error}");
        let error = filter("troupe=loud", None).expect_err("no such level");
        assert!(error.to_string().contains("log.level"), "{error}");
    }

    #[test]
    fn auto_is_text_on_a_terminal_only() {
        assert!(!as_json(LogFormat::Auto, true));
        assert!(as_json(LogFormat::Auto, false));
        assert!(as_json(LogFormat::Json, true));
        assert!(!as_json(LogFormat::Text, false));
    }
}
