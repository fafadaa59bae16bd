//! Troupe: PHP functions and HTTP services behind one front door.
//!
//! This crate is the program: its command line, the root of the configuration, and the start of the services.

mod cli;
mod commands;
mod config;
mod failure;
mod meanings;
mod output;
mod redis;
mod services;
mod stack;

use std::process::ExitCode;

use clap::Parser;

/// The allocator of bare actix-web too, where Troupe is compared with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.message.is_empty() {
                output::say(&format!("{}\n", error.message.trim_end_matches('\n')));
            }
            ExitCode::from(error.code as u8)
        }
    }
}
