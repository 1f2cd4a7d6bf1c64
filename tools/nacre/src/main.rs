//! `nacre`, the operator's command: what can this host do, and what is configured.

mod check;
mod config;
mod hex;
mod id_block;
mod keys;
mod measure;
mod table;
mod verify;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Containers in virtual machines of their own: the operator's command
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what this host can do, and what to do about what it can't
    #[command(after_help = check::EXIT_CODES)]
    Check(check::Arguments),
    /// Shows the configuration that counts, with where each value comes from
    Config(config::Arguments),
    /// Makes and checks ID blocks, by which an SEV-SNP guest belongs to its owner's key
    IdBlock(id_block::Arguments),
    /// Computes the measurements that a confidential guest's reports must show
    Measure(measure::Arguments),
    /// Makes the keys of the simulated platform, which is not confidential
    Keys(keys::Arguments),
    /// Checks a guest's attestation report and explains each step
    #[command(after_help = verify::EXIT_CODES)]
    Verify(verify::Arguments),
}

fn main() -> ExitCode {
    let (text, code) = match Arguments::parse().command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Config(arguments) => text(config::run(&arguments)),
        Command::IdBlock(arguments) => text(id_block::run(&arguments)),
        Command::Measure(arguments) => text(measure::run(&arguments)),
        Command::Keys(arguments) => text(keys::run(&arguments)),
        Command::Verify(arguments) => verify::run(&arguments).unwrap_or_else(|error| {
            eprintln!("nacre: {}", chain(&error));
            (String::new(), ExitCode::from(2))
        }),
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // A reader that has seen enough, such as head.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("nacre: cannot write the output: {error}");
            ExitCode::FAILURE
        }
        _ => code,
    }
}

/// The text to print, if there is one, or the error on stderr.
fn text<E: std::error::Error>(result: Result<String, E>) -> (String, ExitCode) {
    result.map_or_else(
        |error| {
            eprintln!("nacre: {}", chain(&error));
            (String::new(), ExitCode::FAILURE)
        },
        |text| (text, ExitCode::SUCCESS),
    )
}

/// An error with everything that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
