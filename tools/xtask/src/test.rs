//! `cargo xtask test`: every check there is, and one summary.

mod cargo;
mod cri;
mod firmware;
mod headers;
mod inside;
mod plans;
mod platform;
mod runner;
mod summary;

use std::process::ExitCode;

use crate::command;
use crate::error::{self, Error};
use crate::node::Suite;
use crate::packages;
use crate::progress::Progress;
use crate::stage0;
use summary::{Outcome, Summary};

/// The name of the test that builds stage0 again.
const REPRODUCE: &str = "stage0 is the same bytes from any folder";

/// What the workspace's builds and unit tests need of Debian.
const PACKAGES: [&str; 8] = [
    "busybox-static",
    "erofs-utils",
    "gcc",
    "libc6-dev",
    "libseccomp-dev",
    "pkg-config",
    "protobuf-compiler",
    "python3-pip",
];

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Only the tests whose name contains this; formatting and clippy are left out.
    #[arg(long)]
    filter: Option<String>,
    /// Only what needs no test node.
    #[arg(long)]
    no_node: bool,
    /// Only what runs in the test node.
    #[arg(long, conflicts_with = "no_node")]
    only_node: bool,
    /// The Debian release of the test node.
    #[arg(long, value_enum, default_value_t)]
    suite: Suite,
}

/// A part of the tests by itself.
#[derive(clap::Subcommand)]
enum Part {
    /// Only pods through CRI, on both containerds, with runc and nacre.
    Cri(cri::Arguments),
    /// Only containers, on this machine itself and with SEV-SNP; refused with what is missing where there is none.
    Snp(platform::Arguments),
}

/// Runs the checks. The last line is `N passed, N failed, N skipped`.
///
/// # Errors
/// What keeps the checks from running; a check that fails is part of the summary.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Error> {
    let mut summary = Summary::default();
    if let Some(part) = &arguments.part {
        match part {
            Part::Cri(only) => cri::tests(&mut summary, only),
            Part::Snp(only) => platform::tests(&mut summary, only)?,
        }
        println!("{summary}");
        return Ok(if summary.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let filter = arguments.filter.as_deref();
    if arguments.only_node {
        summary.add("formatting, clippy and unit tests", Outcome::Skipped("--only-node was given".into()));
    } else {
        outside(&mut summary, filter)?;
    }
    if arguments.no_node {
        summary.add("all tests in the node", Outcome::Skipped("--no-node was given".into()));
    } else {
        // The name of a test of pods is a group and a test with a slash between.
        let pods = filter.map(|filter| filter.contains('/'));
        if pods != Some(true) {
            inside::tests(&mut summary, arguments.suite, filter);
            inside::machines(&mut summary, arguments.suite, filter);
        }
        if pods != Some(false) {
            cri::with_nacre(&mut summary, arguments.suite, filter);
        }
    }
    println!("{summary}");
    Ok(if summary.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs what needs no node.
fn outside(summary: &mut Summary, filter: Option<&str>) -> Result<(), Error> {
    let mut progress = Progress::new(&[
        "packages for the tests",
        "formatting",
        "clippy",
        "unit tests",
        "stage0, built twice more",
    ]);
    progress.step(|| packages::need(&PACKAGES))?;
    if filter.is_none() {
        let formatting = ["fmt", "--all", "--check"];
        progress.step(|| check(summary, "formatting", &formatting))?;
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        progress.step(|| check(summary, "clippy", &clippy))?;
    } else {
        progress.skip(2);
    }
    progress.step_with_note(|note| cargo::unit_tests(summary, filter, note))?;
    if filter.is_none_or(|filter| REPRODUCE.contains(filter)) {
        progress.step(|| {
            reproduce(summary);
            Ok(())
        })?;
    } else {
        progress.skip(1);
    }
    Ok(())
}

/// Two clean builds of stage0 in two folders give the same bytes.
fn reproduce(summary: &mut Summary) {
    let outcome = stage0::reproduce();
    summary
        .add(REPRODUCE, outcome.map_or_else(|why| Outcome::Failed(error::chain(&why)), |()| Outcome::Passed));
}

/// Runs a check of cargo's that passes or fails as a whole.
fn check(summary: &mut Summary, name: &str, arguments: &[&str]) -> Result<(), Error> {
    match command::run(&format!("test-{name}"), cargo::cargo().args(arguments)) {
        Ok(()) => summary.add(name, Outcome::Passed),
        Err(Error::Ended { tail, log, .. }) => {
            summary.add(name, Outcome::Failed(format!("see {}\n{tail}", log.display())));
        }
        Err(other) => return Err(other),
    }
    Ok(())
}
