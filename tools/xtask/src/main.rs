//! Everything a developer runs: `cargo xtask demo`, `test`, `node`, `guest`, `bench`.

mod cache;
mod command;
mod error;
mod packages;
mod progress;

use clap::{Parser, Subcommand};
use error::Error;

/// nacre's developer tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let result: Result<(), Error> = match arguments.task {};
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            error::print_chain(&error);
            std::process::ExitCode::FAILURE
        }
    }
}
