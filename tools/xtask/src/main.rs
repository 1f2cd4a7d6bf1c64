//! Everything a developer runs: `cargo xtask demo`, `test`, `node`, `guest`, `release`, `bench`.

mod bench;
mod cache;
mod command;
mod debian;
mod demo;
mod error;
mod guest;
mod images;
mod installer;
mod node;
mod packages;
mod payload;
mod programs;
mod progress;
mod release;
mod stage0;
mod test;

use std::process::ExitCode;

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
enum Task {
    /// Measurements in the test node.
    Bench(bench::Arguments),
    /// Set everything up and run a container in its own virtual machine.
    Demo,
    /// Build what runs in a pod's machine before its containers: kernel and initrd.
    Guest(guest::Arguments),
    /// Make the OCI images of the tests and of the demonstration, and print where they are.
    Images,
    /// Build the image that installs nacre on the nodes of a cluster, and print where it is.
    Installer(installer::Arguments),
    /// The test node: a disposable Debian machine with a working `/dev/kvm`.
    Node(node::Arguments),
    /// Build the files of a node and lay them out in a folder.
    Release,
    /// Build the first code of a confidential guest, and print where it is.
    Stage0 {
        /// Build it twice more in other folders, and compare.
        #[arg(long)]
        reproduce: bool,
    },
    /// Every check: formatting, clippy, unit tests, and all tests in the test node.
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(arguments.task).unwrap_or_else(|error| {
        error::print_chain(&error);
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode, Error> {
    match task {
        Task::Guest(arguments) => guest::run(&arguments)?,
        Task::Images => images::print()?,
        Task::Installer(arguments) => installer::run(&arguments)?,
        Task::Release => release::run()?,
        Task::Stage0 { reproduce: true } => stage0::reproduce()?,
        Task::Stage0 { reproduce: false } => stage0::print()?,
        // These choose their exit status themselves.
        Task::Bench(arguments) => return bench::run(&arguments),
        Task::Demo => return demo::run(),
        Task::Node(arguments) => return node::task(arguments),
        Task::Test(arguments) => return test::run(&arguments),
    }
    Ok(ExitCode::SUCCESS)
}
