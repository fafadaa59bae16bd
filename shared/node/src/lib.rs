//! What the process of every service needs, whichever services it runs.
//!
//! | module | subject |
//! |---|---|
//! | [`config`], [`units`] | one typed configuration from file, environment and command line; quantities as people write them |
//! | [`threads`] | data threads, named by their service, and the watchdog of those that hang |
//! | [`admin`] | the admin listener: probes, metrics, the commands' interface; who may ask |
//! | [`shutdown`] | readiness, then the stages of the drain in their order |
//! | [`telemetry`], [`metrics`] | logs; the registry of metrics and the process's own figures |
//! | [`notices`], [`limits`] | what is wrong with this process, in words; what the kernel lets it hold |
//! | [`html`], [`figures`] | text in pages of HTML; quantities as people read them |

pub mod config;
pub mod units;

pub mod admin;
pub mod figures;
pub mod html;
pub mod limits;
pub mod metrics;
pub mod notices;
pub mod shutdown;
pub mod telemetry;
pub mod threads;
