//! The commands, one module each.

mod check;
mod config;
mod health;
mod init;
mod run;

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
            let loaded = crate::config::load(&args.config.into_sources())?;
            run::run(crate::config::ready(loaded, services)?, services)
        }
        Command::Check(args) => check::run(args),
        Command::Init(args) => init::run(&args.directory),
        Command::Config(command) => config::run(command),
        Command::Health(args) => health::run(args),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "troupe", &mut script);
            output::data(&String::from_utf8_lossy(&script))
        }
    }
}
