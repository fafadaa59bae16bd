//! The commands, one module each.

mod answer;
mod check;
mod client;
mod config;
mod explain;
mod health;
mod init;
mod orders;
mod purge;
mod run;
mod slow;
mod status;
mod table;
mod top;
mod workers;

use std::time::Duration;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::failure::CommandError;
use crate::output;

/// Runs a command to its end.
///
/// # Errors
///
/// What went wrong, with the exit code for it.
pub(crate) fn run(command: Command) -> Result<(), CommandError> {
    match command {
        Command::Run(args) => {
            let services = args.services.services();
            let sources = args.config.into_sources();
            let loaded = crate::config::load(&sources)?;
            run::run(crate::config::ready(loaded, services)?, sources, services)
        }
        Command::Check(args) => check::run(args),
        Command::Init(args) => init::run(&args.directory),
        Command::Config(command) => config::run(command),
        Command::Health(args) => health::run(args),
        Command::Status(args) => status::run(args),
        Command::Workers(args) => workers::run(args),
        Command::Drain(args) => orders::drain(args),
        Command::Undrain(args) => orders::undrain(args),
        Command::Restart(args) => orders::restart(args),
        Command::Reload(args) => orders::reload(args),
        Command::Top(args) => top::run(args),
        Command::Slow(args) => slow::run(args),
        Command::Purge(args) => purge::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "troupe", &mut script);
            output::data(&String::from_utf8_lossy(&script))
        }
    }
}

/// Waits between two looks.
#[expect(clippy::disallowed_methods, reason = "these commands have no runtime, and nothing else to do")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
