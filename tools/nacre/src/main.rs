//! `nacre`, the operator's command: what can this host do, and what is configured.

mod check;
mod config;
mod console;
mod hex;
mod id_block;
mod inspect;
mod install;
mod keys;
mod logs;
mod manual;
mod measure;
mod metrics;
mod pods;
mod printable;
mod ps;
mod report;
mod table;
mod verify;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use pods::PodError;

/// Containers in virtual machines of their own: the operator's command
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Of commands that do something or fail.
const EXIT_CODES: &str = "\
Exit status:
  0  done
  1  something failed, which is named
  2  wrong usage";

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what this host can do, and what to do about what it can't
    #[command(after_help = check::EXIT_CODES)]
    Check(check::Arguments),
    /// Shows the configuration that counts, with where each value comes from
    #[command(after_help = EXIT_CODES)]
    Config(config::Arguments),
    /// Prints a script that completes this command in a shell
    #[command(after_help = EXIT_CODES)]
    Completion(manual::CompletionArguments),
    /// Shows what the kernel of a pod's guest says, or starts a shell where that is allowed
    #[command(after_help = pods::EXIT_CODES)]
    Console(console::Arguments),
    /// Makes and checks ID blocks, by which an SEV-SNP guest belongs to its owner's key
    #[command(after_help = EXIT_CODES)]
    IdBlock(id_block::Arguments),
    /// Shows all that is known of a pod: its configuration, launch, devices, containers and last errors
    #[command(after_help = pods::EXIT_CODES)]
    Inspect(inspect::Arguments),
    /// Installs nacre on a node whose root is mounted somewhere, or upgrades it; pods go on
    #[command(after_help = EXIT_CODES)]
    Install(install::InstallArguments),
    /// Shows what a pod's shim logged
    #[command(after_help = pods::EXIT_CODES)]
    Logs(logs::Arguments),
    /// Writes this command's manual pages into a folder
    #[command(hide = true)]
    Manual(manual::ManualArguments),
    /// Computes the measurements that a confidential guest's reports must show
    #[command(after_help = EXIT_CODES)]
    Measure(measure::Arguments),
    /// Serves the node's numbers in Prometheus' text format
    #[command(after_help = EXIT_CODES)]
    Metrics(metrics::Arguments),
    /// Lists the pods of this node
    #[command(after_help = pods::EXIT_CODES)]
    Ps(ps::Arguments),
    /// Takes nacre off a node whose root is mounted somewhere, unless pods of it run
    #[command(after_help = EXIT_CODES)]
    Uninstall(install::Node),
    /// Gets an attestation report from a pod's guest
    #[command(after_help = pods::EXIT_CODES)]
    Report(report::Arguments),
    /// Makes the keys of the simulated platform, which is not confidential
    #[command(after_help = EXIT_CODES)]
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
        Command::Completion(arguments) => {
            (manual::completion(&arguments, Arguments::command()), ExitCode::SUCCESS)
        }
        Command::Console(arguments) => about_pod(console::run(arguments).map(|code| (String::new(), code))),
        Command::Inspect(arguments) => about_pod(inspect::run(&arguments).map(done)),
        Command::Install(arguments) => text(install::install(&arguments)),
        Command::Uninstall(arguments) => text(install::uninstall(&arguments)),
        Command::Logs(arguments) => about_pod(logs::run(&arguments).map(|()| done(String::new()))),
        Command::Manual(arguments) => text(manual::manual(&arguments, Arguments::command())),
        Command::Metrics(arguments) => text(metrics::run(&arguments)),
        Command::Ps(arguments) => about_pod(ps::run(&arguments).map(done)),
        Command::Report(arguments) => about_pod(report::run(&arguments)),
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

fn done(text: String) -> (String, ExitCode) {
    (text, ExitCode::SUCCESS)
}

/// The same for commands about pods, whose exit status says what kind of error it was.
fn about_pod(result: Result<(String, ExitCode), PodError>) -> (String, ExitCode) {
    result.unwrap_or_else(|error| {
        // SECURITY: messages carry names and texts from elsewhere.
        eprintln!("nacre: {}", printable::text(&chain(&error)));
        (String::new(), error.exit_code())
    })
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
